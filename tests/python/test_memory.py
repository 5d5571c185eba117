"""Clauses 16 to 18 of the checklist, invariants 1, 2 and 4: what is held is counted, within the budget, and
given back."""

from __future__ import annotations

import gc
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import loader_threads
from support import (
    assert_within_budget,
    current_bytes,
    open_files,
    quiet_loader,
    run_python,
    values_of,
    wait_until,
    work_for,
    write_row_groups,
)

MIB = 1 << 20
SIZES = (3 * MIB, 2 * MIB, 2 * MIB)
ROWS = 120_000


def write_kind(kind: str, folder: Path) -> tuple[str, dict[str, Any], int]:
    """A file, the options to read it with and the rows that come out."""
    path = folder / f"{kind}.parquet"
    x = np.arange(ROWS)
    plain: dict[str, Any] = {"use_dictionary": False, "compression": "zstd"}
    if kind == "one huge row group":
        table = pa.table({name: x * 7919 % (1 << 40) + i for i, name in enumerate("abcdefgh")})
        return write_row_groups(path, table, [ROWS], **plain), {"batch_size": 1000}, ROWS
    if kind == "many row groups":
        table = pa.table({"x": x, "y": x.astype(np.float32)})
        return write_row_groups(path, table, [ROWS // 60] * 60), {"batch_size": 1000}, ROWS
    if kind == "wide rows":
        values = pa.array(np.arange(600 * 10_000, dtype=np.float32))
        table = pa.table({"x": pa.FixedSizeListArray.from_arrays(values, 10_000)})
        return write_row_groups(path, table, [200] * 3, **plain), {"batch_size": 4}, 600
    if kind == "many columns":
        table = pa.table({f"c{i}": x[:3000] + i for i in range(150)})
        return write_row_groups(path, table, [1000] * 3), {"batch_size": 100}, 3000
    if kind == "filter":
        table = pa.table({"x": x, "y": x * 3})
        options = {"batch_size": 1000, "filter": pc.field("x") >= ROWS // 2}
        return write_row_groups(path, table, [ROWS // 6] * 6, **plain), options, ROWS // 2
    if kind == "nulls":
        table = pa.table({"x": pa.array(x, mask=x % 3 == 0), "y": pa.array(x, mask=x % 50_000 > 3)})
        return write_row_groups(path, table, [ROWS // 2] * 2), {"batch_size": 1000, "nulls": "mask"}, ROWS
    assert kind == "strings hashed"
    text = [f"{i * 7919:>{5 + i % 60}}" for i in range(ROWS // 2)]
    options = {"batch_size": 1000, "transforms": {"s": ps.ops.hash_bucket(1000)}}
    return write_row_groups(path, pa.table({"s": text}), [ROWS // 2], **plain), options, ROWS // 2


KINDS = [
    "one huge row group", "many row groups", "wide rows", "many columns", "filter", "nulls", "strings hashed"
]  # fmt: skip


def least_budget(path: str, options: dict[str, Any]) -> int:
    return int(quiet_loader(path, **options).explain().to_dict()["least_budget_bytes"])


def rows_of_epoch(loader: ps.Loader) -> int:
    return sum(len(next(iter(batch.values()))) for batch in loader)


def assert_all_given_back(loader: ps.Loader) -> None:
    loader.close()
    assert current_bytes(loader) == {}


# --- Within the budget ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_workers", [0, 1, 2, 4, 8])
def test_every_account_stays_within_the_budget(tmp_path: Path, kind: str, num_workers: int) -> None:
    """Clause 16, invariant 1: at the least budget, above it and far above, for 0 to 8 workers, all rows
    come out."""
    path, options, rows = write_kind(kind, tmp_path)
    least = least_budget(path, {**options, "num_workers": num_workers})
    for budget in [least, least + 1, least * 5 // 4, 2 * least, 10 * least]:
        for in_order in [True, False]:
            loader = quiet_loader(
                path, memory_budget=budget, num_workers=num_workers, in_order=in_order, **options
            )
            assert rows_of_epoch(loader) == rows, budget
            assert_within_budget(loader)
            assert_all_given_back(loader)


def test_footers_wait_for_each_other_at_the_least_budget(tmp_path: Path) -> None:
    """The first footer is the smallest, three of the largest are all there is room for: one whose row groups
    are done may still be on its way back when the next is opened."""
    for number, sizes in enumerate([[39], [30, 33, 25, 0], [], [29, 0, 13]]):
        table = pa.table({name: np.arange(sum(sizes)) for name in "abc"})
        write_row_groups(tmp_path / f"{number}.parquet", table, sizes)
    options: dict[str, Any] = {"batch_size": 64, "prefetch_batches": 0, "num_workers": 2, "format": "numpy"}
    least = least_budget(str(tmp_path), options)
    for _ in range(150):
        with quiet_loader(str(tmp_path), memory_budget=least, **options) as loader:
            assert sum(len(batch["a"]) for batch in loader) == 169
            assert_within_budget(loader)


@pytest.mark.parametrize("direct", [True, False])
def test_a_budget_smaller_than_the_row_group_works(tmp_path: Path, direct: bool) -> None:
    """Clause 16: one row group of 7.7 MB is streamed within a budget of a sixth of it."""
    path, options, rows = write_kind("one huge row group", tmp_path)
    columns = [f"{name}" for name in "abcdefgh"]
    for few in [columns[:1], columns]:
        loader = quiet_loader(
            path,
            columns=few,
            memory_budget=f"{6 if len(few) > 1 else 1}MiB",
            num_workers=2,
            _direct_decode=direct,
            **options,
        )
        assert rows_of_epoch(loader) == rows
        assert_within_budget(loader)


@pytest.mark.parametrize("kind", KINDS)
def test_a_budget_below_the_least_is_an_error_with_the_number(tmp_path: Path, kind: str) -> None:
    """Clause 16: a byte below the least budget nothing is built; the message has the number and what to
    change."""
    path, options, rows = write_kind(kind, tmp_path)
    with pytest.raises(ValueError, match="memory_budget") as error:
        quiet_loader(path, memory_budget=20_000, **options)
    number = re.search(r"the least that works here is (\d+) bytes", str(error.value))
    assert number is not None, error.value
    for word in ["memory_budget", "batch_size", "columns"]:
        assert word in str(error.value)
    least = int(number.group(1))
    with pytest.raises(ValueError, match=str(least)):
        quiet_loader(path, memory_budget=least - 1, **options)
    loader = quiet_loader(path, memory_budget=least, **options)
    assert loader.explain().to_dict()["least_budget_bytes"] == least
    assert rows_of_epoch(loader) == rows


@pytest.mark.parametrize("kind", ["many row groups", "filter", "strings hashed"])
@pytest.mark.parametrize("prefetch", ["auto", 0, 30])
def test_slow_consumers_fill_no_more_than_the_budget(tmp_path: Path, kind: str, prefetch: Any) -> None:
    """Clause 16, invariant 1: a consumer that lets the workers run as far ahead as they may."""
    path, options, rows = write_kind(kind, tmp_path)
    budget = least_budget(path, options) * 2
    loader = quiet_loader(path, memory_budget=budget, prefetch_batches=prefetch, num_workers=2, **options)
    seen = 0
    for batch in loader:
        work_for(0.004)
        seen += len(next(iter(batch.values())))
    del batch
    assert seen == rows
    assert_within_budget(loader)
    assert_all_given_back(loader)


def test_the_predicted_peak_is_an_upper_bound_of_the_run(tmp_path: Path) -> None:
    """Clause 16: what explain() says before the run holds where the number of slots is fixed."""
    for kind in KINDS:
        path, options, _ = write_kind(kind, tmp_path)
        loader = quiet_loader(path, num_workers=2, prefetch_batches=2, **options)
        predicted = loader.explain().to_dict()["predicted_peak_bytes"]
        assert not loader.explain().to_dict()["may_grow"]
        rows_of_epoch(loader)
        assert loader.memory()["total"]["peak_bytes"] <= predicted, kind


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_large_row_in_each_column_is_an_error_or_read(tmp_path: Path, num_workers: int) -> None:
    """Columns that are all refused memory do not take each other's blocks for ever."""
    columns = {f"c{i}": ["a" * 100] * 10 + ["b" * size] + ["a" * 100] * 53 for i, size in enumerate(SIZES)}
    path = str(tmp_path / "large.parquet")
    plain: dict[str, Any] = {"use_dictionary": False, "compression": "none", "write_statistics": False}
    pq.write_table(pa.table(columns), path, data_page_size=1 << 16, write_batch_size=1, **plain)
    refusals, num_read = [], 0
    for budget_mib in (10, 11, 12, 13, 15, 64):
        loader = quiet_loader(
            path, batch_size=4, format="arrow", num_workers=num_workers, memory_budget=f"{budget_mib}MiB"
        )
        rows = 0
        try:
            for batch in loader:
                rows += batch.num_rows
            num_read += 1
            assert rows == 64
        except MemoryError as error:
            refusals.append(str(error))
        batch = None
        assert_all_given_back(loader)
    assert num_read > 0
    assert len(refusals) > 0
    assert all("raise memory_budget" in refusal for refusal in refusals)


def test_tiny_batches_of_lists_do_not_make_slots_large() -> None:
    """Clause 16: each batch begins at an aligned place in its slot, and what that takes counts."""
    lists = pa.array([[[1]]] * 1000)
    table = pa.table({"id": range(1000), "lists": lists})
    for budget in ("512KiB", "4MiB", "16MiB"):
        options = {"batch_size": 1, "format": "arrow", "memory_budget": budget}
        with quiet_loader(table, filter=pc.field("id") > 2, **options) as loader:
            got = [row for batch in loader for row in batch.column("lists").to_pylist()]
            assert loader.explain().to_dict()["slot_bytes"] < 3 * MIB
        assert got == lists[3:].to_pylist()


@pytest.mark.parametrize("kind", ["table", "parquet"])
def test_few_long_rows_need_no_more_than_they_are(tmp_path: Path, kind: str) -> None:
    """Clause 16: a slot is not set aside for a whole batch where the data set has fewer rows."""
    table = pa.table({"text": ["x" * 300_000] * 8})
    source: Any = table
    if kind == "parquet":
        source = tmp_path / "long.parquet"
        pq.write_table(table, source, use_dictionary=False)
    with quiet_loader(source, batch_size=1024, format="arrow", memory_budget="32MiB") as loader:
        (batch,) = loader
        assert batch.column("text").to_pylist() == table["text"].to_pylist()


def test_explain_says_where_the_peak_may_grow(tmp_path: Path) -> None:
    """The predicted peak is no bound where slots are added for idle workers: the text says so."""
    path, options, _ = write_kind("many row groups", tmp_path)
    words = "more only while you wait"
    for num_workers, prefetch_batches, may_grow in [(2, "auto", True), (2, 2, False), (0, "auto", False)]:
        loader = quiet_loader(path, num_workers=num_workers, prefetch_batches=prefetch_batches, **options)
        assert loader.explain().to_dict()["may_grow"] is may_grow
        assert (words in str(loader.explain())) is may_grow


@pytest.mark.parametrize("num_workers", [0, 1, 2, 8])
def test_batches_of_many_row_groups_do_not_open_them_all(tmp_path: Path, num_workers: int) -> None:
    """What decoding takes follows from the row group, not from how many lie in a batch; explain() knows."""
    rows, groups = 20_000, 20
    rng = np.random.default_rng(0)
    table = pa.table({name: rng.integers(0, 1 << 40, rows * groups) for name in "abcd"})
    path = write_row_groups(tmp_path / "data.parquet", table, [rows] * groups)
    loader = quiet_loader(path, batch_size=rows * groups, num_workers=num_workers, prefetch_batches=1)
    told = loader.explain().to_dict()
    (batch,) = loader
    assert np.array_equal(batch["d"], table["d"].to_numpy())
    memory = loader.memory()
    assert memory["decode"]["peak_bytes"] <= 3 * told["chunk_bytes"]
    assert 0.7 * told["predicted_peak_bytes"] <= memory["total"]["peak_bytes"] <= told["predicted_peak_bytes"]


def test_the_ledger_can_be_read_while_others_work(tmp_path: Path) -> None:
    """Invariant 1: at any instant that anybody looks, the accounts add up and are within the budget."""
    path, options, rows = write_kind("many row groups", tmp_path)
    loader = quiet_loader(path, memory_budget=2 * least_budget(path, options), num_workers=4, **options)
    for _ in range(3):
        for _batch in loader:
            for _ in range(20):
                memory = loader.memory()
                lines = [line for name, line in memory.items() if isinstance(line, dict) and name != "total"]
                assert sum(line["current_bytes"] for line in lines) == memory["total"]["current_bytes"]
                assert memory["total"]["current_bytes"] <= memory["budget_bytes"]
                assert memory["user"]["current_bytes"] > 0
        del _batch
    assert loader.stats().to_dict()["rows"] == 3 * rows


# --- Nothing stays behind ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["one huge row group", "many row groups", "strings hashed", "filter"])
def test_epochs_do_not_grow(tmp_path: Path, kind: str) -> None:
    """Clause 17: neither the ledger nor the process grows from epoch to epoch.

    In a process of its own, since what other tests left behind moves about. An allocator may take a while to
    have what it wants; what leaks grows in every round.
    """
    write_kind(kind, tmp_path)
    done = run_python(
        """
        import sys
        from pathlib import Path
        from conftest import loader_threads
        from support import current_bytes, quiet_loader, rss_bytes, wait_until
        from test_memory import MIB, assert_all_given_back, rows_of_epoch, write_kind
        path, options, rows = write_kind(sys.argv[1], Path(sys.argv[2]))
        loader = quiet_loader(path, num_workers=2, memory_budget="64MiB", **options)
        idle = current_bytes(loader)
        assert set(idle) == {"metadata"}
        grown = []
        while not grown or (grown[-1] >= MIB and len(grown) < 6):
            before = rss_bytes()
            for _ in range(5):
                assert rows_of_epoch(loader) == rows
                assert current_bytes(loader) == idle
                wait_until(lambda: loader_threads() == [])
            grown.append(rss_bytes() - before)
        assert grown[-1] < MIB, grown
        assert_all_given_back(loader)
        """,
        kind,
        str(tmp_path),
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(("num_workers", "taken"), [(1, 0), (2, 0), (2, 1), (2, 3), (4, 1)])
def test_a_thousand_abandoned_iterators_leave_nothing(tmp_path: Path, num_workers: int, taken: int) -> None:
    """Clause 17, invariant 6: no thread, no byte, no open file after 5 times 200 iterators that were
    dropped."""
    path, options, _ = write_kind("many row groups", tmp_path)
    loader = quiet_loader(path, num_workers=num_workers, **options)
    idle, files = current_bytes(loader), open_files(tmp_path)
    for _ in range(200):
        iterator = iter(loader)
        for _ in range(taken):
            next(iterator)
        del iterator
        assert current_bytes(loader) == idle
        assert open_files(tmp_path) == files
    wait_until(lambda: loader_threads() == [])
    assert_all_given_back(loader)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_hundred_abandoned_loaders_leave_nothing(tmp_path: Path, num_workers: int) -> None:
    """Clause 17, invariant 6: the same for loaders that were never closed, in mid-epoch."""
    path, options, _ = write_kind("many row groups", tmp_path)
    for _ in range(100):
        loader = quiet_loader(path, num_workers=num_workers, **options)
        iterator = iter(loader)
        batch = next(iterator)
        cycle: list[Any] = [loader, iterator, batch]
        cycle.append(cycle)
    del loader, iterator, batch, cycle
    gc.collect()
    assert open_files(tmp_path) == []
    with Path(path).open():
        assert open_files(tmp_path) == [path]
    wait_until(lambda: loader_threads() == [])


# --- What the caller keeps --------------------------------------------------------------------------------


@pytest.fixture
def chunky(tmp_path: Path) -> str:
    """4,000,000 rows of x = 0, 1, 2, ...: 32 MB of batches."""
    table = pa.table({"x": np.arange(4_000_000)})
    return write_row_groups(tmp_path / "chunky.parquet", table, [100_000] * 40, compression="zstd")


@pytest.mark.parametrize("format", ["torch", "numpy", "arrow"])
@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
@pytest.mark.parametrize("in_order", [True, False])
def test_keeping_every_batch_is_an_error_at_once(
    chunky: str, format: Any, num_workers: int, in_order: bool
) -> None:
    """Clause 18, invariant 4: kept batches are charged to the user; then next() says how many, and never
    waits."""
    if format == "torch":
        pytest.importorskip("torch")
    loader = quiet_loader(
        chunky,
        batch_size=50_000,
        memory_budget="16MiB",
        format=format,
        num_workers=num_workers,
        in_order=in_order,
    )
    kept = []
    charged = [0]
    iterator = iter(loader)

    def keep() -> None:
        for batch in iterator:
            kept.append(batch)
            charged.append(loader.memory()["user"]["current_bytes"])

    with pytest.raises(MemoryError) as error:
        keep()
    assert f"{len(kept)} batches are still held" in str(error.value)
    del error  # Its traceback shows the last batch.
    assert charged == sorted(charged)
    assert charged[-1] >= 8 * 50_000 * len(kept) > 5 * MIB
    assert_within_budget(loader)
    wait_until(lambda: loader_threads() == [])
    assert list(iterator) == []
    # The same again while they are held; and everything as it was once they are not.
    with pytest.raises(MemoryError, match=r"\d+ batch(es are| is) still held"):
        kept += list(loader)
    del kept[:]
    assert current_bytes(loader).keys() <= {"metadata"}
    assert sum(len(batch["x"]) for batch in loader) == 4_000_000
    assert_all_given_back(loader)


def test_one_batch_too_many_is_the_only_one_that_fails(chunky: str) -> None:
    """Clause 18: a window of batches that fits the budget may be kept for ever."""
    loader = quiet_loader(chunky, batch_size=50_000, memory_budget="16MiB", num_workers=2)
    window: list[Any] = []
    rows = 0
    for batch in loader:
        rows += len(batch["x"])
        window = [*window[-9:], batch]
    assert rows == 4_000_000
    assert_within_budget(loader)


@pytest.mark.parametrize("format", ["torch", "numpy", "arrow"])
def test_a_copy_holds_its_row_and_a_view_holds_its_slot(chunky: str, format: Any) -> None:
    """Clause 18, invariant 2: copies of rows are the caller's own; a view of one row keeps its slot,
    counted."""
    if format == "torch":
        pytest.importorskip("torch")
    loader = quiet_loader(chunky, batch_size=50_000, memory_budget="8MiB", format=format)
    copies = []
    for batch in loader:
        row = batch["x"][7:8]
        if format == "arrow":
            copies.append(pa.concat_arrays([row, row]))
        else:
            copies.append(row.clone() if format == "torch" else row.copy())
        del row, batch
    assert [values_of({"x": copy})[0] for copy in copies] == list(range(7, 4_000_000, 50_000))
    assert current_bytes(loader).keys() <= {"metadata"}
    views = []
    with pytest.raises(MemoryError, match="batches are still held"):
        views.extend(batch["x"][7:8] for batch in loader)
    held = current_bytes(loader)["user"]
    slot_bytes = loader.explain().to_dict()["slot_bytes"]
    assert held % slot_bytes == 0
    assert held >= len(views) // loader.explain().to_dict()["batches_per_slot"] * slot_bytes
    assert values_of({"x": views[-1]}) == [7 + 50_000 * (len(views) - 1)]
    while views:
        before = current_bytes(loader)["user"]
        del views[0]
        assert current_bytes(loader).get("user", 0) in (before, before - slot_bytes)
    assert current_bytes(loader).keys() <= {"metadata"}


def test_let_go_on_another_epoch(chunky: str) -> None:
    """Clause 18, invariant 2: what an old epoch's batches hold counts against the next epoch, until they
    die."""
    loader = quiet_loader(chunky, batch_size=50_000, memory_budget="16MiB", num_workers=2)
    iterator = iter(loader)
    kept = [next(iterator) for _ in range(8)]
    del iterator
    held = current_bytes(loader)["user"]
    assert held >= 8 * 8 * 50_000
    for _batch in loader:
        assert loader.memory()["user"]["current_bytes"] > held
    del _batch
    assert_within_budget(loader)
    assert [values_of(batch)[0] for batch in kept] == [i * 50_000 for i in range(8)]
    loader.close()
    assert current_bytes(loader) == {"user": held}
    kept.clear()
    assert current_bytes(loader) == {}


# --- The ledger against the machine -----------------------------------------------------------------------

GROWTH = """
    import sys
    import numpy, pyarrow.parquet
    from support import quiet_loader, rss_bytes
    def run(budget, kept_bytes):
        loader = quiet_loader(sys.argv[1], batch_size=50_000, memory_budget=budget, num_workers=4)
        kept, least, most = [], 0.0, 0.0
        for epoch in range(3):
            for batch in loader:
                if sum(a["x"].nbytes for a in kept) < kept_bytes:
                    kept.append(batch)
                ledger = loader.memory()["total"]["current_bytes"]
                excess = rss_bytes() - start - ledger
                least, most = min(least, excess + .05 * ledger), max(most, excess - .05 * ledger)
        return ledger, least, most
    start = rss_bytes()
    run("32MiB", 0)
    start = rss_bytes()
    ledger, least, most = run("512MiB", 200 << 20)
    print(ledger, int(least), int(most))
"""


def test_the_process_grows_by_what_the_ledger_says(tmp_path: Path) -> None:
    """Invariant 1: process memory grown since start agrees with the ledger within 5 % + 64 MiB, at every
    batch."""
    table = pa.table({"x": np.arange(4_000_000), "y": np.arange(4_000_000) * 7919})
    path = write_row_groups(tmp_path / "data.parquet", table, [1_000_000] * 4, compression="zstd")
    begun = time.monotonic()
    done = run_python(GROWTH, path)
    assert (done.returncode, done.stderr) == (0, b"")
    ledger, least, most = map(int, done.stdout.split())
    print(f"ledger {ledger}, process less {least} to {most} bytes, {time.monotonic() - begun:.1f} s")
    assert ledger > 150 * MIB
    assert least > -64 * MIB
    assert most < 64 * MIB
