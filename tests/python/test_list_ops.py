"""pad_list and list_length over whole loaders."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support import quiet_loader

LISTS = [[1, 2], [], [3, 4, 5], [6], [7, 8]] * 60


def padded(lists: list[list[int]], length: int, value: int = 0, side: str = "right") -> list[list[int]]:
    def pad(items: list[int]) -> list[int]:
        padding = [value] * (length - len(items))
        return items + padding if side == "right" else padding + items

    return [pad(items) for items in lists]


def column(loader: Any, name: str = "x") -> list[Any]:
    return [row for batch in loader for row in batch[name].tolist()]


LIST_TYPES = [pa.list_, pa.large_list, pa.list_view]
NUMBER_TYPES = [
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint16(),
    pa.uint32(),
    pa.uint64(),
    pa.float16(),
    pa.float32(),
    pa.float64(),
]


@pytest.mark.parametrize("item", NUMBER_TYPES, ids=str)
@pytest.mark.parametrize("make", LIST_TYPES, ids=lambda make: make.__name__)
def test_lists_of_every_number_type_become_tensors(write_parquet: Any, make: Any, item: pa.DataType) -> None:
    lists = [[np.float16(i) for i in row] for row in LISTS] if item == pa.float16() else LISTS
    path = write_parquet({"x": pa.array(lists, make(item))}, row_group_size=70)
    loader = ps.Loader(path, transforms={"x": ps.ops.pad_list(3)}, format="numpy", batch_size=64)
    assert loader.schema["x"].shape == (3,)
    assert loader.schema["x"].dtype == np.dtype(item.to_pandas_dtype()).name
    assert column(loader) == padded(LISTS, 3)


@pytest.mark.parametrize("num_workers", [0, 1, 4])
@pytest.mark.parametrize("filter", [None, pc.field("n") >= 0])
def test_the_rows_are_the_same_however_many_workers(
    write_parquet: Any, num_workers: int, filter: Any
) -> None:
    path = write_parquet({"x": LISTS, "n": list(range(len(LISTS)))}, row_group_size=17)
    loader = quiet_loader(
        path,
        columns=["x"],
        transforms={"x": ps.ops.pad_list(4, value=-1, side="left")},
        num_workers=num_workers,
        batch_size=32,
        filter=filter,
    )
    assert column(loader) == padded(LISTS, 4, -1, "left")


@pytest.mark.parametrize(("truncate", "begin", "end"), [(True, 0, 2), ("right", 0, 2), ("left", -2, None)])
def test_longer_lists_are_cut_at_the_end_asked_for(
    write_parquet: Any, truncate: Any, begin: int, end: int | None
) -> None:
    path = write_parquet({"x": LISTS})
    loader = quiet_loader(path, transforms={"x": ps.ops.pad_list(2, truncate=truncate)})
    assert column(loader) == padded([items[begin:end] for items in LISTS], 2)


def test_a_longer_list_is_an_error_that_names_row_length_and_remedy(write_parquet: Any) -> None:
    path = write_parquet({"x": [[1]] * 25 + [[1, 2, 3]]}, row_group_size=20)
    loader = quiet_loader(path, transforms={"x": ps.ops.pad_list(2)}, batch_size=10)
    with pytest.raises(
        ValueError, match=r"row group 1, column 'x': row 5: a list of 3 items .*truncate=True"
    ):
        list(loader)


def test_the_row_of_an_error_is_right_behind_a_filter(write_parquet: Any) -> None:
    path = write_parquet({"x": [[1]] * 25 + [[1, 2, 3]], "n": list(range(26))})
    loader = quiet_loader(path, transforms={"x": ps.ops.pad_list(2)}, filter=pc.field("n") > 20)
    with pytest.raises(ValueError, match=r"column 'x': row 25: a list of 3 items"):
        list(loader)


def test_ops_around_it_run_on_items_and_lengths_come_beside(write_parquet: Any) -> None:
    path = write_parquet({"x": LISTS})
    loader = quiet_loader(
        path,
        transforms={
            "x": ps.ops.clip(upper=5) | ps.ops.pad_list(3, value=9) | ps.ops.scale(1, 2),
            "length": ps.col("x") | ps.ops.list_length() | ps.ops.cast("int32"),
        },
    )
    (batch,) = loader
    expected = [[(min(i, 5) - 1) / 2 for i in items] + [4.0] * (3 - len(items)) for items in LISTS]
    assert batch["x"].tolist() == expected
    assert batch["length"].dtype == np.int32
    assert batch["length"].tolist() == [len(items) for items in LISTS]


def test_lists_of_strings_through_hash_and_lookup(write_parquet: Any) -> None:
    words = [["a", "b"], [], ["zz"]]
    path = write_parquet({"x": words})
    loader = quiet_loader(
        path,
        transforms={
            "x": ps.ops.lookup(["a", "b"], missing=2) | ps.ops.pad_list(2, value=-1),
            "hash": ps.col("x") | ps.ops.hash_bucket(10) | ps.ops.pad_list(2, value=-1),
        },
    )
    (batch,) = loader
    assert batch["x"].tolist() == [[0, 1], [-1, -1], [2, -1]]
    assert batch["hash"][1].tolist() == [-1, -1]
    assert 0 <= batch["hash"][2][0] < 10
    with pytest.raises(TypeError, match=r"put ps\.ops\.hash_bucket or ps\.ops\.lookup in front"):
        quiet_loader(path, transforms={"x": ps.ops.pad_list(2)})


WITH_NULLS = [[1, None], None, [2], []]


def test_missing_lists_and_items_follow_the_null_policy(write_parquet: Any) -> None:
    path = write_parquet({"x": WITH_NULLS})
    pad = ps.ops.pad_list(2)
    with pytest.raises(ValueError, match="column 'x': row 0 is null"):
        list(quiet_loader(path, transforms={"x": pad}))
    (batch,) = quiet_loader(path, transforms={"x": pad}, nulls="mask")
    assert batch["x"].tolist() == [[1, 0], [0, 0], [2, 0], [0, 0]]
    assert batch["x_mask"].tolist() == [[False, True], [True, True], [False, False], [False, False]]
    filled = [[1, 9], [9, 9], [2, 0], [0, 0]]
    assert column(quiet_loader(path, transforms={"x": pad}, nulls={"x": 9})) == filled
    assert column(quiet_loader(path, transforms={"x": pad | ps.ops.fill_null(9)})) == filled
    assert column(quiet_loader(path, transforms={"x": ps.ops.fill_null(9) | pad})) == filled
    length = {"n": ps.col("x") | ps.ops.list_length()}
    (batch,) = quiet_loader(path, columns=[], transforms=length, nulls="mask")
    assert (batch["n"].tolist(), batch["n_mask"].tolist()) == ([2, 0, 1, 0], [False, True, False, False])


def test_in_arrow_it_is_a_fixed_size_list(write_parquet: Any) -> None:
    path = write_parquet({"x": WITH_NULLS})
    (batch,) = ps.Loader(path, transforms={"x": ps.ops.pad_list(2)}, format="arrow")
    batch.validate(full=True)
    assert batch.schema.field("x").type == pa.list_(pa.int64(), 2)
    assert batch["x"].to_pylist() == [[1, None], [None, None], [2, 0], [0, 0]]


def test_torch_gets_tensors(write_parquet: Any) -> None:
    torch = pytest.importorskip("torch")
    loader = ps.Loader(write_parquet({"x": LISTS}), transforms={"x": ps.ops.pad_list(3)}, batch_size=300)
    (batch,) = loader
    assert torch.equal(batch["x"], torch.tensor(padded(LISTS, 3)))


@pytest.mark.parametrize(
    "op",
    [
        ps.ops.pad_list(5),
        ps.ops.pad_list(5, value=-1.5, truncate="left", side="left"),
        ps.ops.list_length(),
    ],
    ids=repr,
)
def test_they_are_equal_and_hash_alike_after_pickling(op: ps.ops.Op) -> None:
    copy = pickle.loads(pickle.dumps(op))
    assert copy == op
    assert hash(copy) == hash(op)


def test_true_means_right() -> None:
    assert ps.ops.pad_list(5, truncate=True) == ps.ops.pad_list(5, truncate="right")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ps.ops.pad_list(0), ValueError, "at least 1"),
        (lambda: ps.ops.pad_list(2**31), ValueError, "at most"),
        (lambda: ps.ops.pad_list(True), TypeError, "int"),
        (lambda: ps.ops.pad_list(2, value="x"), TypeError, "number"),
        (lambda: ps.ops.pad_list(2, value=None), TypeError, "NoneType"),
        (lambda: ps.ops.pad_list(2, truncate="middle"), ValueError, "truncate"),
        (lambda: ps.ops.pad_list(2, side="both"), ValueError, "side"),
    ],
)
def test_wrong_arguments_are_refused_at_once(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_columns_that_are_no_lists_are_refused(numbers: str) -> None:
    for op in (ps.ops.pad_list(2), ps.ops.list_length()):
        with pytest.raises(TypeError, match=r"column 'x': \w+ takes a column of lists, not int64"):
            quiet_loader(numbers, transforms={"x": op})
