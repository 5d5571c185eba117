"""Fixtures that every test gets: a watchdog against hangs, a check for threads left behind, files to read."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

WATCHDOG_S = 200

WriteParquet = Callable[..., str]


def pytest_configure() -> None:
    """Mind Ctrl-C, also where a shell runs this in its background: that makes every child ignore it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_stderr(pytestconfig: pytest.Config) -> Iterator[int]:
    """Where a hang can be seen although pytest captures the output."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        fd = os.dup(2)
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def watchdog(real_stderr: int) -> Iterator[None]:
    """Ends the process with the stacks of all threads where a test takes longer than that."""
    faulthandler.dump_traceback_later(WATCHDOG_S, exit=True, file=real_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


def loader_threads() -> list[str]:
    """Native threads of this process that loaders have started, and that do not end within seconds: a thread
    that was joined may still be listed for a moment."""
    deadline = time.monotonic() + 5
    while (names := _listed_threads()) and time.monotonic() < deadline:
        time.sleep(0.001)
    return names


def _listed_threads() -> list[str]:
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
        except OSError:  # It has just ended.
            continue
        if name == "penstock":
            names.append(f"{name} {task.name}")
    return names


@pytest.fixture(autouse=True)
def no_thread_is_left(watchdog: None) -> Iterator[None]:
    """Holds the promise that what is over leaves no thread, native or Python's."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    assert loader_threads() == []
    assert own_threads() <= before
    for thread in _python_threads() - before:
        thread.join(60)  # Others may end theirs a moment later, such as torch its queues'.
    assert _python_threads() <= before


def own_threads() -> set[threading.Thread]:
    """Python's threads that Penstock has started and that are joined where they were in use. Those of an
    `iter_threaded` end by themselves."""
    return {
        each
        for each in threading.enumerate()
        if each.name.startswith("penstock") and not each.name.startswith("penstock-iter-threaded")
    }


def _python_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name != "fsspecIO"}  # fsspec's own, for good.


@pytest.fixture
def write_parquet(tmp_path: Path) -> WriteParquet:
    """Writes {column: values} to a Parquet file and returns its path."""

    def write(columns: dict[str, Any] | pa.Table, name: str = "data.parquet", **options: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, path, **options)
        return str(path)

    return write


@pytest.fixture
def numbers(write_parquet: WriteParquet) -> str:
    """1,000 rows in row groups of 100: x = 0, 1, 2, ... (int64), y = x / 2 (float32)."""
    x = pa.array(range(1000), pa.int64())
    y = pa.array([i / 2 for i in range(1000)], pa.float32())
    return write_parquet({"x": x, "y": y}, row_group_size=100)


@pytest.fixture(params=["torch", "numpy"])
def tensor_format(request: pytest.FixtureRequest) -> str:
    """Each format whose batches are dicts of tensors."""
    if request.param == "torch":
        pytest.importorskip("torch")
    return str(request.param)


def rows_of(loader: ps.Loader, column: str = "x") -> list[Any]:
    """One epoch's values of a column."""
    return [value for batch in loader for value in batch[column].tolist()]
