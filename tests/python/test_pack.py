"""ps.ops.pack: rows are runs of items of consecutive lists."""

from __future__ import annotations

import json
import pickle
import warnings
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support import assert_within_budget, current_bytes, quiet_loader

DOCUMENTS = [[1, 2, 3, 4, 5], [], [6], [7, 8, 9, 10, 11, 12, 13, 14, 15], [16, 17]]
PACKED = {"tokens": ps.ops.pack(4)}


def positions_of(lengths: list[int], length: int) -> list[int]:
    """Of all items: positions in segments, which begin with documents and with rows."""
    starts = [start for size in lengths for start in range(size)]
    return [min(start, item % length) for item, start in enumerate(starts)]


def expected(documents: list[list[int]], length: int, value: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All rows, and all positions: by hand."""
    items = [item for document in documents for item in document]
    missing = -len(items) % length
    positions = positions_of([len(document) for document in documents], length)
    return (
        np.array(items + [value] * missing).reshape(-1, length),
        np.array(positions + list(range(missing))).reshape(-1, length),
    )


def segment_offsets(positions: np.ndarray) -> list[int]:
    return [*np.flatnonzero(positions.ravel() == 0).tolist(), positions.size]


def rows_and_positions(batches: Any, name: str = "tokens") -> tuple[list[Any], list[Any]]:
    """What all batches have; checks that each batch's offsets go with its positions."""
    rows, positions = [], []
    for batch in batches:
        rows += batch[name].tolist()
        positions += batch[f"{name}_positions"].tolist()
        assert batch[f"{name}_offsets"].dtype == np.int32
        assert batch[f"{name}_offsets"].tolist() == segment_offsets(batch[f"{name}_positions"])
    return rows, positions


def test_rows_positions_and_offsets(write_parquet: Any) -> None:
    path = write_parquet({"tokens": DOCUMENTS}, row_group_size=2)
    batches = list(quiet_loader(path, transforms=PACKED, batch_size=3))
    assert [batch["tokens"].tolist() for batch in batches] == [
        [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]],
        [[13, 14, 15, 16], [17, 0, 0, 0]],
    ]
    assert [batch["tokens_positions"].tolist() for batch in batches] == [
        [[0, 1, 2, 3], [0, 0, 0, 1], [0, 1, 2, 3]],
        [[0, 1, 2, 0], [0, 0, 1, 2]],
    ]
    assert [batch["tokens_offsets"].tolist() for batch in batches] == [[0, 4, 5, 6, 8, 12], [0, 3, 4, 5, 8]]
    assert list(batches[0]) == ["tokens", "tokens_offsets", "tokens_positions"]


def test_the_schema_says_what_comes(write_parquet: Any) -> None:
    loader = quiet_loader(write_parquet({"tokens": DOCUMENTS}), transforms=PACKED)
    assert loader.schema["tokens"].shape == (4,)
    assert loader.schema["tokens"].arrays == ("tokens", "tokens_offsets")
    assert (loader.schema["tokens_positions"].dtype, loader.schema["tokens_positions"].shape) == (
        "int32",
        (4,),
    )


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view])
@pytest.mark.parametrize("item", [pa.int8(), pa.uint16(), pa.float32(), pa.int64(), pa.bool_()], ids=str)
def test_every_layout_of_lists(make: Any, item: pa.DataType) -> None:
    convert = bool if item == pa.bool_() else int
    documents = [[convert(i % 2) for i in document] for document in DOCUMENTS]
    table = pa.table({"tokens": pa.array(documents, make(item))})
    rows, _ = rows_and_positions(quiet_loader(table, transforms=PACKED))
    assert rows == expected(documents, 4)[0].tolist()


def test_lists_that_are_not_in_order_in_their_buffer() -> None:
    views = pa.ListViewArray.from_arrays(
        pa.array([3, 0, 1], pa.int32()),
        pa.array([2, 2, 3], pa.int32()),
        pa.array([10, 11, 12, 13, 14], pa.int64()),
    )
    rows, _ = rows_and_positions(
        quiet_loader(pa.table({"tokens": views}), transforms={"tokens": ps.ops.pack(7)})
    )
    assert rows == [[13, 14, 10, 11, 11, 12, 13]]


def test_several_columns_are_packed_alike_each_with_its_padding(write_parquet: Any) -> None:
    labels = [[-item for item in document] for document in DOCUMENTS]
    path = write_parquet({"tokens": DOCUMENTS, "labels": labels})
    transforms = {"tokens": ps.ops.pack(10, value=1), "labels": ps.ops.pack(10, value=-100)}
    (batch,) = quiet_loader(path, transforms=transforms)
    assert batch["tokens"].tolist() == expected(DOCUMENTS, 10, 1)[0].tolist()
    assert batch["labels"].tolist() == expected(labels, 10, -100)[0].tolist()
    assert sorted(batch) == ["labels", "tokens", "tokens_offsets", "tokens_positions"]


def test_lists_of_other_lengths_are_an_error_that_names_the_row(write_parquet: Any) -> None:
    path = write_parquet({"tokens": [[1, 2]] * 5, "labels": [[1, 2]] * 4 + [[1]]}, row_group_size=3)
    loader = quiet_loader(path, transforms={"tokens": ps.ops.pack(2), "labels": ps.ops.pack(2)}, batch_size=1)
    message = r"row group 1, column 'labels': row 1: a list of 1 items where 'tokens' has 2.*columns="
    with pytest.raises(ValueError, match=message):
        list(loader)


def test_other_columns_are_refused_with_the_remedy(write_parquet: Any) -> None:
    path = write_parquet({"id": [1, 2], "tokens": [[1], [2]]})
    with pytest.raises(ValueError, match=r"column 'id' is not packed.*columns=.*ps\.ops\.pack\(4\)"):
        quiet_loader(path, transforms=PACKED)
    with pytest.raises(ValueError, match="is not packed"):
        quiet_loader(path, columns=["tokens", ps.ROW_ID], transforms=PACKED)
    with pytest.raises(TypeError, match="pack takes a column of lists, not int64"):
        quiet_loader(path, columns=["id"], transforms={"id": ps.ops.pack(4)})
    two = {"tokens": ps.ops.pack(4), "more": ps.col("tokens") | ps.ops.pack(5)}
    with pytest.raises(ValueError, match="all columns are packed to one length"):
        quiet_loader(path, columns=["tokens"], transforms=two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 2, "epochs": 2}, "one epoch at a time"),
        ({"batch_size": 2**30}, "more than 2\\^31 - 1 items"),
    ],
)
def test_what_does_not_go_together_says_so(write_parquet: Any, options: dict[str, Any], message: str) -> None:
    path = write_parquet({"tokens": DOCUMENTS, "n": list(range(len(DOCUMENTS)))})
    with pytest.raises(ValueError, match=message):
        quiet_loader(path, columns=["tokens"], transforms=PACKED, **options)


@pytest.mark.parametrize("other", [ps.ops.pad_list(3), ps.ops.list_length(), ps.ops.pack(3)])
def test_one_op_on_lists_in_a_chain(write_parquet: Any, other: ps.ops.Op) -> None:
    path = write_parquet({"tokens": DOCUMENTS})
    with pytest.raises(ValueError, match="pack"):
        quiet_loader(path, transforms={"tokens": [other, ps.ops.pack(3)]})


def test_ops_run_on_items_and_padding_goes_through_those_behind(write_parquet: Any) -> None:
    path = write_parquet({"tokens": DOCUMENTS})
    chain = ps.ops.clip(upper=10) | ps.ops.pack(4, value=100) | ps.ops.cast("float32")
    rows, _ = rows_and_positions(quiet_loader(path, transforms={"tokens": chain}))
    clipped = [[min(item, 10) for item in document] for document in DOCUMENTS]
    assert rows == expected(clipped, 4, 100)[0].tolist()
    words = write_parquet({"tokens": [["a", "b"], ["c"]]})
    chain = ps.ops.lookup(["a", "b", "c"]) | ps.ops.pack(2, value=-1)
    rows, _ = rows_and_positions(quiet_loader(words, transforms={"tokens": chain}))
    assert rows == [[0, 1], [2, -1]]
    with pytest.raises(TypeError, match=r"pack: the items are strings.*ps\.ops\.lookup"):
        quiet_loader(words, transforms=PACKED)


def test_items_that_do_not_convert_are_named_by_their_row(write_parquet: Any) -> None:
    path = write_parquet({"tokens": [[1] * 50] * 7 + [[1, 300]] + [[1]] * 5}, row_group_size=6)
    loader = quiet_loader(path, transforms={"tokens": ps.ops.pack(8) | ps.ops.cast("int8")})
    with pytest.raises(ValueError, match=r"row group 1, column 'tokens': row 1: value 300 does not fit int8"):
        list(loader)


WITH_NULLS = [[1, None], None, [2], []]


def test_missing_lists_and_items_follow_the_null_policy(write_parquet: Any) -> None:
    pack = {"tokens": ps.ops.pack(2)}
    with pytest.raises(ValueError, match="column 'tokens': row 0 is null"):
        list(quiet_loader(write_parquet({"tokens": WITH_NULLS[:1]}), transforms=pack))
    path = write_parquet({"tokens": WITH_NULLS})
    with pytest.raises(ValueError, match="column 'tokens': row 1 is null"):
        list(quiet_loader(path, transforms=pack))
    (batch,) = quiet_loader(path, transforms=pack, nulls="mask")
    assert batch["tokens"].tolist() == [[1, 0], [2, 0]]
    assert batch["tokens_mask"].tolist() == [[False, True], [False, False]]
    for options in (
        {"nulls": {"tokens": 9}},
        {"transforms": {"tokens": ps.ops.pack(2) | ps.ops.fill_null(9)}},
    ):
        (batch,) = quiet_loader(path, **{"transforms": pack, **options})
        assert batch["tokens"].tolist() == [[1, 9], [2, 0]]


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, pa.list_view])
@pytest.mark.parametrize("item", [pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.bool_()], ids=str)
def test_lists_as_they_are_are_filled(make: Any, item: pa.DataType) -> None:
    """nulls= fills items, and missing lists have none, packed or not."""
    convert: Any = {pa.bool_(): bool, pa.float16(): np.float16}.get(item, int)
    lists = [[convert(1), None, convert(0)], None, [], [None]]
    table = pa.table({"x": pa.array(lists, make(item))})
    (batch,) = quiet_loader(table, nulls={"x": 1})
    assert batch["x"].tolist() == [1, 1, 0, 1]
    assert batch["x_offsets"].tolist() == [0, 3, 3, 3, 4]
    assert sorted(batch) == ["x", "x_offsets"]
    (batch,) = quiet_loader(table, nulls={"x": 1}, format="arrow")
    batch.validate(full=True)
    assert batch["x"].to_pylist() == [[1, 1, 0], [], [], [1]]


def test_what_does_not_fit_is_not_filled_in() -> None:
    bytes_ = pa.array([[1, None]], pa.list_(pa.int8()))
    table = pa.table({"x": bytes_, "d": pa.array([[None]], pa.list_(pa.date32()))})
    with pytest.raises(ValueError, match=r"column 'x': .*300"):
        quiet_loader(table, columns=["x"], nulls={"x": 300})
    with pytest.raises(TypeError, match=r"column 'd': .*use nulls="):
        quiet_loader(table, columns=["d"], nulls={"d": 1})


def test_arrow_has_positions_and_no_offsets(write_parquet: Any) -> None:
    (batch,) = quiet_loader(
        write_parquet({"tokens": WITH_NULLS}), transforms={"tokens": ps.ops.pack(2)}, format="arrow"
    )
    batch.validate(full=True)
    assert batch.schema.names == ["tokens", "tokens_positions"]
    assert batch["tokens"].type == pa.list_(pa.int64(), 2)
    assert batch["tokens"].to_pylist() == [[1, None], [2, 0]]
    assert batch["tokens_positions"].to_pylist() == [[0, 1], [0, 0]]


def test_pandas_and_torch(write_parquet: Any) -> None:
    torch = pytest.importorskip("torch")
    path = write_parquet({"tokens": DOCUMENTS})
    (frame,) = quiet_loader(path, transforms=PACKED, format="pandas")
    assert [list(row) for row in frame["tokens"]] == expected(DOCUMENTS, 4)[0].tolist()
    (batch,) = ps.Loader(path, transforms=PACKED)
    assert torch.equal(batch["tokens"], torch.tensor(expected(DOCUMENTS, 4)[0]))
    assert batch["tokens_offsets"].dtype == torch.int32


@pytest.mark.parametrize(("drop_last", "rows"), [(False, 5), (True, 4)])
def test_drop_last_leaves_out_what_would_be_padded(write_parquet: Any, drop_last: bool, rows: int) -> None:
    loader = quiet_loader(
        write_parquet({"tokens": DOCUMENTS}), transforms=PACKED, batch_size=2, drop_last=drop_last
    )
    assert len(rows_and_positions(loader)[0]) == rows
    assert loader.stats().to_dict()["rows"] == rows


def test_limit_counts_rows_that_come_out(write_parquet: Any) -> None:
    loader = quiet_loader(write_parquet({"tokens": DOCUMENTS}), transforms=PACKED, batch_size=2, limit=3)
    assert rows_and_positions(loader)[0] == expected(DOCUMENTS, 4)[0][:3].tolist()


def test_len_is_not_known_and_explain_says_discovered(write_parquet: Any) -> None:
    loader = quiet_loader(write_parquet({"tokens": DOCUMENTS}), transforms=PACKED)
    with pytest.raises(TypeError, match=r'ps\.ops\.pack .*; balance="rows" counts their items first'):
        len(loader)
    explanation = loader.explain().to_dict()
    assert explanation["plan"] == "discovered"
    assert "tokens_positions" in str(loader.explain())


def test_no_documents_no_batches(write_parquet: Any) -> None:
    tokens = pa.array([[], [], []], pa.list_(pa.int32()))
    assert list(quiet_loader(write_parquet({"tokens": tokens}), transforms=PACKED)) == []


def test_epochs_are_packed_end_to_end(write_parquet: Any) -> None:
    loader = quiet_loader(write_parquet({"tokens": DOCUMENTS}, row_group_size=2), transforms=PACKED, epochs=3)
    rows, positions = rows_and_positions(loader)
    all_rows, all_positions = expected(DOCUMENTS * 3, 4)
    assert (rows, positions) == (all_rows.tolist(), all_positions.tolist())


def test_a_filter_and_a_part_choose_documents(write_parquet: Any) -> None:
    path = write_parquet({"tokens": DOCUMENTS * 20, "n": list(range(100))}, row_group_size=7)
    kept = [DOCUMENTS[n % 5] for n in range(100) if n % 3 == 0]
    third = pc.equal(pc.subtract(pc.field("n"), pc.multiply(pc.divide(pc.field("n"), 3), 3)), 0)
    rows, positions = rows_and_positions(
        quiet_loader(path, columns=["tokens"], transforms=PACKED, filter=third, batch_size=5)
    )
    assert (rows, positions) == tuple(each.tolist() for each in expected(kept, 4))
    part = ps.split(path, [0.5, 0.5], seed=1)[0]
    lists = quiet_loader(part, columns=["tokens"], format="arrow", batch_size=100)
    chosen = [document for batch in lists for document in batch["tokens"].to_pylist()]
    rows, _ = rows_and_positions(quiet_loader(part, columns=["tokens"], transforms=PACKED))
    assert rows == expected(chosen, 4)[0].tolist()


def test_ranks_pack_their_own_documents(write_parquet: Any) -> None:
    path = write_parquet({"tokens": DOCUMENTS * 3}, row_group_size=4)
    for rank in range(3):
        rows, _ = rows_and_positions(quiet_loader(path, transforms=PACKED, rank=rank, world_size=3))
        assert rows == expected((DOCUMENTS * 3)[rank * 5 : rank * 5 + 5], 4)[0].tolist()
    with pytest.warns(RuntimeWarning, match=r"ps\.ops\.pack the ranks divide the documents"):
        ps.Loader(path, transforms=PACKED, rank=0, world_size=3, num_workers=0)


def stream_of(documents: list[list[int]]) -> Any:
    for begin in range(0, len(documents), 3):
        yield pa.table({"tokens": pa.array(documents[begin : begin + 3], pa.list_(pa.int64()))})


def test_other_sources(tmp_path: Any) -> None:
    table = pa.table({"tokens": DOCUMENTS})
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    for source in (table, str(tmp_path / "t.arrow"), stream_of(DOCUMENTS)):
        rows, positions = rows_and_positions(quiet_loader(source, transforms=PACKED, batch_size=2))
        assert (rows, positions) == tuple(each.tolist() for each in expected(DOCUMENTS, 4))


@pytest.mark.parametrize("num_workers", [0, 3])
def test_it_stays_within_a_small_budget_and_gives_everything_back(tmp_path: Any, num_workers: int) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 3000, 800)
    documents = [rng.integers(0, 1000, size) for size in sizes]
    table = pa.table({"tokens": pa.array(documents, pa.list_(pa.int32()))})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        loader = ps.Loader(
            tmp_path / "t.parquet",
            transforms={"tokens": ps.ops.pack(1024)},
            batch_size=8,
            num_workers=num_workers,
            memory_budget="8MiB",
            format="numpy",
        )
    rows = [row for batch in loader for row in batch["tokens"].copy()]
    np.testing.assert_array_equal(np.concatenate(rows)[: sizes.sum()], np.concatenate(documents))
    assert_within_budget(loader)
    least = loader.explain().to_dict()["least_budget_bytes"]
    assert least <= 8 << 20
    loader.close()
    assert current_bytes(loader) == {}


def test_a_state_goes_on_within_a_document(write_parquet: Any) -> None:
    path = write_parquet({"tokens": DOCUMENTS * 4}, row_group_size=3)

    def make(**options: Any) -> ps.Loader:
        return quiet_loader(path, transforms=PACKED, batch_size=2, **options)

    whole = [batch["tokens"].tolist() for batch in make()]
    for steps in range(len(whole) + 1):
        loader = make(num_workers=2)
        batches = iter(loader)
        for _ in range(steps):
            next(batches)
        state = json.loads(json.dumps(loader.state_dict()))
        again = make()
        again.load_state_dict(state)
        assert again.state_dict()["given_items"] == state["given_items"]
        assert again.state_dict()["history"] == state["history"]
        assert [batch["tokens"].tolist() for batch in again] == whole[steps:]
    with pytest.raises(ValueError, match="as many ranks as there were"):
        make(rank=0, world_size=2).load_state_dict(state)
    with pytest.raises(ValueError, match="columns"):
        quiet_loader(path, transforms={"tokens": ps.ops.pack(5)}, batch_size=2).load_state_dict(state)
    with pytest.raises(ValueError, match="in_order=False there is no state"):
        make(in_order=False).state_dict()


@pytest.mark.parametrize("op", [ps.ops.pack(5), ps.ops.pack(5, value=-1.5)], ids=repr)
def test_they_are_equal_and_hash_alike_after_pickling(op: ps.ops.Op) -> None:
    copy = pickle.loads(pickle.dumps(op))
    assert (copy, hash(copy)) == (op, hash(op))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ps.ops.pack(0), ValueError, "at least 1"),
        (lambda: ps.ops.pack(2**31), ValueError, "at most"),
        (lambda: ps.ops.pack(True), TypeError, "int"),
        (lambda: ps.ops.pack(2, value="x"), TypeError, "number"),
    ],
)
def test_wrong_arguments_are_refused_at_once(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()
