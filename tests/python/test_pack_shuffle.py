"""ps.ops.pack with shuffle=True: packed rows are mixed within windows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support import assert_within_budget, current_bytes, quiet_loader, rows_of, write_row_groups

LENGTH = 16
DOCUMENTS = 900
ASKED, WINDOW = 83, 80  # Rows: windows are whole slabs, here of four.


def documents() -> list[list[int]]:
    """Some are empty, some longer than a row; the items count from 0."""
    begins = np.cumsum([0, *(np.arange(DOCUMENTS) ** 2 * 31 // 7 % 40)])
    return [list(range(begin, end)) for begin, end in itertools.pairwise(begins.tolist())]


ALL = documents()
ITEMS = sum(len(document) for document in ALL)
ROWS = -(-ITEMS // LENGTH)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three files of odd row groups."""
    folder = tmp_path_factory.mktemp("packed")
    for number, begin in enumerate(range(0, DOCUMENTS, 300)):
        some = ALL[begin : begin + 300]
        table = pa.table(
            {
                "tokens": pa.array(some, pa.list_(pa.int32())),
                "labels": pa.array([[-item for item in each] for each in some], pa.list_(pa.int64())),
                "number": range(begin, begin + 300),
            }
        )
        write_row_groups(folder / f"{number}.parquet", table, [100, 0, 7, 193])
    return str(folder)


def packed(source: Any, **options: Any) -> ps.Loader:
    pack = {"tokens": ps.ops.pack(LENGTH, value=-1)}
    usual = {"columns": ["tokens"], "transforms": pack, "shuffle": True, "batch_size": 7}
    return quiet_loader(source, **{**usual, "_shuffle_window_rows": ASKED, **options})


def whole(batches: Any) -> list[Any]:
    """All arrays of all batches, copied."""
    return [{name: array.tolist() for name, array in batch.items()} for batch in batches]


def items_of(rows: list[list[int]]) -> list[int]:
    return [item for row in rows for item in row if item >= 0]


def tokens_of(batches: Any) -> list[list[int]]:
    return rows_of(batches, "tokens")


def windows_of(rows: list[Any], size: int = WINDOW) -> list[list[Any]]:
    return [sorted(rows[begin : begin + size]) for begin in range(0, len(rows), size)]


def rows_in_order(path: str, length: int = LENGTH, **options: Any) -> list[list[int]]:
    """The rows before they are mixed: of the documents as a window of one row leaves them."""
    numbers = rows_of(
        quiet_loader(path, columns=["number"], shuffle=True, _shuffle_window_rows=1, **options), "number"
    )
    items = [item for number in numbers for item in ALL[number]]
    items += [-1] * (-len(items) % length)
    return [items[begin : begin + length] for begin in range(0, len(items), length)]


def test_every_item_once_in_batches_of_exact_size_and_padding_at_the_end(path: str) -> None:
    with packed(path) as loader:
        for _ in range(3):
            batches = whole(loader)
            assert [len(batch["tokens"]) for batch in batches] == [7] * (ROWS // 7) + [ROWS % 7]
            rows = [row for batch in batches for row in batch["tokens"]]
            assert sorted(items_of(rows)) == list(range(ITEMS))
            assert [row for row in rows if -1 in row] == rows[-1:]
    assert current_bytes(loader) == {}


def test_rows_are_those_of_the_permuted_row_groups_mixed_within_windows(path: str) -> None:
    for seed in (0, 7):
        rows = tokens_of(packed(path, seed=seed))
        wanted = rows_in_order(path, seed=seed)
        assert rows != wanted
        assert windows_of(rows) == windows_of(wanted)


def test_segments_are_those_of_each_row_wherever_it_lies(path: str) -> None:
    starts = {document[0] for document in ALL if document}
    rows = 0
    for batch in packed(path):
        tokens, positions = batch["tokens"], batch["tokens_positions"]
        is_start = np.isin(tokens, list(starts))
        is_start[:, 0] = True
        is_start[:, 1:] |= (tokens[:, 1:] < 0) & (tokens[:, :-1] >= 0)  # Padding.
        assert np.array_equal(positions == 0, is_start)
        begins = np.maximum.accumulate(np.where(is_start, np.arange(LENGTH), 0), axis=1)
        assert np.array_equal(positions, np.arange(LENGTH) - begins)
        assert batch["tokens_offsets"].tolist() == [*np.flatnonzero(is_start.ravel()), tokens.size]
        rows += len(tokens)
    assert rows == ROWS


def test_every_item_may_be_a_segment() -> None:
    batches = list(packed(pa.table({"tokens": [[item] for item in range(3000)]}), batch_size=30))
    assert sorted(item for batch in batches for item in batch["tokens"].ravel() if item >= 0) == list(
        range(3000)
    )
    for batch in batches[:-1]:
        assert not batch["tokens_positions"].any()
        assert batch["tokens_offsets"].tolist() == list(range(30 * LENGTH + 1))


def test_another_order_in_every_epoch_and_for_every_seed(path: str) -> None:
    orders = set()
    for seed in (0, 1, 2**64 - 1):
        with packed(path, seed=seed) as loader:
            orders.update(tuple(items_of(tokens_of(loader))) for _ in range(3))
    assert len(orders) == 9


def test_the_order_is_the_same_for_ever(path: str) -> None:
    """A state that was saved by one release is continued by another, on any machine."""
    firsts = [row[0] for row in tokens_of(packed(path, seed=2026))]
    assert firsts[:6] == [2761, 9060, 3049, 3209, 3401, 2409]
    assert firsts[-6:] == [15414, 15750, 15318, 15686, 15718, 15846]


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 0},
        {"num_workers": 1},
        {"num_workers": 4},
        {"prefetch_batches": 0},
        {"prefetch_batches": 9},
        {"memory_budget": "8MiB"},
        {"in_order": False},
        {"collate_fn": lambda batch: batch},
        {"_direct_decode": False},
    ],
    ids=lambda options: "-".join(options),
)
def test_the_order_is_a_function(path: str, options: dict[str, Any]) -> None:
    with packed(path, num_workers=2) as usual, packed(path, **options) as other:
        for _ in range(2):
            assert whole(usual) == whole(other)


@pytest.mark.parametrize("format", ["torch", "arrow", "pandas"])
def test_every_format_has_the_same_rows(path: str, format: str) -> None:
    if format == "torch":
        pytest.importorskip("torch")
    wanted = tokens_of(packed(path))
    assert [list(row) for row in tokens_of(packed(path, format=format))] == wanted


def test_columns_that_are_packed_together_stay_together_with_their_masks(path: str) -> None:
    transforms = {
        "tokens": ps.ops.pack(LENGTH, value=-1),
        "labels": ps.ops.pack(LENGTH, value=1) | ps.ops.cast("float32"),
    }
    batches = whole(packed(path, columns=["tokens", "labels"], transforms=transforms))
    for batch in batches:
        assert batch["labels"] == [[-item for item in row] for row in batch["tokens"]]
    masked = pa.table({"tokens": [[item if item % 3 else None for item in each] for each in ALL]})
    for batch in packed(masked, nulls="mask"):
        is_missing = batch["tokens_mask"]
        assert np.array_equal(batch["tokens"][~is_missing] % 3 == 0, np.zeros((~is_missing).sum(), bool))
        assert not batch["tokens"][is_missing].any()


def places_in(state: dict[str, Any]) -> list[Any]:
    return [state[key] for key in ("epoch", "epochs_left", "history", "given_rows", "given_items")]


@pytest.mark.parametrize("num_workers", [0, 3])
@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("batch_size", [7, 60])
def test_a_state_goes_on_at_every_batch(path: str, num_workers: int, epochs: int, batch_size: int) -> None:
    """Batches that lie within a window and that reach over several."""
    options: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size}
    with packed(path, num_workers=num_workers, **options) as loader:
        batches, states = [], [loader.state_dict()]
        for batch in loader:
            batches.append(batch["tokens"].tolist())
            states.append(json.loads(json.dumps(loader.state_dict())))
    for step in range(0, len(states), 1 if epochs == 1 else 11):
        with packed(path, num_workers=3 - num_workers, **options) as again:
            again.load_state_dict(states[step])
            assert places_in(again.state_dict()) == places_in(states[step])
            rest = iter(again)
            firsts = [batch["tokens"].tolist() for batch in itertools.islice(rest, 1)]
            assert not firsts or places_in(again.state_dict()) == places_in(states[step + 1])
            assert firsts + [batch["tokens"].tolist() for batch in rest] == batches[step:]


def test_a_state_counts_what_the_loop_got_behind_collate_fn(path: str) -> None:
    def tokens(batch: Any) -> list[list[int]]:
        rows: list[list[int]] = batch["tokens"].tolist()
        return rows

    options: dict[str, Any] = {"collate_fn": tokens, "num_workers": 2, "collate_workers": 2}
    with packed(path, **options) as loader, packed(path) as again:
        batches = list(loader)
        for step in (1, 12, 60):
            loader.set_epoch(0)
            for _ in zip(range(step), loader, strict=False):
                pass
            again.load_state_dict(loader.state_dict())
            assert [batch["tokens"].tolist() for batch in again] == batches[step:]


def test_a_resumed_run_says_where_it_is_and_reads_no_window_before(path: str) -> None:
    with packed(path) as loader:
        batches = iter(loader)
        for _ in range(ROWS // 7 - 10):
            next(batches)
        state = loader.state_dict()
        middle = [batch["tokens"].tolist() for batch in itertools.islice(batches, 4)]
        later = loader.state_dict()
        end = [batch["tokens"].tolist() for batch in batches]
        after = loader.state_dict()
    assert state["given_rows"] == (ROWS // 7 - 10) * 7
    with packed(path, num_workers=1) as again:
        again.load_state_dict(state)
        batches = iter(again)
        assert [batch["tokens"].tolist() for batch in itertools.islice(batches, 4)] == middle
        assert again.state_dict() == later
        assert [batch["tokens"].tolist() for batch in batches] == end
        assert again.state_dict() == after
        opened = again.stats().to_dict()["stages"]["decode"]["items"]
        batches = iter(again)
        next(batches)
        again.load_state_dict(state)
        next(batches)  # What the iteration before still gives is no step from there.
        assert again.state_dict() == state
    assert opened < loader.stats().to_dict()["stages"]["decode"]["items"] / 2


def test_a_state_of_another_window_is_refused(path: str) -> None:
    """Also where the documents are fewer than a window has rows."""
    table = pa.table({"tokens": [list(range(1000))] * 5})
    for source in (path, table):
        state = packed(source).state_dict()
        with pytest.raises(ValueError, match="the windows of its shuffle had 80 rows and have 160"):
            packed(source, _shuffle_window_rows=160).load_state_dict(state)
    with pytest.raises(ValueError, match="as many ranks as there were"):
        packed(path, rank=0, world_size=2).load_state_dict(packed(path).state_dict())
    with pytest.raises(ValueError, match="in_order=False there is no state"):
        packed(path, in_order=False).state_dict()


@pytest.mark.parametrize("uneven", ["drop", "repeat"])
def test_ranks_mix_the_rows_of_their_own_documents(path: str, uneven: str) -> None:
    every = []
    for rank in range(4):
        options: dict[str, Any] = {"rank": rank, "world_size": 4, "uneven": uneven}
        rows = tokens_of(packed(path, **options))
        assert windows_of(rows) == windows_of(rows_in_order(path, **options))
        every += [item for row in rows for item in row if item >= 0]
    assert sorted(every) == list(range(ITEMS))  # 900 documents, 225 for each.
    with pytest.warns(RuntimeWarning, match=r"ps\.ops\.pack the ranks divide the documents"):
        ps.Loader(
            path,
            columns=["tokens"],
            transforms={"tokens": ps.ops.pack(LENGTH)},
            shuffle=True,
            rank=0,
            world_size=4,
            num_workers=0,
        )


def test_a_rank_goes_on_with_its_own_state(path: str) -> None:
    for rank in range(3):
        options: dict[str, Any] = {"rank": rank, "world_size": 3}
        batches = [batch["tokens"].tolist() for batch in packed(path, **options)]
        for step in range(0, len(batches) + 1, 5):
            with packed(path, **options) as loader:
                for _ in zip(range(step), loader, strict=False):
                    pass
                state = json.loads(json.dumps(loader.state_dict()))
            with packed(path, num_workers=3, **options) as again:
                again.load_state_dict(state)
                assert [batch["tokens"].tolist() for batch in again] == batches[step:]


@pytest.mark.parametrize("rows", [0, 1, WINDOW - 2, WINDOW, 333, ROWS - 1, ROWS, ROWS + 1])
def test_a_limit_cuts_what_is_mixed(path: str, rows: int) -> None:
    got = whole(packed(path, limit=rows))
    wanted = rows_in_order(path)[:rows]
    assert windows_of([row for batch in got for row in batch["tokens"]]) == windows_of(wanted)
    for step in range(0, len(got) + 1, 9):
        with packed(path, limit=rows) as loader, packed(path, limit=rows, num_workers=0) as again:
            for _ in zip(range(step), loader, strict=False):
                pass
            again.load_state_dict(loader.state_dict())
            assert whole(again) == got[step:]


def test_a_filter_and_a_part_choose_documents(path: str) -> None:
    for source, options in (
        (path, {"filter": pc.field("number") >= 250}),
        (ps.split(path, [0.4, 0.6], seed=1)[0], {}),
    ):
        rows = tokens_of(packed(source, **options))
        assert windows_of(rows) == windows_of(rows_in_order(source, **options))
        assert len(tokens_of(packed(source, limit=20, **options))) == 20


def test_drop_last_leaves_out_what_would_be_padded(path: str) -> None:
    rows = tokens_of(packed(path))
    for batch_size in (1, 7, ROWS):
        loader = packed(path, batch_size=batch_size, drop_last=True)
        full = tokens_of(loader)
        assert loader.stats().to_dict()["rows"] == len(full)
        assert full == rows[: (ROWS - 1) // batch_size * batch_size]


def stream_of(step: int = 70) -> Iterator[pa.Table]:
    for begin in range(0, DOCUMENTS, step):
        yield pa.table({"tokens": pa.array(ALL[begin : begin + step], pa.list_(pa.int32()))})


def test_tables_and_streams(path: str) -> None:
    items = [item for document in ALL for item in document] + [-1] * (-ITEMS % LENGTH)
    wanted = [items[begin : begin + LENGTH] for begin in range(0, len(items), LENGTH)]
    for source in (next(stream_of(DOCUMENTS)), stream_of()):
        rows = tokens_of(packed(source))
        assert rows != wanted
        assert windows_of(rows) == windows_of(wanted)
    assert tokens_of(packed(pa.table({"tokens": pa.array([[], []], pa.list_(pa.int64()))}))) == []


# --- Memory -----------------------------------------------------------------------------------------------


def few_long_documents() -> pa.Table:
    sizes = np.random.default_rng(0).integers(0, 30_000, 100)
    offsets = np.cumsum([0, *sizes])
    tokens = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(np.arange(offsets[-1]), pa.int32())
    )
    return pa.table({"tokens": tokens})


@pytest.mark.parametrize("num_workers", [0, 4])
def test_the_window_bounds_its_account(num_workers: int) -> None:
    window = 2 << 20
    options: dict[str, Any] = {"transforms": {"tokens": ps.ops.pack(512)}, "_shuffle_window_rows": 0}
    with packed(few_long_documents(), shuffle_window=window, num_workers=num_workers, **options) as loader:
        assert 4 * loader.explain().to_dict()["shuffle_window_rows"] < 2500
        for _ in range(2):
            assert len(tokens_of(loader)) > 2500
        report = loader.memory()
        assert window / 4 < report["shuffle"]["peak_bytes"] <= window
        assert report["total"]["peak_bytes"] <= loader.explain().to_dict()["predicted_peak_bytes"]
        assert_within_budget(loader)
    assert current_bytes(loader) == {}


def test_the_least_budget_works(path: str) -> None:
    options: dict[str, Any] = {"_shuffle_window_rows": 0, "shuffle_window": "64KiB"}
    path += "/0.parquet"
    items = sum(len(document) for document in ALL[:300])
    least = packed(path, **options).explain().to_dict()["least_budget_bytes"]
    with packed(path, memory_budget=least, num_workers=4, **options) as loader:
        assert sorted(items_of(tokens_of(loader))) == list(range(items))
        assert_within_budget(loader)
    with pytest.raises(ValueError, match=rf"shuffle_window of 64.0 KiB.* {least} bytes"):
        packed(path, memory_budget=least - 1, **options)


@pytest.mark.parametrize("kind", ["files", "list", "large_list", "list_view"])
def test_little_data_takes_little_windows(path: str, kind: str) -> None:
    """Where the lists' items are known ahead no room is set aside for more; what is set aside is enough."""
    source: Any = path
    if kind != "files":
        make = {"list": pa.list_, "large_list": pa.large_list, "list_view": pa.list_view}[kind]
        tokens = pa.chunked_array(
            [pa.array([None, *some], make(pa.int32())) for some in (ALL[:500], ALL[500:])]
        )
        source = pa.table({"tokens": tokens}).slice(1)
    options: dict[str, Any] = {"nulls": "mask", "batch_size": 2}
    explanation = packed(source, _shuffle_window_rows=0, shuffle_window="1GiB", **options).explain().to_dict()
    assert explanation["shuffle_bytes"] < 64 << 20
    for window, epochs in itertools.product(
        (1, ASKED, ROWS // 2, ROWS - 1, ROWS, ROWS + 1, 10**6), (1, 2, 3)
    ):
        options.update(_shuffle_window_rows=window, epochs=epochs)
        least = packed(source, **options).explain().to_dict()["least_budget_bytes"]
        with packed(source, memory_budget=least, num_workers=window % 3, **options) as loader:
            rows = tokens_of(loader)
            assert len(rows) == -(-epochs * ITEMS // LENGTH)
            assert sorted(items_of(rows)) == sorted([*range(ITEMS)] * epochs)
            assert_within_budget(loader)


def test_what_is_not_known_ahead_has_room_for_whole_windows(tmp_path: Path) -> None:
    """Arrow files do not say how many items their lists have."""
    table = pa.table({"tokens": pa.array(ALL, pa.list_(pa.int32()))})
    with pa.ipc.new_file(tmp_path / "data.arrow", table.schema) as writer:
        writer.write_table(table)
    with packed(str(tmp_path / "data.arrow"), _shuffle_window_rows=0) as loader:
        assert loader.explain().to_dict()["shuffle_bytes"] > 200 << 20
        assert sorted(items_of(tokens_of(loader))) == list(range(ITEMS))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_who_breaks_off_leaves_nothing_behind(path: str, num_workers: int) -> None:
    with packed(path, num_workers=num_workers) as loader:
        for step, batch in enumerate(loader):
            assert len(batch["tokens"]) == 7
            if step == 3:
                break
        del batch
        assert sorted(items_of(tokens_of(loader))) == list(range(ITEMS))
        next(iter(loader))
    assert current_bytes(loader) == {}


# --- Errors -----------------------------------------------------------------------------------------------


def test_an_error_names_its_row_after_the_windows_before_it(tmp_path: Path) -> None:
    lists = [[1] * LENGTH] * 120 + [[1, 300]] + [[1] * LENGTH] * 10
    path = write_row_groups(tmp_path / "t.parquet", pa.table({"tokens": lists}), [len(lists)])
    chain = ps.ops.pack(LENGTH) | ps.ops.cast("int8")
    with packed(path, transforms={"tokens": chain}) as loader:
        batches = iter(loader)
        for _ in range(WINDOW // 7):
            assert next(batches)["tokens"].tolist() == [[1] * LENGTH] * 7
        with pytest.raises(ValueError, match="row group 0, column 'tokens': row 120: value 300 does not fit"):
            next(batches)
        with pytest.raises(ValueError, match="row 120"):
            list(loader)


def test_on_error_skip_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"on_error=\"skip\" does not go with ps\.ops\.pack"):
        packed(path, on_error="skip")
