"""Clause 23 of the checklist, invariant 6: user code on the workers, that is a file system written in
Python."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import loader_threads
from support import (
    current_bytes,
    open_files,
    quiet_loader,
    rows_of,
    values_of,
    wait_until,
    watched_files,
    write_row_groups,
)


@pytest.fixture
def data(tmp_path: Path) -> str:
    """2,000 rows of x = 0, 1, 2, ... in row groups of 250."""
    table = pa.table({"x": np.arange(2000), "y": np.arange(2000, dtype=np.float32)})
    return write_row_groups(tmp_path / "data.parquet", table, [250] * 8)


# --- Errors in user code ----------------------------------------------------------------------------------


class RefusalError(Exception):
    pass


@pytest.mark.parametrize("direct", [True, False])
def test_workers_share_a_file_that_was_written_in_python(data: str, direct: bool) -> None:
    """Invariant 7: many workers read one Python file object, which has one position, and each gets its own
    bytes."""
    loader = quiet_loader(
        data, batch_size=50, num_workers=4, filesystem=watched_files(lambda path: None), _direct_decode=direct
    )
    for _ in range(30):
        for number, batch in enumerate(loader):
            assert values_of(batch) == values_of(batch, "y") == list(range(50 * number, 50 * number + 50))


@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
@pytest.mark.parametrize("direct", [True, False])
def test_an_error_in_user_code_at_every_read(
    tmp_path: Path, data: str, num_workers: int, direct: bool
) -> None:
    """Clause 23: an exception from a file system in Python is raised once, in its place, and all is given
    back."""
    calls = 0
    fails_at = -1
    lock = threading.Lock()

    def before_read(path: str) -> None:
        nonlocal calls
        with lock:
            calls += 1
            if calls == fails_at:
                raise RefusalError(f"read {calls}")

    loader = quiet_loader(
        data,
        batch_size=100,
        num_workers=num_workers,
        filesystem=watched_files(before_read),
        _direct_decode=direct,
    )
    idle, files = current_bytes(loader), open_files(tmp_path)
    calls = 0
    assert rows_of(loader) == list(range(2000))
    reads = calls
    assert reads > 8
    for number in range(1, reads + 1):
        calls, fails_at = 0, number
        got: list[int] = []
        iterator = iter(loader)

        def consume(iterator: Any = iterator, got: list[int] = got) -> None:
            for batch in iterator:
                got.extend(values_of(batch))

        with pytest.raises(RefusalError) as caught:
            consume()
        assert str(caught.value) == f"read {number}"
        del caught  # Its traceback shows the file.
        assert got == list(range(len(got)))
        assert len(got) < 2000
        assert list(iterator) == []
        assert current_bytes(loader) == idle
        assert open_files(tmp_path) == files
        wait_until(lambda: loader_threads() == [])
    fails_at = -1
    assert rows_of(loader) == list(range(2000))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, MemoryError, StopIteration, OSError(5, "disk")]
)
def test_user_codes_exceptions_keep_their_type(data: str, num_workers: int, error: Any) -> None:
    """Clause 23: whatever Python code on a worker raises arrives as what it is."""
    is_on = False

    def before_read(path: str) -> None:
        if is_on:
            raise error

    loader = quiet_loader(data, num_workers=num_workers, filesystem=watched_files(before_read))
    is_on = True
    with pytest.raises(error if isinstance(error, type) else type(error)) as caught:
        list(loader)
    if not isinstance(error, type):
        assert caught.value is error
    is_on = False
    assert rows_of(loader) == list(range(2000))


def test_close_waits_for_a_read_in_user_code(data: str) -> None:
    """Invariant 6: close() returns as soon as the running read does, and the GIL is free meanwhile."""
    entered, may_go = threading.Event(), threading.Event()
    is_on = False

    def before_read(path: str) -> None:
        if is_on:
            entered.set()
            may_go.wait()

    loader = quiet_loader(data, num_workers=2, filesystem=watched_files(before_read))
    is_on = True
    iterator = iter(loader)
    entered.wait()
    closing = threading.Thread(target=loader.close)
    closing.start()
    assert closing.is_alive()
    may_go.set()
    closing.join()
    assert current_bytes(loader) == {}
    with pytest.raises(RuntimeError, match="closed"):
        next(iterator)
