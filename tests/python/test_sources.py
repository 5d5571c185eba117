"""What `source` may be beside Parquet: Arrow in memory, streams, iterables, data sets."""

from __future__ import annotations

import gc
import pickle
import threading
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from support import assert_within_budget, current_bytes, quiet_loader, rows_of

ROWS = 1000
WORKERS = [0, 2]


def numbers(begin: int = 0, rows: int = ROWS) -> pa.Table:
    x = pa.array(range(begin, begin + rows), pa.int64())
    return pa.table({"x": x, "y": pc.cast(x, pa.float32()), "s": pc.cast(x, pa.string())})


def loader_of(source: Any, **options: Any) -> ps.Loader:
    return quiet_loader(source, **{"batch_size": 64, "columns": ["x", "y"], **options})


def assert_is_numbers(batches: list[dict[str, np.ndarray]], rows: int = ROWS) -> None:
    assert rows_of(batches, "x") == list(range(rows))
    assert rows_of(batches, "y") == list(range(rows))
    assert all(len(batch["x"]) == 64 for batch in batches[:-1])


def copies(loader: ps.Loader) -> list[dict[str, np.ndarray]]:
    return [{name: values.copy() for name, values in batch.items()} for batch in loader]


# --- In memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", WORKERS)
def test_table_is_read_in_each_epoch_and_not_charged(num_workers: int) -> None:
    table = pa.concat_tables([numbers(0, 300), numbers(300, 1), numbers(301, 699)])
    with loader_of(table, num_workers=num_workers) as loader:
        assert len(loader) == 16
        for _ in range(3):
            assert_is_numbers(copies(loader))
        assert loader.memory()["blocks"]["peak_bytes"] == 0
        assert loader.explain().to_dict()["plan"] == "counted"
        assert_within_budget(loader)
        assert current_bytes(loader) == {}


def test_record_batch() -> None:
    with loader_of(numbers().to_batches()[0]) as loader:
        assert_is_numbers(copies(loader))


def test_list_of_tables_is_an_iterable_of_many_epochs() -> None:
    with loader_of([numbers(0, 400), numbers(400, 600).to_batches()[0]]) as loader:
        for _ in range(2):
            assert_is_numbers(copies(loader))
        with pytest.raises(TypeError, match="not known ahead"):
            len(loader)


def test_filter_over_a_table_gives_the_same_as_pyarrow() -> None:
    table = pa.concat_tables([numbers(0, 300), numbers(300, 700)])
    with loader_of(table, filter=pc.field("s") > "5") as loader:
        assert rows_of(copies(loader)) == table.filter(pc.field("s") > "5")["x"].to_pylist()


def test_dictionaries_of_a_table_are_made_one() -> None:
    parts = [pa.array(values).dictionary_encode() for values in (["b", "a"], ["c", "b"], ["a", "d"])]
    table = pa.table({"d": pa.chunked_array(parts)})
    with quiet_loader(table, batch_size=2) as loader:
        vocabulary = loader.schema["d"].vocabulary
        assert vocabulary.to_pylist() == ["b", "a", "c", "d"]
        assert rows_of(copies(loader), "d") == [0, 1, 2, 0, 1, 3]


def test_damaged_memory_is_an_error_that_names_place_and_column() -> None:
    offsets = pa.py_buffer(np.array([0, 5, 99999999, 7], np.int32))
    bad = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"abcdefg"))
    table = pa.table({"s": bad})
    with (
        quiet_loader(table, transforms={"s": ps.ops.hash_bucket(10)}) as loader,
        pytest.raises(ValueError, match="the table, record batch 0, column 's'"),
    ):
        list(loader)


# --- Streams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", WORKERS)
def test_reader_has_one_epoch(num_workers: int) -> None:
    loader = loader_of(numbers().to_reader(max_chunksize=70), num_workers=num_workers)
    assert_is_numbers(copies(loader))
    with pytest.raises(ValueError, match="can be read once"):
        iter(loader)
    with pytest.raises(TypeError, match="can be read once"):
        pickle.dumps(loader)


def test_polars() -> None:
    polars = pytest.importorskip("polars")
    with loader_of(polars.DataFrame(numbers())) as loader:
        assert len(loader) == 16
        for _ in range(2):
            assert_is_numbers(copies(loader))


def test_duckdb() -> None:
    duckdb = pytest.importorskip("duckdb")
    relation = duckdb.sql(f"select range as x, range::float as y from range({ROWS})")
    with loader_of(relation) as loader:
        for _ in range(2):
            assert_is_numbers(copies(loader))


class Again:
    """An iterable that can be iterated again, and says how often it was."""

    def __init__(self, tables: list[pa.Table]) -> None:
        self.tables = tables
        self.iterations = 0

    def __iter__(self) -> Iterator[pa.Table]:
        self.iterations += 1
        yield from self.tables


@pytest.mark.parametrize("num_workers", WORKERS)
def test_iterable_is_iterated_once_per_epoch(num_workers: int) -> None:
    source = Again([numbers(0, 10), numbers(10, 0), numbers(10, 990)])
    with loader_of(source, num_workers=num_workers) as loader:
        for epoch in range(3):
            assert_is_numbers(copies(loader))
            assert source.iterations == epoch + 1
        assert current_bytes(loader) == {}


def test_generator_has_one_epoch() -> None:
    with loader_of(numbers(i, 100) for i in range(0, ROWS, 100)) as loader:
        assert_is_numbers(copies(loader))
        with pytest.raises(ValueError, match="can be read once"):
            iter(loader)


class OwnError(Exception):
    pass


@pytest.mark.parametrize("num_workers", WORKERS)
@pytest.mark.parametrize("filter", [None, pc.field("x") >= 0])
@pytest.mark.parametrize("error", [OwnError, MemoryError])
@pytest.mark.parametrize("is_late", [False, True])
def test_what_an_iterable_raises_comes_once_after_the_batches_before_it(
    num_workers: int, filter: pc.Expression | None, error: type[Exception], is_late: bool
) -> None:
    """A MemoryError of its own, too, which is not the loader's that can be tried again."""
    has_taken = threading.Event()

    def tables() -> Iterator[pa.Table]:
        yield numbers(0, 100)
        yield numbers(100, 100)
        if is_late and num_workers > 0:
            assert has_taken.wait(10)
        raise error("no more")

    loader = loader_of(tables(), num_workers=num_workers, filter=filter)
    iterator = iter(loader)
    got: list[int] = []

    def take_all() -> None:
        for batch in iterator:
            got.extend(batch["x"].tolist())
            has_taken.set()

    with pytest.raises(error, match="no more") as caught:
        take_all()
    assert got == list(range(192))  # Three full batches of 200 rows.
    assert "in tables" in "".join(traceback.format_exception(caught.value))
    assert next(iterator, None) is None
    assert current_bytes(loader).keys() <= {"user"}
    loader.close()


def test_iterable_of_something_else_is_an_error_that_names_the_item() -> None:
    with (
        loader_of(iter([numbers(0, 64), 5])) as loader,
        pytest.raises(TypeError, match="item 1 of the iterable"),
    ):
        list(loader)
    with pytest.raises(TypeError, match="item 0 of the iterable is of type int"):
        loader_of([1, 2].__iter__())
    with pytest.raises(ValueError, match="the iterable gives nothing"):
        loader_of(iter([]))
    with pytest.raises(TypeError, match="source is a path"):
        loader_of(5)


def test_differing_schemas_follow_the_rule_of_files() -> None:
    swapped = numbers(100, 100).select(["s", "y", "x"])
    extra = numbers(200, 100).append_column("z", pa.nulls(100))
    with loader_of(iter([numbers(0, 100), swapped, extra])) as loader:
        assert rows_of(copies(loader)) == list(range(300))
    other = numbers(100, 100).set_column(0, "x", pa.array(["a"] * 100))
    with (
        loader_of(iter([numbers(0, 100), other])) as loader,
        pytest.raises(
            ValueError, match="the stream, record batch 1: column 'x' is of type string here and int64"
        ),
    ):
        list(loader)


def test_pulled_batches_are_charged_and_bounded() -> None:
    """One more is not asked for while there is no room for one like the last."""
    rows = 100_000
    size = numbers(0, rows).select(["x", "y"]).nbytes

    def tables() -> Iterator[pa.Table]:
        for i in range(20):
            yield numbers(i * rows, rows).select(["x", "y"])

    loader = loader_of(tables(), batch_size=1000, memory_budget=4 * size, num_workers=2)
    assert sum(len(batch["x"]) for batch in loader) == 20 * rows
    memory = loader.memory()
    assert size <= memory["blocks"]["peak_bytes"] <= 4 * size
    assert memory["over_budget_bytes"] == 0
    assert current_bytes(loader).keys() <= {"user"}


def test_a_table_larger_than_the_budget_is_read_and_shown_as_over_budget() -> None:
    table = numbers(0, 1_000_000).select(["x", "y"])
    loader = loader_of(iter([table]), batch_size=1000, memory_budget="4MiB")
    assert sum(len(batch["x"]) for batch in loader) == len(table)
    assert loader.memory()["over_budget_bytes"] > table.nbytes - (4 << 20)


@pytest.mark.parametrize("columns", [["x", "y"], ["s"]])
@pytest.mark.parametrize("num_workers", WORKERS)
def test_no_batch_waits_for_what_a_stream_gives_later(columns: list[str], num_workers: int) -> None:
    """However many batches of few bytes a slot could hold: of no more rows than come at once."""
    had_all_of_the_first = threading.Event()

    def tables() -> Iterator[pa.Table]:
        yield numbers(0, 100)
        assert had_all_of_the_first.wait(30)
        yield numbers(100, 100)

    loader = loader_of(tables(), batch_size=10, columns=columns, format="arrow", num_workers=num_workers)
    rows = 0
    for batch in loader:
        rows += batch.num_rows
        if rows == 100:
            had_all_of_the_first.set()
    assert rows == 200


@pytest.mark.parametrize("once", [True, False])
def test_a_stream_is_explained_while_it_runs_and_behind_its_end(once: bool) -> None:
    """Its first batch is an epoch's by then."""
    source: Any = [numbers(0, 100), numbers(100, 100)]
    with loader_of(iter(source) if once else source, columns=["s"], format="arrow") as loader:
        before = loader_of(source, columns=["s"], format="arrow").explain().to_dict()
        batches = iter(loader)
        next(batches)
        assert loader.explain().to_dict() == before
        assert sum(batch.num_rows for batch in batches) == 200 - 64
        assert loader.explain().to_dict() == before


def test_endless_iterable_stops_with_the_loader() -> None:
    def tables() -> Iterator[pa.Table]:
        begin = 0
        while True:
            yield numbers(begin, 100)
            begin += 100

    generator = tables()
    gone = weakref.ref(generator)
    loader = loader_of(generator, num_workers=2)
    iterator = iter(loader)
    assert next(iterator)["x"][0] == 0
    loader.close()
    del generator, iterator, loader
    gc.collect()
    assert gone() is None


def test_close_waits_only_for_the_running_call() -> None:
    """A stalled iterable: stats and memory can be had meanwhile, close() comes back when the call does."""
    is_stalled, may_go_on = threading.Event(), threading.Event()

    def tables() -> Iterator[pa.Table]:
        yield numbers(0, 64)
        is_stalled.set()
        may_go_on.wait()
        yield numbers(64, 64)
        raise AssertionError("asked after close()")

    loader = loader_of(tables(), num_workers=2)
    iterator = iter(loader)
    assert is_stalled.wait(60)
    loader.stats()
    assert loader.memory()["blocks"]["peak_bytes"] > 0
    closer = threading.Thread(target=loader.close)
    closer.start()
    may_go_on.set()
    closer.join(60)
    assert not closer.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        next(iterator)


# --- Data sets --------------------------------------------------------------------------------------------


def test_dataset_is_its_files_and_partitions(tmp_path: Path) -> None:
    table = numbers().append_column("p", pa.array([f"p{i % 3}" for i in range(ROWS)]))
    ds.write_dataset(
        table, tmp_path, partitioning=["p"], format="parquet"
    )  # Folders without keys in their names.
    dataset = ds.dataset(tmp_path, partitioning=["p"])
    with quiet_loader(
        dataset, columns=["x", "p"], format="arrow", transforms={"p": ps.ops.lookup(["p0", "p1", "p2"])}
    ) as loader:
        got = [row for batch in loader for row in batch.to_pylist()]
    assert sorted(row["x"] for row in got) == list(range(ROWS))
    assert all(row["p"] == row["x"] % 3 for row in got)


def test_other_datasets_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="scanner"):
        loader_of(ds.dataset(numbers()))
    pq.write_table(numbers(), tmp_path / "a.parquet")
    dataset = ds.dataset(tmp_path)
    with pytest.raises(ValueError, match="filter of its own"):
        loader_of(dataset.filter(pc.field("x") > 3))
    with pytest.raises(ValueError, match="filesystem is for paths"):
        loader_of(dataset, filesystem=dataset.filesystem)


# --- Dictionaries of streams ------------------------------------------------------------------------------


def cities(*names: str, known: list[str]) -> pa.RecordBatch:
    codes = pa.array([known.index(name) for name in names], pa.int8())
    return pa.record_batch({"city": pa.DictionaryArray.from_arrays(codes, pa.array(known))})


BATCHES = [cities("Bern", "Oslo", known=["Oslo", "Bern"]), cities("Oslo", "Bern", known=["Bern", "Oslo"])]


@pytest.mark.parametrize("once", [True, False])
def test_codes_of_a_stream_are_those_of_its_first_batch(once: bool) -> None:
    """Whatever code a value has in the batches that follow; the first batch is not lost to the look."""
    source = pa.RecordBatchReader.from_batches(BATCHES[0].schema, BATCHES) if once else BATCHES
    with quiet_loader(source, batch_size=3) as loader:
        assert loader.schema["city"].vocabulary.to_pylist() == ["Oslo", "Bern"]
        for _ in range(1 if once else 2):
            assert rows_of(copies(loader), "city") == [1, 0, 0, 1]


def test_a_value_that_a_streams_first_batch_does_not_know_is_an_error_with_a_remedy() -> None:
    with (
        quiet_loader([*BATCHES, cities("Rome", known=["Rome"])], batch_size=2) as loader,
        pytest.raises(ValueError, match=r"record batch 2.*column 'city'.*'Rome' is not in .*ps\.ops\.lookup"),
    ):
        list(loader)


def test_enums_of_duckdb() -> None:
    duckdb = pytest.importorskip("duckdb")
    relation = duckdb.sql("select ['a', 'b'][1 + range % 2]::enum('a', 'b') as e from range(10)")
    with quiet_loader(relation, batch_size=4) as loader:
        assert loader.schema["e"].vocabulary.to_pylist() == ["a", "b"]
        assert rows_of(copies(loader), "e") == [0, 1] * 5
