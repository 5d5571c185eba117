"""shuffle=True: each epoch a permutation that follows from data, seed, epoch and window alone."""

from __future__ import annotations

import itertools
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import (
    PROPERTY,
    assert_within_budget,
    current_bytes,
    quiet_loader,
    rows_of,
    values_of,
    wait_until,
    write_row_groups,
)

ROWS = 3000
WINDOW = "16KiB"  # Some hundred rows.


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three files of odd row groups; every column says which row it is."""
    folder = tmp_path_factory.mktemp("shuffle")
    for number, begin in enumerate(range(0, ROWS, 1000)):
        rows = range(begin, begin + 1000)
        table = pa.table(
            {
                "x": pa.array(rows, pa.int64()),
                "half": pa.array([x / 2 if x % 5 else None for x in rows], pa.float32()),
                "text": [f"row {x}" * (x % 4) for x in rows],
                "list": pa.array([[x] * (x % 3) for x in rows], pa.list_(pa.int32())),
                "pair": pa.array([[x, -x] for x in rows], pa.list_(pa.int16(), 2)),
            }
        )
        write_row_groups(folder / f"{number}.parquet", table, [300, 0, 7, 693])
    return str(folder)


def shuffled(source: Any, **options: Any) -> ps.Loader:
    return quiet_loader(
        source, **{"columns": ["x"], "shuffle": True, "shuffle_window": WINDOW, "batch_size": 64, **options}
    )


def window_rows(loader: ps.Loader) -> int:
    rows: int = loader.explain().to_dict()["shuffle_window_rows"]
    return rows


@pytest.mark.parametrize("window", ["1B", "2KiB", WINDOW, "1MiB"])
def test_every_row_once_in_batches_of_exact_size(path: str, window: str) -> None:
    with shuffled(path, shuffle_window=window) as loader:
        for _ in range(3):
            batches = [values_of(batch) for batch in loader]
            assert [len(batch) for batch in batches] == [64] * 46 + [56]
            assert sorted(itertools.chain(*batches)) == list(range(ROWS))
        assert len(loader) == 47
    assert current_bytes(loader) == {}


def test_another_order_in_every_epoch_and_for_every_seed(path: str) -> None:
    orders = set()
    for seed in (0, 1, 2**64 - 1):
        with shuffled(path, seed=seed) as loader:
            orders.update(tuple(rows_of(loader)) for _ in range(3))
    assert len(orders) == 9


@pytest.mark.parametrize("format", ["numpy", "torch", "arrow", "pandas"])
def test_all_columns_of_a_row_stay_together(path: str, format: str) -> None:
    """Fixed size, missing values, text, lists, tensors: gathered row by row."""
    if format == "torch":
        pytest.importorskip("torch")
    nulls: Any = {"half": -1.0}
    with shuffled(path, columns=None, format=format, nulls=nulls) as loader:
        rows = 0
        for batch in loader:
            xs = values_of(batch)
            assert values_of(batch, "half") == [x / 2 if x % 5 else -1.0 for x in xs]
            assert pa.array(batch["text"]).to_pylist() == [f"row {x}" * (x % 4) for x in xs]
            assert [list(pair) for pair in values_of(batch, "pair")] == [[x, -x] for x in xs]
            if "list_offsets" in batch:
                offsets, values = values_of(batch, "list_offsets"), values_of(batch)
                values = values_of(batch, "list")
                lists = [values[begin:end] for begin, end in itertools.pairwise(offsets)]
            else:
                lists = [list(one) for one in values_of(batch, "list")]
            assert lists == [[x] * (x % 3) for x in xs]
            rows += len(xs)
        assert rows == ROWS


@pytest.mark.parametrize("missing", [[], [5], range(0, ROWS, 5)], ids=["nowhere", "in-one-row", "often"])
def test_masks_go_with_their_rows(missing: Any) -> None:
    """Also where some slabs of a window have nothing missing, and others have; over a batch that had."""
    holes = set(missing)
    rows = range(ROWS)
    pairs = pa.array([None if x in holes else [x, -x] for x in rows], pa.list_(pa.int16(), 2))
    table = pa.table({"x": rows, "y": [None if x in holes else x for x in rows], "pair": pairs})
    with shuffled(table, columns=None, format="numpy", nulls="mask", prefetch_batches=0) as loader:
        for _ in range(2):
            seen = 0
            for batch in loader:
                wanted = [x in holes for x in batch["x"].tolist()]
                assert batch["y_mask"].tolist() == wanted
                assert batch["pair_mask"].tolist() == [[hole, hole] for hole in wanted]
                seen += len(wanted)
            assert seen == ROWS


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 0},
        {"num_workers": 5},
        {"prefetch_batches": 0},
        {"prefetch_batches": 9},
        {"memory_budget": "64MiB"},
        {"in_order": False},
        {"collate_fn": lambda batch: batch},
        {"_direct_decode": False},
        {"format": "torch"},
    ],
    ids=lambda options: "-".join(options),
)
def test_the_order_is_a_function(path: str, options: dict[str, Any]) -> None:
    """Invariant 7: neither threads nor memory nor what is made of the rows decide on the order."""
    if options.get("format") == "torch":
        pytest.importorskip("torch")
    with shuffled(path, num_workers=2) as usual, shuffled(path, **options) as other:
        for _ in range(2):
            assert rows_of(usual) == rows_of(other)


def test_the_order_is_the_same_for_ever(path: str) -> None:
    """A state that was saved by one release is continued by another, on any machine."""
    with shuffled(path, seed=2026) as loader:
        rows = rows_of(loader)
    assert rows[:8] == [537, 692, 389, 588, 359, 558, 552, 325]
    assert rows[-8:] == [2260, 2278, 2299, 2253, 2242, 2271, 2227, 2254]


def test_rows_move_within_windows_and_windows_over_the_data(path: str) -> None:
    with shuffled(path) as loader:
        rows, window = rows_of(loader), window_rows(loader)
    assert 100 < window < 1000
    # The rows of a window come from few row groups that lie anywhere.
    groups = [
        {(x // 1000, x % 1000 >= 307) for x in rows[begin : begin + window]}
        for begin in range(0, ROWS, window)
    ]
    assert any(len({file for file, _ in group}) > 1 for group in groups)
    assert rows[:window] != sorted(rows[:window])


def test_a_window_as_large_as_the_data_is_a_full_permutation(path: str) -> None:
    """Displacement and neighbours as in a uniform permutation."""
    with shuffled(path, shuffle_window="1MiB") as loader:
        assert window_rows(loader) > ROWS
        for _ in range(3):
            order = np.array(rows_of(loader))
            displacement = np.abs(order - np.arange(ROWS)).mean()
            assert abs(displacement - ROWS / 3) < ROWS / 20
            assert (np.abs(np.diff(order)) == 1).sum() < 15


def test_the_window_bounds_its_account() -> None:
    window = 2 << 20
    table = pa.table({"x": range(200_000), "text": [f"row {x}" * (x % 4) for x in range(200_000)]})
    with shuffled(table, columns=None, shuffle_window=window, num_workers=4, batch_size=500) as loader:
        assert 4 * window_rows(loader) < 200_000
        for _ in range(2):
            rows_of(loader)
        report = loader.memory()
        assert window / 2 < report["shuffle"]["peak_bytes"] <= window
        assert report["total"]["peak_bytes"] <= loader.explain().to_dict()["predicted_peak_bytes"]
        assert_within_budget(loader)


@pytest.mark.parametrize("prefetch", [1, 6])
def test_slots_ahead_leave_the_windows_their_room(prefetch: int) -> None:
    """At the least budget a caller that takes its time finds two windows filled, and loses no row."""
    rows = 200_000
    options = {"shuffle_window": "1MiB", "batch_size": 4000, "prefetch_batches": prefetch, "num_workers": 2}
    table = pa.table({"x": range(rows)})
    least = shuffled(table, **options).explain().to_dict()["least_budget_bytes"]
    with shuffled(table, memory_budget=least, **options) as loader:
        batches = iter(loader)
        got = values_of(next(batches))
        wait_until(lambda: loader.memory()["shuffle"]["current_bytes"] > 2 * 8 * window_rows(loader))
        for batch in batches:
            got += values_of(batch)
        assert sorted(got) == list(range(rows))
        assert_within_budget(loader)


def test_the_least_budget_works(path: str) -> None:
    path += "/0.parquet"
    least = shuffled(path).explain().to_dict()["least_budget_bytes"]
    with shuffled(path, memory_budget=least, num_workers=4) as loader:
        assert sorted(rows_of(loader)) == list(range(1000))
        assert_within_budget(loader)
    with pytest.raises(ValueError, match=rf"shuffle_window of 16.0 KiB.* {least} bytes"):
        shuffled(path, memory_budget=least - 1)


def test_a_window_larger_than_the_budget_says_both(path: str) -> None:
    with pytest.raises(
        ValueError, match=r"memory_budget of 8.0 MiB.*shuffle_window of 1.0 GiB.*lower shuffle_window"
    ):
        shuffled([path] * 30_000, shuffle_window="1GiB", memory_budget="8MiB", epochs=2)


# --- Filters, parts, limits -------------------------------------------------------------------------------


def test_with_a_filter_the_survivors_are_shuffled(path: str) -> None:
    filter_ = pc.bit_wise_and(pc.field("x"), 7) == 3
    with shuffled(path, filter=filter_, shuffle_window="1KiB") as loader:
        rows = rows_of(loader)
        assert sorted(rows) == [x for x in range(ROWS) if x % 8 == 3] != rows
        assert len(loader) == -(-len(rows) // 64)
        assert rows_of(loader) != rows


def test_parts_are_shuffled_apart(path: str) -> None:
    parts = [rows_of(shuffled(part)) for part in ps.split(path, [0.3, 0.7], seed=1)]
    assert sorted(parts[0] + parts[1]) == list(range(ROWS))
    assert all(part != sorted(part) for part in parts)


def test_a_limit_takes_from_the_front_of_the_order(path: str) -> None:
    with shuffled(path) as whole, shuffled(path, limit=500) as some, shuffled(path, drop_last=True) as full:
        rows = rows_of(whole)
        assert rows_of(some) == rows[:500]
        assert rows_of(full) == rows[: ROWS - ROWS % 64]


def test_row_identity_moves_with_the_row(path: str) -> None:
    with shuffled(path, columns=["x", ps.ROW_ID, ps.FILE]) as loader:
        files = loader.schema[ps.FILE].vocabulary.to_pylist()
        for batch in loader:
            for x, row, file in zip(
                values_of(batch), values_of(batch, ps.ROW_ID), values_of(batch, ps.FILE), strict=True
            ):
                assert files[file].endswith(f"{x // 1000}.parquet")
                assert row == x % 1000


def test_tables_are_shuffled(path: str) -> None:
    table = pa.table({"x": range(1000)})
    assert sorted(rows_of(shuffled(table))) == list(range(1000))
    assert rows_of(shuffled(table.slice(0, 0))) == []
    assert rows_of(shuffled(table.slice(0, 1))) == [0]


# --- Sources that are read to be counted ------------------------------------------------------------------


class Tables:
    """An iterable of tables of some rows each, that can be iterated again."""

    def __init__(self, rows: int, step: int = 70, ends_with: type[Exception] | None = None) -> None:
        self.rows, self.step, self.ends_with = rows, step, ends_with

    def __iter__(self) -> Iterator[pa.Table]:
        for begin in range(0, max(self.rows, 1), self.step):  # At least the columns.
            rows = range(begin, min(begin + self.step, self.rows))
            yield pa.table({"x": rows, "text": [str(x) * (x % 4) for x in rows]})
        if self.ends_with is not None:
            raise self.ends_with("the end")


def windows_of(rows: list[int], size: int) -> list[list[int]]:
    return [sorted(rows[begin : begin + size]) for begin in range(0, len(rows), size)]


@pytest.mark.parametrize("rows", [0, 1, 999, 1000, 1001, 2517])
@pytest.mark.parametrize("window", [1, 7, 100, 1000, 5000])
def test_streams_are_shuffled_window_by_window(rows: int, window: int) -> None:
    orders = []
    for workers in (0, 1, 3):
        with shuffled(Tables(rows), num_workers=workers, _shuffle_window_rows=window) as loader:
            assert window_rows(loader) == window
            epochs = [[values_of(batch) for batch in loader] for _ in range(2)]
        for batches in epochs:
            assert [len(batch) for batch in batches[:-1]] == [64] * (max(rows - 1, 0) // 64)
        orders.append([list(itertools.chain(*batches)) for batches in epochs])
        assert_within_budget(loader)
        assert current_bytes(loader) == {}
    assert orders[0] == orders[1] == orders[2]
    for order in orders[0]:
        assert windows_of(order, window) == windows_of(list(range(rows)), window)
    if rows > 500 and window >= 100:
        assert orders[0][0] != orders[0][1]
        assert orders[0][0] != sorted(orders[0][0])


def test_a_shuffled_stream_keeps_the_rows_of_every_column_together() -> None:
    with shuffled(Tables(1000), columns=["x", "text"], format="arrow", _shuffle_window_rows=150) as loader:
        got = pa.Table.from_batches(list(loader))
    assert got["text"].to_pylist() == [str(x) * (x % 4) for x in got["x"].to_pylist()]


def test_a_limit_and_a_filter_on_a_shuffled_stream() -> None:
    with shuffled(Tables(1000), limit=333, _shuffle_window_rows=100) as loader:
        assert windows_of(rows_of(loader), 100) == windows_of(list(range(333)), 100)
    passed = [x for x in range(1000) if x % 3 == 0]
    with shuffled(
        Tables(1000), filter=pc.bit_wise_and(pc.field("x"), 1) == 1, _shuffle_window_rows=100
    ) as loader:
        assert windows_of(rows_of(loader), 100) == windows_of(list(range(1, 1000, 2)), 100)
    with shuffled(Tables(1000), filter=pc.field("x").isin(passed), limit=50, drop_last=True) as loader:
        assert rows_of(loader) == []  # 50 rows are less than a batch.


def test_the_window_of_a_stream_in_bytes_has_as_many_rows_as_that_of_a_table() -> None:
    table = pa.table({"x": range(1000)})
    with shuffled(table, shuffle_window="4KiB") as of_table, shuffled(iter([table])) as of_stream:
        assert 1 < window_rows(of_table) < window_rows(of_stream)
        assert sorted(rows_of(of_stream)) == list(range(1000))


def test_rows_before_an_error_of_a_shuffled_stream_come_first() -> None:
    with shuffled(Tables(700, ends_with=LookupError), _shuffle_window_rows=200) as loader:
        batches, rows = iter(loader), []
        for _ in range(600 // 64):
            rows += values_of(next(batches))
        with pytest.raises(LookupError, match="the end"):
            next(batches)
    assert len(rows) == 600 // 64 * 64  # The last window is never full: which rows come first, nobody knows.
    assert windows_of(rows, 200)[:2] == windows_of(list(range(400)), 200)


def test_what_comes_before_the_first_row_says_nothing_of_how_large_rows_are() -> None:
    rows = pa.table({"x": range(100), "text": ["x" * 2000] * 100})
    with shuffled(
        [rows.slice(0, 0), rows.slice(0, 0), rows],
        columns=["x", "text"],
        format="arrow",
        shuffle_window="16MiB",
    ) as loader:
        assert window_rows(loader) < 10_000
        assert sorted(pa.Table.from_batches(list(loader))["x"].to_pylist()) == list(range(100))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_loader_is_closed_while_slots_wait_for_room_and_windows_for_rows(num_workers: int) -> None:
    """The mixers wait for what the user holds, the next rows are on their way."""
    is_asked, goes_on = threading.Event(), threading.Event()

    def tables() -> Iterator[pa.Table]:
        for begin in range(0, 300, 10):
            if begin == 200:
                is_asked.set()
                goes_on.wait(10)
            length = 100_000 if 100 <= begin < 200 else 10
            yield pa.table({"x": range(begin, begin + 10), "text": ["x" * length] * 10})

    loader = shuffled(
        tables(),
        columns=["x", "text"],
        format="arrow",
        num_workers=num_workers,
        memory_budget="16MiB",
        _shuffle_window_rows=100,
    )
    iterator = iter(loader)
    held = next(iterator)
    assert is_asked.wait(10)
    wait_until(lambda: loader.memory()["slots"]["current_bytes"] > 1_000_000)
    goes_on.set()
    loader.close()
    assert current_bytes(loader).keys() == {"user"}
    assert len(held) == 64


def test_text_files_are_shuffled(tmp_path: Path) -> None:
    for number in range(3):
        lines = "\n".join(str(x) for x in range(number * 100, number * 100 + 100))
        (tmp_path / f"{number}.csv").write_text("x\n" + lines + "\n")
    with shuffled(str(tmp_path)) as loader:
        rows = rows_of(loader)
    assert sorted(rows) == list(range(300))
    assert rows != sorted(rows)


def test_what_a_stream_does_not_allow_is_said_with_shuffle_too() -> None:
    with pytest.raises(ValueError, match="ranks need a source whose rows are known"):
        shuffled(iter([pa.table({"x": [1]})]), rank=0, world_size=2)
    with (
        shuffled(Tables(100)) as loader,
        pytest.raises(ValueError, match="an iterable has no state"),
    ):
        loader.state_dict()
    with pytest.raises(ValueError, match=r"too small for shuffle windows of 100000000 rows.*mix fewer rows"):
        shuffled(Tables(100), memory_budget="16MiB", _shuffle_window_rows=10**8)


def test_what_is_left_out_of_a_shuffled_stream_has_its_place() -> None:
    words = pa.table({"x": [str(x) if x % 10 else "none" for x in range(300)]})
    with shuffled(
        iter([words]),
        transforms={"x": ps.ops.cast("int64")},
        on_error="skip",
        _shuffle_window_rows=100,
    ) as loader:
        batches = [values_of(batch) for batch in loader]
    assert sorted(itertools.chain(*batches)) == [x for x in range(300) if x % 10]
    assert sum(map(len, batches)) == 270
    assert loader.stats().to_dict()["skipped"] == 30


# --- Ranks, epochs, resume --------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_divide_the_shuffled_order(path: str, world_size: int) -> None:
    with shuffled(path, drop_last=False) as whole:
        order = rows_of(whole)
    share = ROWS // world_size
    for rank in range(world_size):
        with shuffled(path, rank=rank, world_size=world_size) as loader:
            assert rows_of(loader) == order[rank * share : (rank + 1) * share]


def test_epochs_in_one_stream(path: str) -> None:
    with shuffled(path) as one:
        epochs = [rows_of(one) for _ in range(3)]
    with shuffled(path, epochs=3) as stream:
        batches = [values_of(batch) for batch in stream]
    assert [x for batch in batches for x in batch] == [x for epoch in epochs for x in epoch]
    assert [len(batch) for batch in batches[:-1]] == [64] * (3 * ROWS // 64)


@pytest.mark.parametrize("window", ["2KiB", WINDOW, "1MiB"])
@pytest.mark.parametrize("at", range(48))
def test_resume_gives_what_would_have_come(path: str, window: str, at: int) -> None:
    with shuffled(path, shuffle_window=window, seed=5) as loader:
        loader.set_epoch(2)
        iterator = iter(loader)
        for _ in range(at):
            next(iterator)
        state = json.loads(json.dumps(loader.state_dict()))
        rest = [values_of(batch) for batch in iterator]
        after = rows_of(loader)
    for options in ({"num_workers": 0}, {"num_workers": 3, "prefetch_batches": 4}):
        with shuffled(path, shuffle_window=window, seed=5, **options) as loader:
            loader.load_state_dict(state)
            assert [values_of(batch) for batch in loader] == rest
            assert rows_of(loader) == after


def test_a_resume_near_the_end_reads_what_is_left_and_one_window(tmp_path: Path) -> None:
    """And of row groups those that it shares with what came before."""
    rows, group = 200_000, 2000
    table = pa.table({"x": np.random.default_rng(0).integers(0, 2**60, rows)})
    path = write_row_groups(
        tmp_path / "x.parquet", table, [group] * (rows // group), use_dictionary=False, compression="none"
    )
    options = {"batch_size": 1000, "shuffle_window": "256KiB"}
    with shuffled(path, **options) as loader:
        window = window_rows(loader)
        batches = iter(loader)
        for _ in range(180):
            next(batches)
        state = loader.state_dict()
        rest = rows_of(batches)
    assert window < 0.1 * rows
    with shuffled(path, **options) as loader:
        loader.load_state_dict(state)
        before = loader.stats().to_dict()["stages"]["read"]["bytes"]
        assert rows_of(loader) == rest
        read = loader.stats().to_dict()["stages"]["read"]["bytes"] - before
    footer = before
    assert 0.1 * rows * 8 < read < 1.05 * 8 * (0.1 * rows + window + 2 * group) + footer


@pytest.mark.parametrize("changed", [{"seed": 6}, {"shuffle_window": "2KiB"}, {"shuffle": False}], ids=str)
def test_a_state_of_another_order_is_refused(path: str, changed: dict[str, Any]) -> None:
    with shuffled(path, seed=5) as loader:
        next(iter(loader))
        state = loader.state_dict()
    with (
        shuffled(path, **{"seed": 5, **changed}) as other,
        pytest.raises(ValueError, match=next(iter(changed))),
    ):
        other.load_state_dict(state)


def test_elastic_resume(path: str) -> None:
    """Saved by 4 ranks, continued by 3, then by 8: every row of the epoch once."""
    got: list[int] = []
    state = None
    for world_size, batches in ((4, 3), (3, 2), (8, None)):
        states = []
        for rank in range(world_size):
            with shuffled(path, batch_size=20, rank=rank, world_size=world_size) as loader:
                if state is not None:
                    loader.load_state_dict(state)
                for batch in itertools.islice(loader, batches):
                    got += values_of(batch)
                states.append(loader.state_dict())
        state = states[0]
    assert len(got) == len(set(got))
    assert len(got) > ROWS - 8


@settings(PROPERTY, max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 90), min_size=1, max_size=8),
    batch_size=st.integers(1, 70),
    window=st.integers(1, 4000),
    ranks=st.integers(1, 4),
    at=st.integers(0, 5),
    workers=st.integers(0, 3),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_files_any_window(
    sizes: list[int], batch_size: int, window: int, ranks: int, at: int, workers: int, seed: int
) -> None:
    """Partition over ranks, resume at some batch, equality over workers."""
    rows = sum(sizes)
    with tempfile.TemporaryDirectory() as name:
        source = write_row_groups(
            Path(name) / "a.parquet", pa.table({"x": pa.array(range(rows), pa.int64())}), sizes
        )
        options = {"batch_size": batch_size, "shuffle_window": window, "seed": seed}
        if rows < ranks:
            return
        got: list[int] = []
        for rank in range(ranks):
            with shuffled(source, rank=rank, world_size=ranks, num_workers=2, **options) as loader:
                mine = [values_of(batch) for batch in loader]
                loader.set_epoch(0)
                list(itertools.islice(loader, min(at, len(mine))))
                state = loader.state_dict()
            with shuffled(source, rank=rank, world_size=ranks, num_workers=workers, **options) as again:
                again.load_state_dict(state)
                assert [values_of(batch) for batch in again] == mine[at:]
            got += itertools.chain(*mine)
        assert len(got) == len(set(got)) == rows // ranks * ranks


# --- Life and death ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_comes_after_the_windows_before_it(path: str, tmp_path: Path, num_workers: int) -> None:
    """What is delivered before the error is what an undisturbed run gives."""
    good = write_row_groups(tmp_path / "a.parquet", pa.table({"x": range(4000)}), [500] * 8)
    bad = tmp_path / "b.parquet"
    data = bytearray(Path(good).read_bytes())
    with shuffled(good, num_workers=num_workers) as loader:
        order = rows_of(loader)
    for at in range(1000, 1100):
        data[at] ^= 0xFF
    bad.write_bytes(data)
    got: list[int] = []

    def read_on(loader: ps.Loader) -> None:
        for batch in loader:
            got.extend(values_of(batch))

    with shuffled(str(bad), num_workers=num_workers) as loader:
        with pytest.raises((OSError, ValueError), match=r"b\.parquet"):
            read_on(loader)
        assert got == order[: len(got)]
        assert len(got) % 64 == 0
        assert len(got) < len(order)
    assert current_bytes(loader) == {}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_off_at_every_batch(path: str, num_workers: int) -> None:
    with shuffled(path, num_workers=num_workers, batch_size=200) as loader:
        for at in range(16):
            assert len([values_of(batch) for batch in itertools.islice(loader, at)]) == min(at, 15)
    assert current_bytes(loader) == {}


def test_kept_batches_are_an_error_that_says_so() -> None:
    table = pa.table({"x": range(400_000)})
    options: dict[str, Any] = {"shuffle_window": "64KiB", "batch_size": 4096, "memory_budget": "400KiB"}
    with shuffled(table, **options) as loader:
        kept: list[Any] = []
        with pytest.raises(MemoryError, match="still held"):
            kept.extend(loader)
        kept.clear()
        assert len(rows_of(loader)) == 400_000


def test_a_seed_or_window_that_cannot_be(path: str) -> None:
    with pytest.raises(ValueError, match="seed"):
        shuffled(path, seed=2**64)
    with pytest.raises(ValueError, match="seed"):
        shuffled(path, seed=-1)
    with pytest.raises(ValueError, match="shuffle_window"):
        shuffled(path, shuffle_window=0)
    with pytest.raises(ValueError, match="much"):
        shuffled(path, shuffle_window="much")
    with pytest.raises(TypeError, match="shuffle"):
        shuffled(path, shuffle=1)


def test_little_data_needs_no_large_window(tmp_path: Path) -> None:
    for number in range(3):
        pq.write_table(pa.table({"x": range(1000)}), tmp_path / f"{number}.parquet")
    for epochs in (1, 2):
        with quiet_loader(
            str(tmp_path), batch_size=64, shuffle=True, memory_budget="16MiB", epochs=epochs
        ) as loader:
            assert sum(len(batch["x"]) for batch in loader) == 3000 * epochs
            assert (
                loader.stats().to_dict()["peak_bytes"] <= loader.explain().to_dict()["predicted_peak_bytes"]
            )
