"""An op in C++, as a user writes it: the example is built, loaded and run."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from pathlib import Path

import penstock as ps
import pyarrow as pa
import pytest
from support import quiet_loader

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Built by the command in the example's first lines."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("native_op")
    pyarrow = Path(pa.get_include()).parent
    (arrow,) = (path.name for path in pyarrow.glob("libarrow.so.*"))
    out = folder / "count_words.so"
    command = [compiler, "-std=c++20", "-shared", "-fPIC", "-I", str(ROOT / "include")]
    command += ["-isystem", pa.get_include(), str(ROOT / "examples/native_op/count_words.cc"), "-o", str(out)]
    subprocess.run([*command, "-L", str(pyarrow), f"-l:{arrow}"], check=True, timeout=100)
    return str(out)


TEXTS = pa.table({"text": ["one two three", "four", "five,six seven"]})


def words(library: str, table: pa.Table = TEXTS, **params: str) -> list[int]:
    op = ps.ops.native(library, "count_words", **params)
    with quiet_loader(table, batch_size=3, transforms={"text": op | ps.ops.cast("int64")}) as loader:
        (batch,) = loader
        return batch["text"].tolist()


@pytest.mark.slow
def test_the_example_runs_and_takes_settings(library: str) -> None:
    assert words(library) == [3, 1, 2]
    assert words(library, separator=",") == [1, 1, 2]


@pytest.mark.slow
def test_its_errors_name_the_row(library: str) -> None:
    missing = pa.table({"text": ["a", None]})
    with pytest.raises(ValueError, match="row 1: count_words: the text is missing"):
        words(library, missing)
    with pytest.raises(TypeError, match="count_words is for texts, not for int64"):
        words(library, pa.table({"text": [1]}))
    with pytest.raises(ValueError, match="a separator is one character"):
        words(library, separator="--")


def test_what_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    def loader_of(path: str, symbol: str) -> ps.Loader:
        return ps.Loader(TEXTS, transforms={"words": ps.col("text") | ps.ops.native(path, symbol)})

    with pytest.raises(OSError, match=r"no-such\.so"):
        loader_of(str(tmp_path / "no-such.so"), "count_words")
    with pytest.raises(ValueError, match="exports no op 'no_such_op'"):
        loader_of("libm.so.6", "no_such_op")


def test_an_op_is_a_description() -> None:
    op = ps.ops.native("x.so", "make", size=3)
    assert pickle.loads(pickle.dumps(op)) == op == ps.ops.native("x.so", "make", size="3")
    assert repr(op) == "native('x.so', 'make', size='3')"
    assert len({op, ps.ops.native("x.so", "make")}) == 2
    for path, symbol in ((1, "make"), ("x.so", 1)):
        with pytest.raises(TypeError, match="is a str"):
            ps.ops.native(path, symbol)  # type: ignore[arg-type]
