"""Helpers of the tests that run whole loaders: files of odd shapes, what is held, file systems written in
Python."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, settings

with contextlib.suppress(ImportError):  # Here, where no watchdog counts the seconds that it takes.
    import torch  # noqa: F401

#: The same examples in each run; what fails is printed. It is not made smaller: that outlasts the watchdog.
PROPERTY = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

#: What is a sum or a limit in loader.memory(), not an account.
NO_ACCOUNT = ("total", "budget_bytes", "over_budget_bytes")


def quiet_loader(source: Any, **options: Any) -> ps.Loader:
    """A loader of NumPy batches, without the warning that there are more workers than cores."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return ps.Loader(source, **{"format": "numpy", **options})


def write_row_groups(path: Path, table: pa.Table, sizes: Sequence[int], **options: Any) -> str:
    """Writes the rows of `table` in row groups of these sizes, which may be 0."""
    assert sum(sizes) == len(table)
    with pq.ParquetWriter(path, table.schema, **options) as writer:
        begin = 0
        for size in sizes:
            writer.write_table(table.slice(begin, size), row_group_size=max(size, 1))
            begin += size
    assert pq.ParquetFile(path).metadata.num_row_groups == len(sizes)
    return str(path)


def values_of(batch: Any, column: str = "x") -> list[Any]:
    """One column of a batch in any format."""
    values = batch[column]
    return list(values.to_pylist() if isinstance(values, pa.Array) else values.tolist())


def rows_of(batches: Iterable[Any], column: str = "x") -> list[Any]:
    """One column of many batches."""
    return [value for batch in batches for value in values_of(batch, column)]


# --- What is held -----------------------------------------------------------------------------------------


def current_bytes(loader: ps.Loader) -> dict[str, int]:
    """What each account that is not empty has now."""
    memory = loader.memory()
    held = {name: line["current_bytes"] for name, line in memory.items() if name not in NO_ACCOUNT}
    assert sum(held.values()) - held["device"] - held["store"] == memory["total"]["current_bytes"]
    return {name: size for name, size in held.items() if size != 0}


def assert_within_budget(loader: ps.Loader) -> None:
    """Holds invariant 1: no account, and not their sum, has ever been above the budget."""
    memory = loader.memory()
    assert memory["over_budget_bytes"] == 0
    assert 0 < memory["total"]["peak_bytes"] <= memory["budget_bytes"]
    for name, line in memory.items():
        if name not in NO_ACCOUNT:
            assert 0 <= line["current_bytes"] <= line["peak_bytes"] <= memory["total"]["peak_bytes"], name


def rss_bytes() -> int:
    """The memory that this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(folder: Path) -> list[str]:
    """The files of a folder that this process has open, once for each time. Others open files of their own
    at any moment: Ray, where its tests ran before in this process."""
    names = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = fd.readlink()
        except OSError:  # The folder's own.
            continue
        if target.is_relative_to(folder.resolve()):
            names.append(str(target))
    return sorted(names)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Lets other threads run until it is so; the watchdog ends a wait in vain."""
    while not is_so():
        time.sleep(0)


def work_for(seconds: float) -> None:
    """A training step that keeps a core busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def items_done(loader: ps.Loader, stage: str) -> int:
    """How many tasks of a stage the workers have finished."""
    return int(loader.stats().to_dict()["stages"][stage]["items"])


# --- Processes --------------------------------------------------------------------------------------------


def run_python(code: str, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Runs code in an interpreter of its own, where the tests' helpers can be imported and a hang shows its
    stacks."""
    # Not dump_traceback_later(): its own thread is what a forked child would wait for.
    guard = (
        "import faulthandler, signal; faulthandler.register(signal.SIGALRM, chain=True); signal.alarm(150)\n"
    )
    folder = str(Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", guard + textwrap.dedent(code), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([folder, *sys.path])},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin, timeout=160)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # With its children.
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


# --- File systems -----------------------------------------------------------------------------------------


class _WatchedFile:
    """A local file that calls `before_read` before each read."""

    def __init__(self, path: str, before_read: Callable[[str], None]) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close().
        self._path = path
        self._before_read = before_read

    def read(self, size: int = -1) -> bytes:
        self._before_read(self._path)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        place = self._file.seek(offset, whence)
        time.sleep(0)  # Other threads may run here, as in every file system that locks or logs.
        return place

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False


def watched_files(before_read: Callable[[str], None]) -> pyarrow.fs.PyFileSystem:
    """The local files as a file system written in Python, on which the loader runs user code at each read."""
    from fsspec.implementations.local import LocalFileSystem

    class Handler(pyarrow.fs.FSSpecHandler):
        def open_input_file(self, path: str) -> pa.PythonFile:
            return pa.PythonFile(_WatchedFile(path, before_read), mode="r")

    return pyarrow.fs.PyFileSystem(Handler(LocalFileSystem()))
