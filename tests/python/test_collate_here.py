"""A loop without a step of its own: collate_fn runs on its thread, and all promises hold."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import penstock._collate as collate_module
import pyarrow as pa
import pytest
from penstock._collate import Making
from support import current_bytes, quiet_loader, values_of, wait_until, write_row_groups

NEVER_QUICK, ALWAYS_QUICK = 0, 10**15


@pytest.fixture
def data(tmp_path: Path) -> str:
    """2,000 rows of x = 0, 1, 2, ... in row groups of 250."""
    return write_row_groups(tmp_path / "data.parquet", pa.table({"x": np.arange(2000)}), [250] * 8)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collate_module, "QUICK_NS", ALWAYS_QUICK)


def is_here() -> bool:
    return threading.current_thread() is threading.main_thread()


def collating(data: str, **options: Any) -> ps.Loader:
    return quiet_loader(data, **{"batch_size": 20, "num_workers": 2, **options})


@pytest.mark.parametrize("collate_workers", [1, 2])
def test_a_quick_loop_makes_its_batches_itself_and_a_slow_one_does_not(
    data: str, collate_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[bool] = []

    def collate(batch: Any) -> Any:
        places.append(is_here())
        return values_of(batch)

    rows: list[int] = []
    with collating(data, collate_fn=collate, collate_workers=collate_workers) as loader:
        batches = iter(loader)
        for _ in range(40):
            rows.extend(next(batches))
        assert any(places) == all(places[20:]) == (collate_workers == 1)
        monkeypatch.setattr(collate_module, "QUICK_NS", NEVER_QUICK)
        places.clear()
        for batch in batches:
            rows.extend(batch)
        assert not any(places)
    assert rows == list(range(2000))


def test_the_state_is_that_of_batches_made_on_threads(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for quick_ns in (ALWAYS_QUICK, NEVER_QUICK):
        monkeypatch.setattr(collate_module, "QUICK_NS", quick_ns)
        with collating(data, collate_fn=values_of) as loader:
            batches = iter(loader)
            for _ in range(50):
                next(batches)
            states = loader.state_dict()
            batches.close()
            loader.load_state_dict(states)
            seen.append((states, [row for batch in loader for row in batch]))
    assert seen[0] == seen[1]
    assert seen[0][1] == list(range(1000, 2000))


def test_an_error_comes_in_its_place(data: str) -> None:
    def collate(batch: Any) -> Any:
        if batch["x"][0] == 1000:
            raise LookupError("here" if is_here() else "there")
        return batch

    loader = collating(data, collate_fn=collate)
    batches = iter(loader)
    for _ in range(50):
        next(batches)
    with pytest.raises(LookupError, match="here"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)
    assert not [each for each in threading.enumerate() if each.name.startswith("penstock")]


def test_user_code_may_close_its_loader(data: str) -> None:
    def collate(batch: Any) -> Any:
        if batch["x"][0] == 1000:
            assert is_here()
            loader.close()
        return values_of(batch)

    loader = collating(data, collate_fn=collate)
    with pytest.raises(RuntimeError, match="the loader is closed"):
        list(loader)
    assert current_bytes(loader) == {}


def test_close_by_another_thread_waits_for_it(data: str) -> None:
    is_entered, may_return = threading.Event(), threading.Event()
    is_over: list[str] = []

    def collate(batch: Any) -> Any:
        if batch["x"][0] == 1000:
            is_entered.set()
            assert may_return.wait(60)
            is_over.append("collate_fn")
        return batch

    def close() -> None:
        assert is_entered.wait(60)
        loader.close()
        is_over.append("close")

    loader = collating(data, collate_fn=collate)
    closer = threading.Thread(target=close)
    closer.start()
    releaser = threading.Thread(target=lambda: (wait_until(lambda: loader._core.is_closed), may_return.set()))
    releaser.start()
    with pytest.raises(RuntimeError, match="closed"):
        list(loader)
    closer.join()
    releaser.join()
    assert is_over == ["collate_fn", "close"]
    assert current_bytes(loader) == {}


def test_a_signals_handler_may_close_it_within_next() -> None:
    """The handler runs on the consumer's thread, which is inside the source then."""

    class Numbers:
        def __init__(self) -> None:
            self.taken = 0

        def take(self, is_last_try: bool) -> tuple[Any, int] | None:
            self.taken += 1
            if self.taken == 50:
                assert is_here()
                making.stop()
                making.join()
            return self.taken, 1

        def stop(self) -> None:
            pass

    making = Making(Numbers(), lambda value, number: (value, None), 1, 2, may_work_here=True)
    got = []
    while (made := making.next()) is not None:
        got.append(made.value)
    assert got == list(range(1, 50))
    making.join()
