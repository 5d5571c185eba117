"""An op in C++ of the user's own: built with the compiler alone against the package's headers and loaded."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pytest
from support import quiet_loader

EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp_custom_op" / "letter_counts.cc"
BUILD_S = 300


@pytest.fixture(scope="module")
def letter_counts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example's shared object, built as docs/formats.md says."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    built = tmp_path_factory.mktemp("op") / "letter_counts.so"
    folders = [f"-I{ps.ops.get_include()}", f"-I{pa.get_include()}", f"-L{pa.get_library_dirs()[0]}"]
    arrow_library = f"-l:libarrow.so.{pa.cpp_version_info.major}00"
    flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-o", str(built)]
    subprocess.run([compiler, *flags, *folders, str(EXAMPLE), arrow_library], check=True, timeout=BUILD_S)
    return str(built)


def counts_of(text: str) -> list[int]:
    return [text.count(chr(letter)) for letter in range(ord("a"), ord("z") + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_example_counts_letters(letter_counts: str, write_parquet: Any, num_workers: int) -> None:
    texts = ["abba", "", "Zebra", "xyz" * 50] * 100
    path = write_parquet({"text": texts}, row_group_size=90)
    transforms = {
        "text": ps.ops.native(letter_counts, "letter_counts"),
        "any_case": ps.col("text") | ps.ops.native(letter_counts, "letter_counts", ignore_case=True),
        "clipped": ps.col("text") | ps.ops.native(letter_counts, "letter_counts") | ps.ops.clip(upper=1),
    }
    loader = quiet_loader(path, transforms=transforms, num_workers=num_workers, batch_size=64)
    assert (loader.schema["text"].dtype, loader.schema["text"].shape) == ("int32", (26,))
    for batches in (loader, pickle.loads(pickle.dumps(loader))):
        whole = {name: np.concatenate([batch[name] for batch in batches]) for name in transforms}
        assert whole["text"].tolist() == [counts_of(text) for text in texts]
        assert whole["any_case"].tolist() == [counts_of(text.lower()) for text in texts]
        assert whole["clipped"].max() == 1


@pytest.mark.slow
def test_its_errors_name_file_column_row_and_op(letter_counts: str, write_parquet: Any) -> None:
    op = ps.ops.native(letter_counts, "letter_counts")
    path = write_parquet({"text": ["a"] * 30 + [None], "n": list(range(31))}, row_group_size=20)
    loader = quiet_loader(path, columns=[], transforms={"text": op})
    with pytest.raises(
        ValueError, match=r"data.parquet', row group 1, column 'text': row 10: letter_counts: there is no"
    ):
        list(loader)
    with pytest.raises(TypeError, match="column 'n': letter_counts: takes a column of strings, not int64"):
        quiet_loader(path, columns=[], transforms={"n": op})
    with pytest.raises(ValueError, match="exports no op 'other'"):
        quiet_loader(path, transforms={"text": ps.ops.native(letter_counts, "other")})


def test_a_shared_object_that_is_not_there(write_parquet: Any) -> None:
    op = ps.ops.native("/no/such/op.so", "make", scale=1.5, deep=True, mode="x")
    assert op.params == (("deep", "true"), ("mode", "x"), ("scale", "1.5"))
    assert pickle.loads(pickle.dumps(op)) == op
    assert hash(pickle.loads(pickle.dumps(op))) == hash(op)
    assert repr(op) == "native('/no/such/op.so', 'make', deep='true', mode='x', scale='1.5')"
    with pytest.raises(OSError, match=r"loading the op 'make': /no/such/op\.so"):
        quiet_loader(write_parquet({"text": ["a"]}), transforms={"text": op})


def test_parameters_are_plain_values() -> None:
    with pytest.raises(TypeError, match="the parameter size is a str, int, float or bool, got list"):
        ps.ops.native("op.so", "make", size=[1])  # type: ignore[arg-type]
