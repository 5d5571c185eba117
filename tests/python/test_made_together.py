"""Batches of one slot are made for Python together, ahead of who gets them, and nobody notices."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import penstock as ps
import pyarrow as pa
import pytest
from support import current_bytes, quiet_loader, rows_of, write_row_groups

BATCH = 10
BATCHES = 40


def make(path: str, **options: object) -> ps.Loader:
    return quiet_loader(path, batch_size=BATCH, num_workers=1, **options)


@pytest.fixture
def data(tmp_path: Path) -> str:
    """400 rows of two columns."""
    table = pa.table({"x": np.arange(BATCH * BATCHES), "y": np.arange(BATCH * BATCHES, dtype=np.float32)})
    return write_row_groups(tmp_path / "data.parquet", table, [BATCH * BATCHES])


@pytest.fixture
def loader(data: str) -> ps.Loader:
    """One slot holds all batches, which are made in several runs."""
    loader = make(data)
    assert loader.explain().to_dict()["batches_per_slot"] >= BATCHES
    return loader


def test_what_is_made_ahead_is_not_held(loader: ps.Loader) -> None:
    """held_batches counts what the consumer has, not what was made with it."""
    batches = iter(loader)
    held = [next(batches)]
    assert loader._core.held_batches == 1
    held += [next(batches) for _ in range(20)]
    assert loader._core.held_batches == 21
    held.clear()
    assert loader._core.held_batches == 0


def test_what_is_made_ahead_is_not_given(data: str, loader: ps.Loader) -> None:
    """state_dict() and stats() go by what the consumer got."""
    batches = iter(loader)
    for given in range(1, 25):
        next(batches)
        assert loader.stats().to_dict()["batches"] == given
        resumed = make(data)
        resumed.load_state_dict(loader.state_dict())
        assert rows_of(resumed)[0] == given * BATCH


@pytest.mark.parametrize("end", ["close the loader", "close the iterator", "drop it", "the next epoch"])
def test_what_is_made_ahead_goes_with_its_epoch(loader: ps.Loader, end: str) -> None:
    """The slot is held by nobody when an epoch ends early, while its iterator may live on."""
    batches = iter(loader)
    next(batches)
    assert "user" in current_bytes(loader)
    if end == "close the loader":
        loader.close()
        assert current_bytes(loader) == {}
        with pytest.raises(RuntimeError, match="the loader is closed"):
            next(batches)
    elif end == "close the iterator":
        batches.close()
        assert "user" not in current_bytes(loader)
    elif end == "drop it":
        del batches
        assert "user" not in current_bytes(loader)
    else:
        rows = rows_of(loader)
        assert rows == list(range(BATCH * BATCHES))
        assert "user" not in current_bytes(loader)


def test_what_is_made_ahead_is_not_for_a_forked_child(loader: ps.Loader) -> None:
    """A child is told that its parent's loader is of no use, not given the rest of a slot."""
    batches = iter(loader)
    next(batches)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            next(batches)
            text = "a batch"
        except RuntimeError as error:
            text = str(error)
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    assert b"make the loader in the child" in os.read(reader, 1000)
    os.close(reader)
    assert rows_of(batches) == list(range(BATCH, BATCH * BATCHES))


def test_columns_bound_what_is_made_together(tmp_path: Path) -> None:
    """Of a wide table one batch is made at a time: the first one is not to wait for the others."""
    table = pa.table({f"c{i}": np.arange(100) for i in range(100)})
    path = write_row_groups(tmp_path / "wide.parquet", table, [100])
    loader = quiet_loader(path, batch_size=1, num_workers=1)
    batches = iter(loader)
    next(batches)
    assert loader._core.made_batches == 0
    narrow = quiet_loader(path, batch_size=1, num_workers=1, columns=["c0", "c1"])
    batches = iter(narrow)
    next(batches)
    assert narrow._core.made_batches == 15
