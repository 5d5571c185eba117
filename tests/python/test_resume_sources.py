"""Resume and ranks where an epoch is more than Parquet files: tables, Arrow files, parts, own code,
streams."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support import quiet_loader, rows_of, values_of, write_row_groups

ROWS = 720
FILTER = pc.bit_wise_and(pc.field("x"), 7) > 2


def numbers(begin: int, end: int) -> pa.Table:
    return pa.table({"x": pa.array(range(begin, end), pa.int64()), "s": [str(x) for x in range(begin, end)]})


def parquet(folder: Path) -> str:
    for number, begin in enumerate(range(0, ROWS, 240)):
        write_row_groups(folder / f"{number}.parquet", numbers(begin, begin + 240), [100, 0, 7, 133])
    return str(folder)


def arrow_files(folder: Path) -> str:
    for number, begin in enumerate(range(0, ROWS, 240)):
        table = numbers(begin, begin + 240)
        with (
            pa.OSFile(str(folder / f"{number}.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as out,
        ):
            for batch in table.to_batches(max_chunksize=97):
                out.write_batch(batch)
    return str(folder)


def table(_: Path) -> pa.Table:
    return pa.concat_tables([numbers(0, 300), numbers(300, 301), numbers(301, ROWS)])


def part(folder: Path) -> ps.Split:
    return ps.split(parquet(folder), [0.4, 0.6], seed=3)[1]


SOURCES: dict[str, Callable[[Path], Any]] = {
    "parquet": parquet,
    "arrow files": arrow_files,
    "table": table,
    "part": part,
    "part of a table": lambda folder: ps.split(table(folder), [0.5], seed=1)[0],
}


@pytest.fixture(params=SOURCES.values(), ids=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return request.param(tmp_path)


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(json.dumps(state))
    return loaded


def take(loader: ps.Loader, batches: int) -> list[Any]:
    iterator = iter(loader)
    return [values_of(next(iterator)) for _ in range(batches)]


@pytest.mark.parametrize("filter", [None, FILTER], ids=["all", "filter"])
def test_resume_at_every_batch(source: Any, filter: Any) -> None:
    options: dict[str, Any] = {"batch_size": 37, "filter": filter, "columns": ["x"]}
    whole = [values_of(batch) for batch in quiet_loader(source, **options)]
    for had in range(len(whole) + 1):
        with quiet_loader(source, **options) as first, quiet_loader(source, **options) as second:
            take(first, had)
            second.load_state_dict(through_json(first.state_dict()))
            assert [values_of(batch) for batch in second] == whole[had:]


@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_ranks_get_as_many_rows_and_know_it(source: Any, world_size: int) -> None:
    """Also of a part, whose rows are counted without reading."""
    whole = rows_of(quiet_loader(source, columns=["x"]))
    rows = []
    for rank in range(world_size):
        with quiet_loader(source, columns=["x"], batch_size=20, rank=rank, world_size=world_size) as loader:
            own = rows_of(loader)
            assert len(own) == len(whole) // world_size
            assert len(loader) == -(-len(own) // 20)
        rows += own
    assert rows == whole[: len(rows)]


@pytest.mark.parametrize("filter", [None, FILTER], ids=["all", "filter"])
def test_row_ids_are_right_in_the_middle_of_a_chunk(tmp_path: Path, filter: Any) -> None:
    """x is the position in the data set; a row's id is its position in its file."""
    options: dict[str, Any] = {"columns": ["x", ps.ROW_ID, ps.FILE], "batch_size": 23, "filter": filter}
    path = parquet(tmp_path)
    with quiet_loader(path, **options) as first, quiet_loader(path, **options) as second:
        take(first, 7)
        second.load_state_dict(first.state_dict())
        rows = list(second)
    assert len(rows_of(rows)) > 200
    assert rows_of(rows, ps.ROW_ID) == [x % 240 for x in rows_of(rows)]
    assert rows_of(rows, ps.FILE) == [x // 240 for x in rows_of(rows)]
    with quiet_loader(path, **{**options, "filter": None}, rank=1, world_size=3) as ranked:
        rows = list(ranked)
    assert rows_of(rows, ps.ROW_ID) == list(range(240))


def test_epochs_and_elastic_phases_of_a_part(tmp_path: Path) -> None:
    source = part(tmp_path)
    whole = rows_of(quiet_loader(source))
    assert rows_of(quiet_loader(source, epochs=3)) == whole * 3
    rows, state = [], None
    for world_size, steps in ((4, 3), (3, 2), (1, 1000)):
        for rank in range(world_size):
            with quiet_loader(source, batch_size=11, rank=rank, world_size=world_size) as loader:
                if state is not None:
                    loader.load_state_dict(state)
                for number, batch in enumerate(loader):
                    rows += values_of(batch)
                    following = loader.state_dict()
                    if number + 1 == steps:
                        break
        state = following
    assert sorted(rows) == sorted(whole)


def test_a_state_knows_its_part(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    one, other = ps.split(path, [0.5, 0.5])
    loader = quiet_loader(one)
    iter(loader)
    with pytest.raises(ValueError, match=r"it was saved over the part .* and here there is the part"):
        quiet_loader(other).load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match=r"the part .* and here there is all rows"):
        quiet_loader(path).load_state_dict(loader.state_dict())


def test_another_table_is_refused(tmp_path: Path) -> None:
    loader = quiet_loader(table(tmp_path))
    iter(loader)
    state = loader.state_dict()
    with pytest.raises(ValueError, match="saved over a table of 720 rows, and here it is a table of 719"):
        quiet_loader(numbers(0, ROWS - 1)).load_state_dict(state)
    with pytest.raises(ValueError, match="a table of 720 rows as there was, but in other chunks"):
        quiet_loader(numbers(0, ROWS)).load_state_dict(state)
    with pytest.raises(ValueError, match="saved over a table of 720 rows, and here it is 3 files"):
        quiet_loader(parquet(tmp_path)).load_state_dict(state)


def test_format_and_transforms_may_be_others(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    loader = quiet_loader(path, columns=["x", "s"], format="arrow", batch_size=100)
    take(loader, 2)
    state = loader.state_dict()
    other = quiet_loader(
        path,
        columns=["x", "s"],
        batch_size=100,
        transforms={"s": ps.ops.hash_bucket(10), "x": ps.ops.cast("float32")},
    )
    other.load_state_dict(state)
    assert rows_of(other) == list(range(200, ROWS))


# --- The user's own code ----------------------------------------------------------------------------------


def collated(batch: Any) -> Any:
    return {"x": batch["x"].copy()}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "code",
    [
        {"collate_fn": collated},
        {"collate_fn": collated, "collate_workers": 3, "finalize_fn": collated},
        {"finalize_fn": collated},
        {"on_stats": lambda stats: None},
        {"collate_fn": collated, "filter": FILTER},
        {"collate_fn": collated, "in_order": False},
    ],
    ids=["collate", "collate and finalize", "finalize", "on_stats", "filter", "out of order"],
)
def test_what_waits_behind_user_code_has_not_been_given(
    tmp_path: Path, num_workers: int, code: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"batch_size": 30, "num_workers": num_workers, "prefetch_batches": 4, **code}
    path = parquet(tmp_path)
    whole = sorted(rows_of(quiet_loader(path, **options)))
    for had in (0, 1, 5, 15):
        with quiet_loader(path, **options) as first, quiet_loader(path, **options) as second:
            seen = [x for values in take(first, had) for x in values]
            second.load_state_dict(through_json(first.state_dict()))
            assert sorted(seen + rows_of(second)) == whole
            assert second.state_dict()["epoch"] == 1


@pytest.mark.parametrize("stage", ["collate_fn", "finalize_fn"])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("fails_at", [1, 4, 24])
def test_a_batch_that_user_code_fails_for_comes_again(
    tmp_path: Path, stage: str, num_workers: int, fails_at: int
) -> None:
    """The last one, 24, too."""
    calls = 0
    lock = threading.Lock()

    def fails(batch: Any) -> Any:
        nonlocal calls
        with lock:
            calls += 1
            if calls == fails_at:
                raise LookupError
        return collated(batch)

    loader = quiet_loader(
        parquet(tmp_path), batch_size=30, num_workers=num_workers, prefetch_batches=3, **{stage: fails}
    )
    rows: list[int] = []
    with pytest.raises(LookupError):  # noqa: PT012
        for batch in loader:
            rows += values_of(batch)
    assert rows == list(range(30 * (fails_at - 1)))
    loader.load_state_dict(loader.state_dict())
    assert rows + rows_of(loader) == list(range(ROWS))
    assert loader.state_dict()["epoch"] == 1


def test_the_state_does_not_run_ahead_with_the_collate_threads(tmp_path: Path) -> None:
    loader = quiet_loader(parquet(tmp_path), batch_size=10, collate_fn=collated, collate_workers=4)
    for number, _ in enumerate(loader):
        assert loader.state_dict()["history"] == [[1, 10 * (number + 1)]]


# --- What has no order -------------------------------------------------------------------------------------


class Tables:
    """Can be iterated again and again, but its rows are known when they have been read."""

    def __iter__(self) -> Any:
        return iter([numbers(0, 10)])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: numbers(0, 10).to_reader(), "read once"),
        (lambda: iter([numbers(0, 10)]), "read once"),
        (Tables, "read"),
    ],
    ids=["reader", "iterator", "iterable"],
)
def test_streams_have_no_ranks_and_no_state(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(
        ValueError, match="ranks need a source whose rows are known without reading it.*" + words
    ):
        quiet_loader(make(), rank=0, world_size=2)
    with pytest.raises(ValueError, match="epochs and balance need a source whose rows are known"):
        quiet_loader(make(), epochs=2)
    loader = quiet_loader(make())
    with pytest.raises(ValueError, match="state"):
        loader.state_dict()
    state = quiet_loader(numbers(0, 10)).state_dict()
    with pytest.raises(ValueError, match="state"):
        loader.load_state_dict(state)
    assert rows_of(loader) == list(range(10))


def test_text_files_have_no_ranks_and_no_state(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("x\n1\n2\n")
    with pytest.raises(ValueError, match="ranks need a source whose rows are known without reading it"):
        quiet_loader(tmp_path / "x.csv", rank=0, world_size=2)
    with pytest.raises(ValueError, match="state"):
        quiet_loader(tmp_path / "x.csv").state_dict()
