"""ps.ops.pack with balance="rows": ranks divide the packed rows, whose items are counted first."""

from __future__ import annotations

import itertools
import json
import random
import warnings
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support import assert_within_budget, current_bytes, quiet_loader, rows_of, write_row_groups

LENGTH = 16
DOCUMENTS = 600
WINDOW = 80  # Rows: windows are whole slabs, here of four.


def lists() -> list[list[int] | None]:
    """Some are missing, some empty, some longer than several rows; the items count from 0."""
    sizes = [number**2 * 31 // 7 % 40 for number in range(DOCUMENTS)]
    sizes[300] = 5000
    begins = list(itertools.accumulate(sizes, initial=0))
    return [
        None if begin == end and begin % 2 else list(range(begin, end))
        for begin, end in itertools.pairwise(begins)
    ]


ALL = lists()
TABLE = pa.table({"tokens": pa.array(ALL, pa.list_(pa.int32())), "number": range(DOCUMENTS)})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two files of odd row groups."""
    folder = tmp_path_factory.mktemp("packed")
    write_row_groups(folder / "0.parquet", TABLE.slice(0, 250), [100, 0, 7, 143])
    write_row_groups(folder / "1.parquet", TABLE.slice(250), [51, 1, 298])
    return str(folder)


def packed(source: Any, **options: Any) -> ps.Loader:
    pack = {"tokens": ps.ops.pack(LENGTH, value=-1)}
    usual = {"columns": ["tokens"], "transforms": pack, "nulls": "mask", "batch_size": 7, "balance": "rows"}
    return quiet_loader(source, **{**usual, **options})


def tokens_of(batches: Any) -> list[list[int]]:
    return rows_of(batches, "tokens")


def rows_in_order(source: Any, length: int = LENGTH, **options: Any) -> list[list[int]]:
    """All packed rows, of the documents as a window of one row leaves them."""
    if "shuffle" in options:
        options["_shuffle_window_rows"] = 1
    numbers = rows_of(quiet_loader(source, columns=["number"], **options), "number")
    items = [item for number in numbers for item in ALL[number] or []]
    items += [-1] * (-len(items) % length)
    return [items[begin : begin + length] for begin in range(0, len(items), length)]


ROWS = rows_in_order(TABLE)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 31])
def test_ranks_together_give_the_rows_of_one(path: str, world_size: int) -> None:
    share = len(ROWS) // world_size
    got = []
    for rank in range(world_size):
        with packed(path, rank=rank, world_size=world_size, num_workers=rank % 3) as loader:
            assert len(loader) == -(-share // 7)
            sizes = [len(batch["tokens"]) for batch in loader]
            assert sizes == [7] * (share // 7) + [share % 7] * (share % 7 > 0)
            assert loader.stats().to_dict()["rows_dropped"] == len(ROWS) % world_size
            got += tokens_of(loader)
            assert_within_budget(loader)
        assert current_bytes(loader) == {}
    assert got == ROWS[: share * world_size]


def test_any_lists_at_any_length(tmp_path: Path) -> None:
    """Missing items and lists among them; footers that count items and arrays that are read say the same."""
    draw = random.Random(1)
    for number in range(30):
        items = itertools.count()
        documents = [
            draw.choice([None, [next(items) for _ in range(draw.choice([0, 0, 1, 2, 9, 70]))]])
            for _ in range(draw.randrange(1, 60))
        ]
        flat = [item for document in documents for item in document or []]
        length, world_size = draw.choice([1, 2, 3, 8, 50]), draw.choice([1, 2, 3, 5])
        share = -(-len(flat) // length) // world_size
        if share == 0:
            continue
        some = [document and [item if item % 7 else None for item in document] for document in documents]
        table = pa.table({"tokens": pa.array(some, pa.large_list(pa.int32()))})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=draw.choice([1, 4, 100]))
        for source in (str(tmp_path / f"{number}.parquet"), table):
            got = []
            for rank in range(world_size):
                options: dict[str, Any] = {"rank": rank, "world_size": world_size, "num_workers": 1}
                options["transforms"] = {"tokens": ps.ops.pack(length, value=-1)}
                rows = tokens_of(packed(source, nulls={"tokens": -2}, **options))
                assert len(rows) == share
                got += [item for row in rows for item in row if item != -1]
            assert got == [item if item % 7 else -2 for item in flat[: share * world_size * length]]


@pytest.mark.parametrize("is_counted", [True, False])
def test_lists_are_read_to_be_counted_only_where_the_footer_has_not_counted_them(
    tmp_path: Path, is_counted: bool
) -> None:
    """It counts numbers: of lists of vectors, not the vectors."""
    numbers = pa.array(range(200_000), pa.int64())
    items = numbers if is_counted else pa.FixedSizeListArray.from_arrays(numbers, 2)
    offsets = pa.array(range(0, len(items) + 1, 100), pa.int32())
    table = pa.table({"tokens": pa.ListArray.from_arrays(offsets, items)})
    pq.write_table(table, tmp_path / "t.parquet", use_dictionary=False, compression="none")
    with packed(str(tmp_path / "t.parquet")) as loader:
        assert len(loader) == -(-len(items) // LENGTH // 7)
        read_bytes = loader.stats().to_dict()["stages"]["read"]["bytes"]
        assert (read_bytes < 500_000) == is_counted


@pytest.mark.parametrize("world_size", [1, 3])
def test_each_rank_mixes_its_own_rows_within_windows(path: str, world_size: int) -> None:
    options: dict[str, Any] = {"shuffle": True, "seed": 5}
    wanted = rows_in_order(path, **options)
    share = len(wanted) // world_size
    for rank in range(world_size):
        ranks = {"rank": rank, "world_size": world_size}
        rows = tokens_of(packed(path, _shuffle_window_rows=WINDOW, **ranks, **options))
        own = wanted[rank * share : (rank + 1) * share]
        assert len(rows) == share
        assert rows != own
        for begin in range(0, share, WINDOW):
            assert sorted(rows[begin : begin + WINDOW]) == sorted(own[begin : begin + WINDOW])


def test_another_order_in_every_epoch(path: str) -> None:
    with packed(path, rank=1, world_size=2, shuffle=True) as loader:
        epochs = [tokens_of(loader) for _ in range(3)]
    assert [len(rows) for rows in epochs] == [len(ROWS) // 2] * 3
    assert len({str(rows) for rows in epochs}) == 3


@pytest.mark.parametrize("options", [{}, {"limit": 41}], ids=str)
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_state_goes_on_at_every_batch(path: str, shuffle: bool, options: dict[str, Any]) -> None:
    options = {"rank": 1, "world_size": 2, "shuffle": shuffle, "batch_size": 9, **options}
    options["_shuffle_window_rows"] = WINDOW
    with packed(path, num_workers=2, **options) as loader:
        batches, states = [], [loader.state_dict()]
        for batch in loader:
            batches.append(batch["tokens"].tolist())
            states.append(json.loads(json.dumps(loader.state_dict())))
        following = tokens_of(loader)
    assert states[2]["history"] == [[2, 18]]
    for step, state in enumerate(states):
        with packed(path, num_workers=0, **options) as again:
            again.load_state_dict(state)
            rest = iter(again)
            firsts = [batch["tokens"].tolist() for batch in itertools.islice(rest, 1)]
            assert not firsts or again.state_dict() == states[step + 1]
            assert firsts + [batch["tokens"].tolist() for batch in rest] == batches[step:]
            assert tokens_of(again) == following


def test_one_rank_speaks_for_all(path: str) -> None:
    with packed(path, rank=0, world_size=2) as loader, packed(path, rank=1, world_size=2) as other:
        next(iter(loader))
        batches = [batch["tokens"].tolist() for batch in other]
        other.load_state_dict(loader.state_dict())
        assert [batch["tokens"].tolist() for batch in other] == batches[1:]


def test_a_filter_a_part_and_a_limit(path: str) -> None:
    sources: list[tuple[Any, dict[str, Any]]] = [
        (path, {"filter": pc.field("number") >= 120}),
        (path, {"filter": pc.equal(pc.bit_wise_and(pc.field("number"), 1), 1)}),
        (ps.split(path, [0.4, 0.6], seed=1)[0], {}),
    ]
    for (source, options), limit in itertools.product(sources, (None, 50)):
        wanted = rows_in_order(source, **options)[:limit]
        share = len(wanted) // 3
        got = []
        for rank in range(3):
            loader = packed(source, limit=limit, rank=rank, world_size=3, **options)
            assert len(loader) == -(-share // 7)
            got += tokens_of(loader)
        assert got == wanted[: share * 3]


@pytest.mark.parametrize("is_table", [True, False])
def test_lists_in_a_struct(tmp_path: Path, is_table: bool) -> None:
    """Items are counted in the column that is packed, not in the one that is read."""
    lists = [list(range(7 * i, 7 * i + i % 7)) for i in range(200)]
    table = pa.table({"doc": [{"tokens": items} for items in lists], "k": range(200)})
    path = str(tmp_path / "structs.parquet")
    pq.write_table(table, path, row_group_size=50)
    for begin in (0, 21):
        got: list[int] = []
        for rank in range(2):
            loader = ps.Loader(
                table if is_table else path,
                batch_size=2,
                columns=["tokens"],
                transforms={"tokens": ps.col("doc.tokens") | ps.ops.pack(8)},
                filter=pc.field("k") >= begin if begin > 0 else None,
                balance="rows",
                rank=rank,
                world_size=2,
                format="numpy",
            )
            for batch in loader:
                got += batch["tokens"].ravel().tolist()
        wanted = list(itertools.chain.from_iterable(lists[begin:]))
        assert len(got) >= len(wanted) // 16 * 16
        assert got[: len(wanted)] == wanted[: len(got)]


def test_what_cannot_be_divided_is_refused(path: str) -> None:
    two = {"rank": 0, "world_size": 2}
    with pytest.raises(ValueError, match="count one epoch: iterate once for each instead of epochs=2"):
        packed(path, epochs=2)
    with pytest.raises(
        ValueError, match=r'uneven="repeat" does not go with balance="rows" and ps\.ops\.pack'
    ):
        packed(path, uneven="repeat", **two)
    with pytest.raises(ValueError, match=r"fewer than the 5000 ranks: none .* fewer ranks\.$"):
        len(packed(path, rank=0, world_size=5000))
    with pytest.raises(ValueError, match="as many ranks as there were"):
        packed(path, rank=0, world_size=3).load_state_dict(packed(path, **two).state_dict())
    with pytest.raises(ValueError, match="balance"):
        packed(path, balance=None, **two).load_state_dict(packed(path, **two).state_dict())
    with pytest.raises(ValueError, match=r'`limit` and ps\.ops\.pack need balance="rows"'):
        packed(path, balance=None, limit=5, **two)


def test_no_warning_where_all_ranks_get_as_much(path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        packed(path, rank=0, world_size=2, num_workers=1).close()
