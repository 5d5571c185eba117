"""The files of Apache parquet-testing: the same rows as pyarrow reads, or an error that names the file.

PENSTOCK_PARQUET_TESTING names the folder with expect.csv and parquet-testing/.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import data_makers as make
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

FOLDER = Path(os.environ.get("PENSTOCK_PARQUET_TESTING", ""))
BUDGET = 256 << 20
GROUPS = 12
SECONDS_PER_FILE = 30

#: Files that pyarrow reads and Penstock refuses: the footer's number of rows is not its row groups'.
REFUSED = {"repeated_no_annotation.parquet"}

pytestmark = pytest.mark.skipif(
    not os.environ.get("PENSTOCK_PARQUET_TESTING") or not (FOLDER / "expect.csv").is_file(),
    reason="PENSTOCK_PARQUET_TESTING does not name a folder with expect.csv and parquet-testing/",
)


@functools.cache
def expectations() -> dict[str, dict[str, str]]:
    """path -> what pyarrow made of it (encrypted files: without a key)."""
    if not (FOLDER / "expect.csv").is_file():
        return {}
    with (FOLDER / "expect.csv").open(newline="") as file:
        return {line["path"]: line for line in csv.DictReader(file) if line["class"] != "encrypted-key"}


# --- The child process: a path on each line of stdin, its outcome as JSON on each line of stdout -----------


def transforms_for(type: pa.DataType, name: str) -> dict[str, Any] | None:
    """What makes a tensor of a column; None where nothing does."""
    while isinstance(type, pa.BaseExtensionType):
        type = type.storage_type
    if pa.types.is_fixed_size_list(type):
        return transforms_for(type.value_type, name)
    if make.tensor_dtype_or_none(type):
        return {}
    if pa.types.is_dictionary(type):
        return {name: ps.ops.hash_bucket(2**40)}
    return {name: ps.ops.hash_bucket(2**40)} if type in make.BYTES_TYPES.values() or is_bytes(type) else None


def is_bytes(type: pa.DataType) -> bool:
    return pa.types.is_fixed_size_binary(type)


def epoch(path: str, format: str, columns: list[str], transforms: dict[str, Any], direct: bool) -> Any:
    loader = ps.Loader(
        path,
        batch_size=64,
        format=format,
        columns=columns,
        transforms=transforms,
        nulls="mask",
        num_workers=1,
        memory_budget=BUDGET,
        _direct_decode=direct,
    )
    with loader:
        rows = make.joined(loader)
        assert loader.memory()["total"]["peak_bytes"] <= BUDGET
    return rows


def check_file(path: str) -> dict[str, Any]:
    """Reads all that has a tensor form, both ways and as Arrow batches; compares with pyarrow's reading."""
    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError):
        with ps.Loader(path, format="numpy", memory_budget=BUDGET) as loader:
            return {"rows": sum(1 for _ in loader), "columns": len(loader.schema)}
    forms = {field.name: transforms_for(field.type, field.name) for field in schema}
    columns = [name for name, form in forms.items() if form is not None and schema.names.count(name) == 1]
    if not columns:
        return {"rows": None, "columns": 0}
    transforms = {name: op for column in columns for name, op in forms[column].items()}  # type: ignore[union-attr]
    got = epoch(path, "numpy", columns, transforms, True)
    other = epoch(path, "numpy", columns, transforms, False)
    expected = pq.read_table(path, columns=columns, page_checksum_verification=True)
    for name in got:
        make.assert_same_bits(got[name], other[name], name)
    for column in columns if got else []:
        check_column(got, column, expected[column].combine_chunks(), column in transforms)
    kept = [
        name
        for name in columns
        if name not in transforms and not pa.types.is_decimal256(schema.field(name).type)
    ]
    if kept:
        table = epoch(path, "arrow", kept, {}, True)
        for name in kept if len(expected) else []:
            table.validate(full=True)
            wanted = expected[name].combine_chunks()
            carried = table[name].combine_chunks()
            assert carried.is_null().equals(wanted.is_null()), name
            for a, b in zip(make.tensor_form(carried), make.tensor_form(wanted), strict=True):
                make.assert_same_bits(a, b, name)
    return {"rows": len(got[columns[0]]) if got else 0, "columns": len(columns)}


def check_column(got: dict[str, Any], name: str, array: pa.Array, is_hashed: bool) -> None:
    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if not is_hashed:
        values, missing = make.tensor_form(array)
        make.assert_same_bits(got[name], values, name)
    else:
        missing = array.is_null().to_numpy(zero_copy_only=False)
        short = pc.less(pc.fill_null(pc.binary_length(array.cast(pa.binary())), 0), 32).to_numpy(False)
        buckets = [
            0 if v is None else make.bucket_of(v, 2**40) if ok else -1
            for v, ok in zip(array.to_pylist(), short, strict=True)
        ]
        assert [b for b in buckets if b >= 0] == [
            g for g, b in zip(got[name].tolist(), buckets, strict=True) if b >= 0
        ]
    assert got.get(f"{name}_mask", missing).tolist() == missing.tolist(), name


def serve() -> None:
    """The child's loop."""
    for line in sys.stdin:
        path = line.rstrip("\n")
        try:
            answer = check_file(path)
        except AssertionError as error:
            answer = {"wrong": str(error)[:1000] or "assertion"}
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        status = Path("/proc/self/status").read_text()
        answer["peak_kib"] = int(status.split("VmHWM:")[1].split()[0])
        print(json.dumps(answer), flush=True)


# --- The parent -------------------------------------------------------------------------------------------


class Child:
    """A process that checks files and is started again after a crash."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, path: str) -> dict[str, Any]:
        if self.process is None:
            code = "import sys; sys.path.insert(0, sys.argv[1]); import test_parquet_testing as t; t.serve()"
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, str(Path(__file__).parent)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(os.fsencode(path) + b"\n")
        self.process.stdin.flush()
        deadline = time.monotonic() + SECONDS_PER_FILE
        answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            part = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not part:
                return self.end("took too long" if not ready else "died")
            answer += part
        return json.loads(answer)  # type: ignore[no-any-return]

    def end(self, how: str = "") -> dict[str, Any]:
        if self.process is not None:
            if how != "died":
                self.process.kill()
            code = self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                pipe.close()
            self.process = None
            how = f"{how}, exit status {code}"
        return {"crash": how}


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    process = Child()
    yield process
    process.end()


def complaint(path: str, expected: dict[str, str], answer: dict[str, Any]) -> str:
    """What is wrong with the answer; empty where nothing is."""
    if "crash" in answer or "wrong" in answer:
        return str(answer)
    if answer["peak_kib"] << 10 > BUDGET + (1 << 30):
        return f"took {answer['peak_kib'] >> 10} MiB"
    has_name = Path(path).name in answer.get("message", "")
    if "error" in answer and not has_name:
        return f"an error that does not name the file: {answer}"
    if expected["crc_outcome"].startswith("error"):
        return "" if "error" in answer or answer["columns"] == 0 else f"read, though pyarrow cannot: {answer}"
    if "error" in answer and Path(path).name in REFUSED:
        return ""
    if "error" in answer:
        return f"pyarrow reads it: {answer}"
    if answer["rows"] not in (None, int(expected["rows"])):
        return f"{answer['rows']} rows"
    return ""


@pytest.mark.parametrize("group", range(GROUPS))
def test_every_file_is_read_as_pyarrow_does_or_refused_by_name(child: Child, group: int) -> None:
    """22: each file gives pyarrow's rows or an error that names it; never a signal, a hang or too much
    memory."""
    complaints = {}
    for path, expected in sorted(expectations().items())[group::GROUPS]:
        answer = child.ask(str(FOLDER / path))
        print(path, answer)
        wrong = complaint(path, expected, answer)
        if wrong:
            complaints[path] = wrong
    assert not complaints, "\n".join(f"{path}: {wrong}" for path, wrong in complaints.items())


def test_the_corpus_has_the_files_that_matter() -> None:
    """The files with bad checksums, the bombs and the damaged ones are among those read."""
    outcomes = [line["crc_outcome"] for line in expectations().values()]
    assert len(outcomes) > 90
    assert sum(outcome.startswith("error") for outcome in outcomes) > 20
    assert any("checksum" in path for path in expectations())
