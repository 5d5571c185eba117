"""Clauses 12 and 23 of the checklist, invariants 1, 2 and 4: collate_fn and finalize_fn."""

from __future__ import annotations

import dataclasses
import gc
import pickle
import threading
import traceback
from collections import UserDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pytest
from penstock._collate import Making
from support import (
    assert_within_budget,
    current_bytes,
    quiet_loader,
    rows_of,
    values_of,
    wait_until,
    work_for,
    write_row_groups,
)

NUM_BATCHES = 20


@pytest.fixture
def data(tmp_path: Path) -> str:
    """2,000 rows of x = 0, 1, 2, ... in row groups of 250."""
    table = pa.table({"x": np.arange(2000), "y": np.arange(2000, dtype=np.float32)})
    return write_row_groups(tmp_path / "data.parquet", table, [250] * 8)


@pytest.fixture
def wide(tmp_path: Path) -> str:
    """240 rows of 64 KiB."""
    rows = pa.FixedSizeListArray.from_arrays(np.arange(240 * 16384, dtype=np.float32), 16384)
    return write_row_groups(
        tmp_path / "wide.parquet", pa.table({"x": rows}), [24] * 10, compression="none", use_dictionary=False
    )


def collating(data: str, fn: Callable[[Any], Any] | None, **options: Any) -> ps.Loader:
    return quiet_loader(data, batch_size=100, **{"collate_fn": fn, "num_workers": 2, **options})


def collect(batches: Iterable[Any], into: list[Any]) -> None:
    """Goes through the batches in a frame that holds none of them afterwards."""
    for batch in batches:
        into.append(batch)


def first_of(batch: Any) -> int:
    return int(batch["x"][0].as_py() if isinstance(batch["x"], pa.Array) else batch["x"][0])


# --- Each batch once, in order ----------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["torch", "numpy", "arrow"])
@pytest.mark.parametrize(("num_workers", "collate_workers"), [(0, 1), (1, 1), (2, 1), (2, 4)])
def test_each_batch_once_in_order(data: str, format: str, num_workers: int, collate_workers: int) -> None:
    """Clause 12: collate_fn gets each whole batch once, in `format`; what it returns arrives in order."""
    if format == "torch":
        pytest.importorskip("torch")
    seen: list[int] = []

    def collate(batch: Any) -> tuple[int, Any]:
        assert len(batch["x"]) == 100
        seen.append(first_of(batch))
        return first_of(batch), values_of(batch)

    loader = collating(data, collate, format=format, num_workers=num_workers, collate_workers=collate_workers)
    for _ in range(2):
        results = list(loader)
        assert [first for first, _ in results] == list(range(0, 2000, 100))
        assert [x for _, values in results for x in values] == list(range(2000))
    assert sorted(seen) == sorted([*range(0, 2000, 100)] * 2)


def test_the_last_batch_may_be_short(data: str) -> None:
    """Clause 8: user code gets the short batch too, and it arrives."""
    code = {"collate_fn": lambda batch: len(batch["x"]), "finalize_fn": lambda n: -n}
    loader = quiet_loader(data, batch_size=300, **code)
    assert list(loader) == [-300] * 6 + [-200]
    assert loader.stats().to_dict()["rows"] == 2000


def test_order_does_not_depend_on_who_is_finished_first(data: str) -> None:
    """Clause 12: batches overtake each other in collate_fn, and arrive in order all the same."""
    second_is_done = threading.Event()
    finished: list[int] = []

    def collate(batch: Any) -> int:
        first = first_of(batch)
        if first == 0:
            assert second_is_done.wait(60)
        finished.append(first)
        if first == 100:
            second_is_done.set()
        return first

    assert list(collating(data, collate, collate_workers=2)) == list(range(0, 2000, 100))
    assert finished[0] == 100


def test_finalize_runs_last_in_order_on_the_callers_thread(data: str) -> None:
    """Clause 12: finalize_fn gets what collate_fn returned, in order, one at a time, in next()."""
    calls: list[tuple[int, threading.Thread]] = []

    def finalize(value: int) -> int:
        calls.append((value, threading.current_thread()))
        return value + 1

    loader = collating(data, first_of, collate_workers=4, finalize_fn=finalize)
    assert list(loader) == [n + 1 for n in range(0, 2000, 100)]
    assert calls == [(n, threading.current_thread()) for n in range(0, 2000, 100)]
    alone = collating(data, None, finalize_fn=lambda batch: values_of(batch))
    assert [x for values in alone for x in values] == list(range(2000))


@pytest.mark.parametrize("collate_workers", [1, 3])
def test_the_window_is_bounded(data: str, collate_workers: int) -> None:
    """Design: at most `collate_workers` batches are in collate_fn and one more is finished ahead."""
    lock = threading.Lock()
    started = 0
    running: set[threading.Thread] = set()
    most_running = 0

    def collate(batch: Any) -> int:
        nonlocal started, most_running
        with lock:
            started += 1
            running.add(threading.current_thread())
            most_running = max(most_running, len(running))
        work_for(0.0005)
        with lock:
            running.remove(threading.current_thread())
        return first_of(batch)

    loader = collating(data, collate, collate_workers=collate_workers)
    for delivered, _ in enumerate(loader, 1):
        wait_until(lambda n=delivered: started == min(NUM_BATCHES, n + collate_workers + 1))  # type: ignore[misc]
        assert started <= delivered + collate_workers + 1
    assert most_running <= collate_workers


# --- Errors -----------------------------------------------------------------------------------------------


class OwnError(Exception):
    """An error of the user's."""


@pytest.mark.parametrize("where", ["collate_fn", "finalize_fn"])
@pytest.mark.parametrize("kind", [OwnError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize(("num_workers", "collate_workers"), [(0, 1), (2, 1), (2, 3)])
def test_an_error_at_any_batch(
    data: str, where: str, kind: type[BaseException], num_workers: int, collate_workers: int
) -> None:
    """Clause 23: raised once, in its place, with type and traceback; threads joined, accounts at zero."""
    for index in range(0, NUM_BATCHES, 3):

        def fail_there(batch: Any, index: int = index) -> Any:
            if first_of(batch) == 100 * index:
                raise kind(f"at {index}")
            return batch

        loader = quiet_loader(
            data,
            batch_size=100,
            num_workers=num_workers,
            collate_workers=collate_workers,
            **{where: fail_there},
        )
        seen: list[int] = []
        iterator = iter(loader)
        with pytest.raises(kind, match=f"at {index}") as caught:
            collect(map(first_of, iterator), seen)
        assert seen == list(range(0, 100 * index, 100))
        assert "fail_there" in "".join(traceback.format_tb(caught.value.__traceback__))
        if kind is OwnError and hasattr(caught.value, "__notes__"):
            assert caught.value.__notes__ == [f"in {where}, for batch {index} of the epoch"]
        assert next(iterator, None) is None
        del caught
        assert current_bytes(loader).keys() <= {"metadata"}
        loader.close()
        assert current_bytes(loader) == {}


@pytest.mark.parametrize("where", ["collate_fn", "finalize_fn", "on_stats"])
def test_stop_iteration_is_no_end(data: str, where: str) -> None:
    """Nothing is lost in silence: StopIteration out of user code is an error, not the end of the data."""

    def stop(_: Any) -> Any:
        raise StopIteration

    loader = quiet_loader(data, batch_size=100, **{where: stop})  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=f"{where} raised StopIteration"):
        list(loader)


@pytest.mark.parametrize("where", ["collate_fn", "finalize_fn"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_function_that_returns_nothing(data: str, where: str, num_workers: int) -> None:
    """Bad input: None is an error that names the function and the batch."""

    def forgets(batch: Any) -> Any:
        return batch if first_of(batch) < 300 else None

    loader = quiet_loader(data, batch_size=100, num_workers=num_workers, **{where: forgets})
    seen: list[Any] = []
    with pytest.raises(TypeError, match=f"{where} returned None for batch 3 of the epoch"):
        collect(map(first_of, loader), seen)
    assert seen == [0, 100, 200]


def test_bad_arguments(data: str) -> None:
    """Wrong types and numbers are refused when the loader is made."""
    with pytest.raises(TypeError, match="collate_fn is a callable or None, got str"):
        ps.Loader(data, collate_fn="pad", format="numpy")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="finalize_fn is a callable"):
        ps.Loader(data, finalize_fn=3, format="numpy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="collate_workers must be at least 1"):
        ps.Loader(data, collate_workers=0, format="numpy")


def test_an_error_of_reading_comes_in_its_place(data: str) -> None:
    """What the loader raises passes by the user's code, behind the batches before it."""
    table = pa.table({"x": pa.array([*range(500), None, *range(499)])})
    path = write_row_groups(Path(data).parent / "nulls.parquet", table, [100] * 10)
    seen: list[Any] = []
    one_batch_a_slot = {"x": ps.testing.spin(0, 0)}
    loader = collating(path, values_of, transforms=one_batch_a_slot)
    with pytest.raises(ValueError, match="null"):
        collect(loader, seen)
    assert [x for values in seen for x in values] == list(range(500))
    assert current_bytes(loader).keys() <= {"metadata"}


# --- Memory -----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Sample:
    """What a collate_fn may return."""

    x: Any
    names: list[str]


def test_what_collate_returns_is_charged_until_it_dies(data: str) -> None:
    """Invariants 1, 2: new arrays are charged to `python` until the last view of them is gone."""
    loader = collating(data, lambda batch: UserDict({"x": np.repeat(batch["x"], 100), "n": 1}), limit=100)
    (result,) = loader
    assert current_bytes(loader)["python"] == 100 * 100 * 8
    view = result["x"][5:6]
    del result
    assert current_bytes(loader)["python"] == 100 * 100 * 8
    loader.close()
    del view
    assert current_bytes(loader) == {}


def test_views_of_the_slot_are_not_counted_twice(data: str) -> None:
    """Invariant 1: what collate_fn passes through is `user`, whatever it is wrapped in."""
    torch = pytest.importorskip("torch")
    loader = collating(
        data,
        lambda batch: Sample((batch["x"][10:20], torch.from_numpy(batch["y"])), ["a" * 1000]),
        limit=100,
    )
    (result,) = loader
    assert set(current_bytes(loader)) == {"metadata", "user"}
    assert result.x[1].tolist() == list(range(100))
    assert loader.memory()["python"]["peak_bytes"] in range(1000, 3000)  # The strings, until hand-over.
    del result
    assert set(current_bytes(loader)) == {"metadata"}


def test_tensors_and_arrow_data_are_charged(data: str) -> None:
    """Invariant 2: tensors by their storage, Arrow data by its buffers, frames by what they use."""
    torch = pytest.importorskip("torch")
    pandas = pytest.importorskip("pandas")
    makers: list[Callable[[Any], Any]] = [
        lambda batch: [torch.zeros(1000, 8)[0], torch.zeros(10)],
        lambda batch: pa.table({"x": np.zeros(1000)}),
        lambda batch: pa.array(np.zeros(1000)),
        lambda batch: pandas.DataFrame({"x": np.zeros(1000)}),
        lambda batch: [np.zeros(100) for _ in range(80)],
    ]
    for make, least in zip(makers, [32000, 8000, 8000, 8000, 64000], strict=True):
        loader = collating(data, make, limit=100)
        (result,) = loader
        assert least <= current_bytes(loader)["python"] <= least + 500
        del result
        gc.collect()
        assert set(current_bytes(loader)) == {"metadata"}


@pytest.mark.parametrize("collate_workers", [1, 2])
@pytest.mark.parametrize("prefetch_batches", ["auto", 0, 3])
@pytest.mark.parametrize(("batch_size", "batches_per_slot"), [(8, 4), (24, 1)])
def test_the_plan_accounts_for_what_collate_holds(
    wide: str, collate_workers: int, prefetch_batches: Any, batch_size: int, batches_per_slot: int
) -> None:
    """explain(): where results are views of their batch, the least budget works and the peak is as said."""

    def loader_of(budget: int | str, **options: Any) -> ps.Loader:
        options = {"collate_fn": lambda batch: batch["x"], "collate_workers": collate_workers, **options}
        return quiet_loader(
            wide,
            batch_size=batch_size,
            prefetch_batches=prefetch_batches,
            num_workers=2,
            memory_budget=budget,
            **options,
        )

    with pytest.raises(ValueError, match=f"least that works here is .*{collate_workers + 3} slots"):
        loader_of(1)
    explanation = loader_of("1GiB").explain().to_dict()
    assert explanation["batches_per_slot"] == batches_per_slot
    plain = loader_of("1GiB", collate_fn=None).explain().to_dict()
    assert plain["slots"] <= explanation["slots"] <= plain["slots"] + collate_workers + 1
    tight = loader_of(explanation["least_budget_bytes"])
    for number, x in enumerate(tight):
        assert x[0, 0] == number * batch_size * 16384
    assert_within_budget(tight)
    roomy = loader_of("1GiB")
    for x in roomy:
        assert len(x) > 0
    memory, slot_bytes = roomy.memory(), explanation["slot_bytes"]
    all_slots = (
        explanation["slots"] + roomy.stats().to_dict()["slots_grown"]
    )  # Also those that have come back.
    # Those in the making or finished, the caller's, and its last one, which dies as next() returns.
    assert memory["user"]["peak_bytes"] <= (collate_workers + 3) * slot_bytes
    assert memory["slots"]["peak_bytes"] <= all_slots * slot_bytes


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_collate_fn_that_keeps_its_input(wide: str, num_workers: int) -> None:
    """Invariant 4: kept batches are the user's; when nothing is left, next() says how many, in its place."""
    kept: list[Any] = []

    def keep(batch: Any) -> int:
        kept.append(batch)
        return int(batch["x"][0, 0]) // 16384

    loader = quiet_loader(wide, batch_size=8, collate_fn=keep, num_workers=num_workers, memory_budget="8MiB")
    seen: list[Any] = []
    with pytest.raises(MemoryError, match="batches are still held"):
        collect(loader, seen)
    assert seen == [8 * i for i in range(len(kept))]
    assert_within_budget(loader)
    kept.clear()
    assert set(current_bytes(loader)) == {"metadata"}


class _Source:
    """Gives three batches, and a fourth only to a last try, as a loader that is short of memory."""

    def __init__(self) -> None:
        self.last_tries: list[int] = []
        self.delivered = 0

    def take(self, is_last_try: bool) -> tuple[int, int] | None:
        if self.delivered == 4:
            raise StopIteration
        if self.delivered == 3 and not is_last_try:
            return None
        if is_last_try:
            self.last_tries.append(len(taken))
        self.delivered += 1
        return self.delivered, 1

    def stop(self) -> None:
        pass


taken: list[Any] = []


@pytest.mark.parametrize("num_threads", [1, 3])
def test_no_error_before_the_caller_has_had_its_chance(num_threads: int) -> None:
    """Invariant 4: that memory is short while the caller works is no error: only when it waits for the next
    batch, with all before it in its hand, is the last try made."""
    source = _Source()
    taken.clear()
    making = Making(source, lambda batch, number: (batch, None), num_threads, num_threads + 1)  # type: ignore[arg-type]
    while (made := making.next()) is not None:
        taken.append(made.value)
    making.stop()
    making.join()
    assert taken == [1, 2, 3, 4]
    assert source.last_tries == [3]


def test_results_that_outgrow_the_budget(wide: str) -> None:
    """Invariant 1: what collate_fn allocates is charged when seen, shows as over budget, stops the rest."""
    loader = quiet_loader(
        wide, batch_size=24, collate_fn=lambda batch: np.zeros(2**22), memory_budget="24MiB", num_workers=2
    )
    kept: list[Any] = []
    with pytest.raises(MemoryError, match=r"MiB by what collate_fn returned"):
        collect(loader, kept)
    assert loader.memory()["over_budget_bytes"] > 0
    assert len(kept) < 10
    kept.clear()
    assert set(current_bytes(loader)) == {"metadata"}


# --- What is said about it --------------------------------------------------------------------------------


def test_statistics_know_the_users_code(data: str) -> None:
    """Clause 25: stages collate and finalize; waits are the caller's; a slow one is named."""

    def slow(batch: Any) -> Any:
        work_for(0.004)
        return batch

    loader = collating(data, slow, finalize_fn=lambda batch: batch)
    iterator = iter(loader)
    next(iterator)
    work_for(0.03)
    assert len(list(iterator)) == NUM_BATCHES - 1
    stats = loader.stats().to_dict()
    assert stats["stages"]["collate"]["items"] == stats["stages"]["finalize"]["items"] == NUM_BATCHES
    assert stats["stages"]["collate"]["busy_s"] >= 0.004 * NUM_BATCHES
    assert stats["batches"] == NUM_BATCHES
    assert stats["step_s"] >= 0.03


@pytest.mark.parametrize("stage", ["collate", "finalize"])
def test_the_users_code_is_named_as_the_bottleneck(data: str, stage: str) -> None:
    """Clause 25. Slow enough to outweigh what a busy machine delays elsewhere."""

    def slow(batch: Any) -> Any:
        work_for(0.03)
        return batch

    functions = {"collate_fn": None, "finalize_fn": None, f"{stage}_fn": slow}
    loader = quiet_loader(data, batch_size=100, num_workers=2, **functions)
    rows_of(loader)
    stats = loader.stats().to_dict()
    assert stats["bottleneck"] == stage
    assert f"{stage}_fn" in stats["advice"]


def double(batch: Any) -> Any:
    """A collate_fn that pickles."""
    return {"x": batch["x"] * 2}


def test_pickle_and_repr(data: str) -> None:
    """Clause 24: a pickled loader has the same functions; repr shows them."""
    loader = collating(data, double, collate_workers=2)
    assert f"collate_fn={double!r}" in repr(loader)
    assert "collate_workers=2" in repr(loader)
    assert rows_of(pickle.loads(pickle.dumps(loader))) == list(range(0, 4000, 2))
    unpicklable = collating(data, lambda batch: batch)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(unpicklable)
