"""Clauses 8 to 10 of the checklist, invariant 7: which rows come out, in batches of which size, in which
order."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support import (
    assert_within_budget,
    current_bytes,
    items_done,
    quiet_loader,
    rows_of,
    values_of,
    wait_until,
    write_row_groups,
)

FORMATS = ["torch", "numpy", "arrow"]


def write_files(folder: Path, shape: list[list[int]], **options: Any) -> int:
    """Files with row groups of these sizes; x counts the rows of all. Returns how many."""
    rows = 0
    for number, sizes in enumerate(shape):
        x = pa.array(range(rows, rows + sum(sizes)), pa.int64())
        table = pa.table({"x": x, "y": pc.cast(x, pa.float32())})
        write_row_groups(folder / f"part-{number:05}.parquet", table, sizes, **options)
        rows += sum(sizes)
    return rows


def batches_of(loader: ps.Loader) -> list[list[int]]:
    batches = []
    for batch in loader:
        batches.append(values_of(batch, "x"))
        assert values_of(batch, "y") == batches[-1]
    return batches


def expected_batches(rows: int, batch_size: int, drop_last: bool = False) -> list[list[int]]:
    batches = [list(range(i, min(rows, i + batch_size))) for i in range(0, rows, batch_size)]
    return [batch for batch in batches if not drop_last or len(batch) == batch_size]


SHAPES = {
    "one row": [[1]],
    "row groups that divide the batch": [[8] * 6],
    "row groups of all sizes": [[1, 7, 2, 31, 3, 1, 9], [5, 1], [17]],
    "row groups of a row": [[1] * 40],
    "files of a row": [[1]] * 40,
    "empty row groups": [[0, 3, 0, 0, 9, 0], [0], [0, 0, 1]],
    "empty files": [[], [4], [], [], [13], []],
    "empty files in front": [[], [0], [11]],
    "no files with rows": [[], [0], []],
    "larger than a slot": [[100_000, 1, 100_000]],
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
def test_full_batches_and_one_leftover(tmp_path: Path, shape: list[list[int]], num_workers: int) -> None:
    """Clause 8: batches are full but for the last, whatever the files look like, larger or smaller than
    they are."""
    rows = write_files(tmp_path, shape)
    for batch_size in [1, 7, 8, 10_000, 1 << 40] if rows < 1000 else [4096, 150_000, 1 << 40]:
        for drop_last in [False, True]:
            loader = quiet_loader(
                tmp_path, batch_size=min(batch_size, rows + 3), drop_last=drop_last, num_workers=num_workers
            )
            expected = expected_batches(rows, min(batch_size, rows + 3), drop_last)
            assert len(loader) == len(expected)
            assert batches_of(loader) == expected
            assert loader.stats().to_dict()["rows"] == sum(map(len, expected))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_formats_agree(tmp_path: Path, shape: list[list[int]]) -> None:
    """Clause 8: the same batches in each format."""
    pytest.importorskip("torch")
    rows = write_files(tmp_path, shape)
    for format in FORMATS:
        assert batches_of(quiet_loader(tmp_path, batch_size=97, format=format)) == expected_batches(rows, 97)


def test_a_batch_size_that_no_memory_can_hold_is_refused(numbers: str) -> None:
    """Clauses 8, 16: a batch larger than the budget is an error at construction that gives the number, not
    a crash."""
    for batch_size in [1 << 30, 1 << 50, 1 << 59, 1 << 61, 2**63 - 1]:
        with pytest.raises(ValueError, match="memory_budget"):
            quiet_loader(numbers, batch_size=batch_size)


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_5000_tiny_chunks_stay_fast(tmp_path: Path, in_order: bool, direct: bool) -> None:
    """Clause 8: 5,000 row groups of one or two rows are read in well under the watchdog's time."""
    sizes = [1, 2] * 2500
    rows = write_files(tmp_path, [sizes])
    loader = quiet_loader(tmp_path, batch_size=64, in_order=in_order, _direct_decode=direct)
    got = batches_of(loader)
    assert sorted(itertools.chain.from_iterable(got)) == list(range(rows))
    assert Counter(map(len, got)) == Counter(map(len, expected_batches(rows, 64)))


def test_500_tiny_files_stay_fast(tmp_path: Path) -> None:
    """Clause 8: the same for files."""
    rows = write_files(tmp_path, [[2]] * 500)
    assert batches_of(quiet_loader(tmp_path, batch_size=64)) == expected_batches(rows, 64)


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_limit_cuts_the_epoch_exactly(tmp_path: Path, filtered: bool, num_workers: int) -> None:
    """Clause 8, invariant 7: `limit` rows and not one more, at and around every border."""
    write_files(tmp_path, [[5, 0, 5], [10], [3]])
    where = pc.field("y") >= 4 if filtered else None
    wanted = list(range(4 if filtered else 0, 23))
    for limit in [0, 1, 4, 5, 6, 10, 11, 20, 23, 24, 1000]:
        loader = quiet_loader(tmp_path, batch_size=4, limit=limit, filter=where, num_workers=num_workers)
        assert list(itertools.chain.from_iterable(batches_of(loader))) == wanted[:limit]
        if not filtered:
            assert len(loader) == -(-min(limit, 23) // 4)


@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
@pytest.mark.parametrize("direct", [True, False])
def test_filters_keep_batches_full(tmp_path: Path, num_workers: int, direct: bool) -> None:
    """Clause 8: rows that a filter drops leave no gap, also where whole row groups and files have no row
    left."""
    rows = write_files(tmp_path, [[10] * 5, [], [100], [1] * 20, [30]])
    for low, high in [(0, rows), (5, 6), (15, 45), (49, 151), (rows, rows + 1), (rows - 1, rows)]:
        loader = quiet_loader(
            tmp_path,
            batch_size=8,
            filter=(pc.field("x") >= low) & (pc.field("x") < high),
            num_workers=num_workers,
            _direct_decode=direct,
        )
        kept = list(range(low, min(high, rows)))
        expected = [kept[i : i + 8] for i in range(0, len(kept), 8)]
        assert batches_of(loader) == expected
        assert loader.stats().to_dict()["rows"] == len(kept)


def test_columns_come_in_the_order_asked_for(write_parquet: Any) -> None:
    """Clause 11: column order is kept, that of the file or that of `columns`."""
    path = write_parquet({name: [1, 2, 3] for name in "dacb"})
    for columns in [None, ["b", "d", "a"], ["c"]]:
        for format in FORMATS:
            if format == "torch":
                pytest.importorskip("torch")
            for direct in [True, False]:
                loader = quiet_loader(path, columns=columns, format=format, _direct_decode=direct)
                (batch,) = loader
                names = batch.schema.names if format == "arrow" else list(batch)
                assert names == list(loader.schema) == (columns or list("dacb"))


@pytest.mark.parametrize("direct", [True, False])
def test_columns_of_nulls(write_parquet: Any, direct: bool) -> None:
    """Clause 11: a column without any value is filled, masked or an error, by the rule for nulls."""
    path = write_parquet({"x": pa.array([None] * 300, pa.int32())}, row_group_size=7)
    options: dict[str, Any] = {"batch_size": 64, "_direct_decode": direct}
    with pytest.raises(ValueError, match=r"row group 0, column 'x': row 0 is null"):
        list(quiet_loader(path, **options))
    assert rows_of(quiet_loader(path, nulls={"x": -5}, **options)) == [-5] * 300
    assert all(batch["x_mask"].all() for batch in quiet_loader(path, nulls="mask", **options))
    assert rows_of(quiet_loader(path, format="arrow", **options)) == [None] * 300


def test_looked_up_text_in_each_format(write_parquet: Any, tensor_format: str) -> None:
    """Clause 11: a lookup gives positions as int64 in tensors and in Arrow batches, nulls by the rule for
    nulls."""
    path = write_parquet({"s": ["b", None, "a", "b"]}, use_dictionary=False)
    lookup = {"s": ps.ops.lookup(["a", "b"])}
    (batch,) = quiet_loader(path, transforms=lookup, nulls={"s": 7}, format=tensor_format)
    assert values_of(batch, "s") == [1, 7, 0, 1]
    loader = quiet_loader(path, transforms=lookup, format="arrow")
    (batch,) = loader
    assert batch.schema.types == [pa.int64()] == [loader.schema["s"].arrow_type]
    assert values_of(batch, "s") == [1, None, 0, 1]


# --- Order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_seed", range(0, 100, 10))
def test_random_latencies_neither_deadlock_nor_reorder(tmp_path: Path, first_seed: int) -> None:
    """Clause 9: over 100 seeds of latencies order is kept, or the same rows come in full batches without
    it."""
    for seed in range(first_seed, first_seed + 10):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        shape = [
            [chance.randint(0, 25) for _ in range(chance.randint(0, 4))] for _ in range(chance.randint(1, 3))
        ]
        rows = write_files(folder, shape)
        for num_workers, in_order in itertools.product([1, 2, 4, 8], [True, False]):
            batch_size = chance.randint(1, 30)
            options: dict[str, Any] = {
                "batch_size": batch_size,
                "prefetch_batches": chance.choice(["auto", 0, 1, 3]),
                "filter": chance.choice([None, pc.field("x") >= 0]),
                "_direct_decode": chance.random() < 0.5,
                "transforms": {
                    "x": ps.testing.spin(
                        chance.uniform(0, 40), chance.uniform(0, 2), chance.choice([0, 10]), 20, is_sleep=True
                    )
                },
            }
            print(f"seed {seed}: {shape}, {num_workers} workers, in_order={in_order}, {options}")
            got = batches_of(quiet_loader(folder, num_workers=num_workers, in_order=in_order, **options))
            expected = expected_batches(rows, batch_size)
            if not in_order:
                assert list(map(len, got)) == list(map(len, expected))
                got.sort(key=lambda batch: (-len(batch), batch))
            assert got == expected


def test_out_of_order_delivers_what_is_complete(tmp_path: Path) -> None:
    """Clause 9: with in_order=False a slow row does not hold up the batches behind it, with in_order=True
    it does."""
    rows = write_files(tmp_path, [[200]])
    # The times are keyed by row: some batches are dear, most are nearly free.
    spin = ps.testing.spin(mean_us=20, sigma=0, heavy_every=40, heavy_factor=2000, is_sleep=True)
    options: dict[str, Any] = {
        "batch_size": 4,
        "num_workers": 4,
        "prefetch_batches": 8,
        "transforms": {"x": spin},
    }
    loose = batches_of(quiet_loader(tmp_path, in_order=False, **options))
    assert loose != sorted(loose)
    assert sorted(loose) == expected_batches(rows, 4)
    assert batches_of(quiet_loader(tmp_path, in_order=True, **options)) == expected_batches(rows, 4)


@pytest.mark.parametrize("num_workers", [1, 2, 4, 8])
def test_order_is_a_function_of_the_data(tmp_path: Path, num_workers: int) -> None:
    """Clause 9, invariant 7: worker count, prefetch, budget and way of decoding do not change a single
    batch."""
    rows = write_files(tmp_path, [[50_000, 3, 20_000], [11_111]])
    expected = expected_batches(rows, 777)
    for prefetch, budget, direct in [
        ("auto", "64MiB", True),
        (0, "4MiB", False),
        (5, "4MiB", True),
        (64, "1GiB", False),
    ]:
        loader = quiet_loader(
            tmp_path,
            batch_size=777,
            num_workers=num_workers,
            prefetch_batches=prefetch,
            memory_budget=budget,
            _direct_decode=direct,
        )
        assert batches_of(loader) == expected


# --- Epochs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("in_order", [True, False])
def test_each_epoch_starts_afresh(tmp_path: Path, num_workers: int, in_order: bool) -> None:
    """Clause 10: a second epoch has all rows again, also after a break at any batch."""
    rows = write_files(tmp_path, [[30, 1, 19], [50]])
    loader = quiet_loader(tmp_path, batch_size=9, num_workers=num_workers, in_order=in_order)
    expected = expected_batches(rows, 9)
    for stop in range(len(expected) + 1):
        taken = list(itertools.islice(loader, stop))
        assert len(taken) == stop
        assert sorted(batches_of(loader)) == expected
    assert loader.stats().to_dict()["epochs"] == 2 * (len(expected) + 1)


@pytest.mark.parametrize("prefetch", [0, 1, 11, 1000, 2**31 - 1])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_prefetch_larger_than_the_data(tmp_path: Path, prefetch: int, num_workers: int) -> None:
    """Clause 10: more batches ahead than there are, or than memory could hold, is no error."""
    rows = write_files(tmp_path, [[40], [60]])
    loader = quiet_loader(tmp_path, batch_size=10, prefetch_batches=prefetch, num_workers=num_workers)
    assert batches_of(loader) == expected_batches(rows, 10)
    assert_within_budget(loader)


def test_prefetch_is_what_was_asked_for(tmp_path: Path) -> None:
    """Clause 10: n finished batches ahead, no more, with a consumer that takes none."""
    rows = write_files(tmp_path, [[20_000] * 20])
    loader = quiet_loader(tmp_path, batch_size=20_000, prefetch_batches=3, num_workers=2)
    batch_bytes = loader.explain().to_dict()["slot_bytes"]
    iterator = iter(loader)
    next(iterator)
    # Four batches of two columns are filled; no fifth is begun until the consumer takes one.
    wait_until(lambda: items_done(loader, "decode") >= 2 * 4)
    assert loader.memory()["slots"]["peak_bytes"] <= 5 * batch_bytes
    assert sum(len(batch["x"]) for batch in iterator) == rows - 20_000
    assert loader.memory()["slots"]["peak_bytes"] <= 5 * batch_bytes


def test_one_loader_in_two_loops(tmp_path: Path) -> None:
    """Clause 10: a nested loop over the same loader closes the outer one, which says so instead of mixing
    rows."""
    write_files(tmp_path, [[100]])
    loader = quiet_loader(tmp_path, batch_size=10)
    outer = []

    def nested() -> None:
        for batch in loader:
            outer.append(values_of(batch))
            assert rows_of(loader) == list(range(100))

    with pytest.raises(RuntimeError, match="closed when its loader started the next epoch"):
        nested()
    assert outer == [list(range(10))]
    assert list(itertools.chain.from_iterable(batches_of(loader))) == list(range(100))


def test_batches_are_yours_to_write_to(tmp_path: Path) -> None:
    """Clause 10: what is written into a batch never shows in another batch or epoch."""
    rows = write_files(tmp_path, [[1000]])
    loader = quiet_loader(tmp_path, batch_size=10, num_workers=2)
    for _ in range(3):
        seen = []
        for batch in loader:
            seen += values_of(batch)
            batch["x"][:] = -1
            batch["y"][:] = np.nan
        assert seen == list(range(rows))


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Clause 26: the library writes nothing; progress is the command line's."""
    write_files(tmp_path, [[100]])
    loader = quiet_loader(tmp_path, batch_size=10)
    batches_of(loader)
    next(iter(loader))
    loader.close()
    assert capfd.readouterr() == ("", "")
    assert set(current_bytes(loader)) <= {"user"}
