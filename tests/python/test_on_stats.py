"""The metrics callback of a loader: when it is called, with what, and what its errors do."""

from __future__ import annotations

import threading
from typing import Any

import penstock as ps
import pytest
from support import current_bytes, quiet_loader, rows_of


def test_every_so_often_and_at_the_end(numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called on the caller's thread when it is time and at the end of each epoch, with fresh figures."""
    now_s = 0.0
    monkeypatch.setattr("penstock._epoch.time.monotonic", lambda: now_s)
    calls: list[tuple[int, threading.Thread]] = []

    def on_stats(stats: ps.Stats) -> None:
        calls.append((stats.to_dict()["batches"], threading.current_thread()))

    loader = quiet_loader(numbers, batch_size=100, on_stats=on_stats, on_stats_every_s=3, num_workers=1)
    for _ in loader:
        now_s += 1.0
    here = threading.current_thread()
    assert calls == [(3, here), (6, here), (9, here), (10, here)]
    list(loader)
    assert calls[4:] == [(20, here)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_before_every_batch(numbers: str, num_workers: int) -> None:
    """on_stats_every_s=0 reports each time; the batches are all there."""
    batches: list[int] = []
    loader = quiet_loader(
        numbers,
        batch_size=100,
        num_workers=num_workers,
        collate_fn=lambda batch: batch,
        on_stats=lambda stats: batches.append(stats.to_dict()["batches"]),
        on_stats_every_s=0,
    )
    assert rows_of(loader) == list(range(1000))
    assert batches == [*range(11), 10]


def test_an_epoch_that_is_left_reports_nothing_more(numbers: str) -> None:
    """User code does not run in a destructor."""
    calls: list[Any] = []
    for _ in quiet_loader(numbers, batch_size=100, on_stats=calls.append):
        break
    assert calls == []


def test_errors_propagate(numbers: str) -> None:
    """What the callback raises ends the epoch, in mid-epoch and at the end."""

    def fail(stats: ps.Stats) -> None:
        raise ConnectionError(f"after {stats.to_dict()['batches']}")

    often = quiet_loader(numbers, batch_size=100, on_stats=fail, on_stats_every_s=0)
    iterator = iter(often)
    with pytest.raises(ConnectionError, match="after 0"):
        next(iterator)
    assert next(iterator, None) is None
    at_the_end = quiet_loader(numbers, batch_size=100, on_stats=fail, on_stats_every_s=1e9)
    iterator = iter(at_the_end)
    assert len([next(iterator) for _ in range(10)]) == 10
    with pytest.raises(ConnectionError, match="after 10"):
        next(iterator)
    assert set(current_bytes(at_the_end)) == {"metadata"}


def test_bad_arguments(numbers: str) -> None:
    """Wrong types and numbers are refused when the loader is made."""
    with pytest.raises(TypeError, match="on_stats is a callable"):
        quiet_loader(numbers, on_stats="log")
    with pytest.raises(TypeError, match="number of seconds"):
        quiet_loader(numbers, on_stats_every_s="10")
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="on_stats_every_s must be at least 0"):
            quiet_loader(numbers, on_stats_every_s=wrong)


def test_scalars_are_flat(numbers: str) -> None:
    """to_scalars(): every number of to_dict() under one name, nothing else."""
    loader = quiet_loader(numbers, batch_size=100)
    rows_of(loader)
    stats = loader.stats()
    scalars = stats.to_scalars("ps/")
    values = stats.to_dict()
    assert scalars["ps/rows"] == 1000
    assert scalars["ps/wait_ms/p99"] == values["wait_ms"]["p99"]
    assert scalars["ps/memory/user/peak_bytes"] == values["memory"]["user"]["peak_bytes"]
    assert all(type(value) is float for value in scalars.values())
    assert not any("bottleneck" in name for name in scalars)
