"""The table of types in docs/formats.md, line by line: each Arrow type in each format, with and without
missing values."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

# What a line of the table says of tensors: a dtype ("int32"), a shape too ("float32[2]"), flat values and
# offsets ("lists of float32"), an Arrow array ("arrow"), its fields ("fields"), or an error ("error").


@dataclass(frozen=True)
class Line:
    type: pa.DataType
    values: Sequence[Any]
    tensor: str
    arrow: pa.DataType | None = None  # Where it is not the same.
    numbers: Sequence[Any] | None = None  # Tensor values where they are not `values`.
    pandas: str | None = None  # The dtype where it is not Arrow's.

    @property
    def out(self) -> pa.DataType:
        return self.arrow or self.type


def number(name: str, values: Sequence[Any] = (1, 2, 0)) -> Line:
    return Line(getattr(pa, name)(), values, name)


WHEN = dt.datetime(2024, 5, 6, 7, 8, 9)
LARGE_LIST = pa.large_list(pa.field("item", pa.int32()))
PAIR = pa.struct([("a", pa.int32()), ("b", pa.string())])

LINES = {
    **{
        name: number(name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    **{name: number(name, (0.5, -2.0, 0.0)) for name in ("float16", "float32", "float64")},
    "bool": Line(pa.bool_(), (True, False, True), "bool"),
    "decimal128": Line(
        pa.decimal128(9, 2), (Decimal("1.25"), Decimal("-3.50")), "float64", numbers=(1.25, -3.5)
    ),
    "decimal256": Line(
        pa.decimal256(50, 2), (Decimal("1.25"), Decimal("-3.50")), "float64", numbers=(1.25, -3.5)
    ),
    "date32": Line(pa.date32(), (dt.date(1970, 1, 3), dt.date(2000, 1, 1)), "int32", numbers=(2, 10957)),
    # Parquet has days alone.
    "date64": Line(
        pa.date64(),
        (dt.date(1970, 1, 3), dt.date(2000, 1, 1)),
        "int32",
        arrow=pa.date32(),
        numbers=(2, 10957),
    ),
    "time32": Line(pa.time32("ms"), (dt.time(0, 0, 1), dt.time(1)), "int32", numbers=(1000, 3600000)),
    "time64": Line(pa.time64("us"), (dt.time(0, 0, 1), dt.time(1)), "int64", numbers=(1000000, 3600000000)),
    "timestamp": Line(pa.timestamp("us"), (WHEN,), "int64", numbers=(1714979289000000,)),
    "duration": Line(pa.duration("ms"), (dt.timedelta(seconds=3),), "int64", numbers=(3000,)),
    "dictionary": Line(
        pa.dictionary(pa.int32(), pa.string()), ("b", "a", "b"), "int32", numbers=(0, 1, 0), pandas="category"
    ),
    "fixed_size_list": Line(pa.list_(pa.float32(), 2), ([1.0, 2.0], [3.0, 4.0]), "float32[2]"),
    "string": Line(pa.string(), ("a", "", "été"), "arrow", pa.large_string(), pandas="str"),
    "large_string": Line(pa.large_string(), ("a", "", "été"), "arrow", pandas="str"),
    "string_view": Line(
        pa.string_view(), ("a", "", "a long one, not inline"), "arrow", pa.large_string(), pandas="str"
    ),
    "binary": Line(pa.binary(), (b"a", b"", b"\xff"), "arrow", pa.large_binary()),
    "large_binary": Line(pa.large_binary(), (b"a", b"", b"\xff"), "arrow"),
    "binary_view": Line(pa.binary_view(), (b"a", b"", b"a long one, not inline"), "arrow", pa.large_binary()),
    "fixed_size_binary": Line(pa.binary(3), (b"abc", b"def"), "arrow"),
    "list": Line(pa.list_(pa.int32()), ([1, 2], [], [3]), "lists of int32", LARGE_LIST),
    "large_list": Line(LARGE_LIST, ([1, 2], [], [3]), "lists of int32"),
    "list of strings": Line(
        pa.list_(pa.string()),
        (["a", ""], [], ["b"]),
        "arrow",
        pa.large_list(pa.field("item", pa.large_string())),
    ),
    "list of structs": Line(
        pa.list_(PAIR),
        ([{"a": 1, "b": "x"}], []),
        "fields",
        pa.large_list(pa.field("item", pa.struct([("a", pa.int32()), ("b", pa.large_string())]))),
    ),
    "struct": Line(
        PAIR,
        ({"a": 1, "b": "x"}, {"a": 2, "b": ""}),
        "fields",
        pa.struct([("a", pa.int32()), ("b", pa.large_string())]),
    ),
    "map": Line(
        pa.map_(pa.string(), pa.int32()),
        ([("a", 1)], [], [("b", 2), ("c", 3)]),
        "error",
        pa.map_(pa.large_string(), pa.int32()),
    ),
    "null": Line(pa.null(), (), "float32"),
    "uuid": Line(pa.uuid(), (b"0123456789abcdef",), "arrow"),
}


def source(line: Line, tmp_path: Any, *, with_nulls: bool) -> str:
    values = [*line.values, None, *line.values] if with_nulls else list(line.values)
    column = (
        pa.array(values, line.type)
        if not isinstance(line.type, pa.BaseExtensionType)
        else pa.ExtensionArray.from_storage(line.type, pa.array(values, line.type.storage_type))
    )
    nullable = with_nulls or pa.types.is_null(line.type)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table([column], schema=pa.schema([pa.field("x", line.type, nullable)])), path)
    return str(path)


def only_batch(path: str, **options: Any) -> Any:
    with ps.Loader(path, batch_size=100, num_workers=0, **options) as loader:
        (batch,) = list(loader)
    return batch


def plain(values: Any) -> Any:
    """As nested lists of Python values."""
    if isinstance(values, pa.Array):
        values = values.storage if isinstance(values, pa.ExtensionArray) else values
        return values.to_pylist()
    return values.tolist()


def storage(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


lines = pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
nulls = pytest.mark.parametrize("with_nulls", [False, True], ids=["full", "nulls"])


@lines
@nulls
def test_arrow_carries_everything(line: Line, with_nulls: bool, tmp_path: Any) -> None:
    path = source(line, tmp_path, with_nulls=with_nulls)
    if pa.types.is_null(line.type) and not with_nulls:
        return
    batch = only_batch(path, format="arrow")
    assert batch.schema.field("x").type == line.out
    want = [*line.values, None, *line.values] if with_nulls else list(line.values)
    assert plain(batch["x"]) == want
    batch.validate(full=True)


@lines
@nulls
def test_pandas_carries_everything(line: Line, with_nulls: bool, tmp_path: Any) -> None:
    pytest.importorskip("pandas")
    path = source(line, tmp_path, with_nulls=with_nulls)
    if pa.types.is_null(line.type) and not with_nulls:
        return
    frame = only_batch(path, format="pandas")
    series = frame["x"]
    want = [*line.values, None, *line.values] if with_nulls else list(line.values)
    is_number = (
        pa.types.is_integer(line.type) or pa.types.is_floating(line.type) or pa.types.is_boolean(line.type)
    )
    if line.pandas is not None:
        assert str(series.dtype) == line.pandas
    elif is_number and not with_nulls:
        assert series.dtype == np.dtype(line.type.to_pandas_dtype())
    else:
        inner = line.out.storage_type if isinstance(line.out, pa.BaseExtensionType) else line.out
        assert series.dtype.pyarrow_dtype == inner
    assert [
        None if value is None else value for value in pa.array(series, from_pandas=True).to_pylist()
    ] == want


@lines
@nulls
def test_tensors(line: Line, with_nulls: bool, tensor_format: str, tmp_path: Any) -> None:
    path = source(line, tmp_path, with_nulls=with_nulls)
    if pa.types.is_null(line.type) and not with_nulls:
        return
    policy = "mask" if with_nulls else "error"
    if line.tensor == "error":
        with pytest.raises(TypeError, match=r"column 'x'.*format=\"arrow\""):
            ps.Loader(path, format=tensor_format, nulls=policy)
        return
    batch = only_batch(path, format=tensor_format, nulls=policy)
    values = list(line.numbers if line.numbers is not None else line.values)
    rows = [*values, None, *values] if with_nulls else values
    missing = [value is None for value in rows]
    if line.tensor == "fields":
        assert next(iter(batch)) == "x.a"
        assert "x" not in batch
        return
    if line.tensor == "arrow":
        assert storage(batch["x"]).type == (
            line.out.storage_type if isinstance(line.out, pa.BaseExtensionType) else line.out
        )
        assert plain(batch["x"]) == rows
        return
    if line.tensor.startswith("lists of "):
        flat = [item for row in rows for item in (row or [])]
        assert plain(batch["x"]) == flat
        offsets = np.cumsum([0, *(len(row or []) for row in rows)])
        assert plain(batch["x_offsets"]) == offsets.tolist()
        assert str(batch["x"].dtype).removeprefix("torch.") == line.tensor.removeprefix("lists of ")
    else:
        assert str(batch["x"].dtype).removeprefix("torch.") == line.tensor.partition("[")[0]
        got = plain(batch["x"])
        assert [value for value, gone in zip(got, missing, strict=True) if not gone] == [
            v for v in rows if v is not None
        ]
    if with_nulls:
        mask = np.asarray(plain(batch["x_mask"]))
        assert mask.reshape(len(rows), -1).all(axis=1).tolist() == missing
    else:
        assert "x_mask" not in batch


@pytest.mark.parametrize(
    "line", [line for line in LINES.values() if line.values], ids=[n for n, v in LINES.items() if v.values]
)
def test_a_missing_value_is_an_error_that_names_it(line: Line, tensor_format: str, tmp_path: Any) -> None:
    """nulls="error": the column and the row."""
    if line.tensor == "error":
        pytest.skip("has no tensor form")
    path = source(line, tmp_path, with_nulls=True)
    with pytest.raises(ValueError, match=rf"column 'x.*row {len(line.values)}\b"):
        only_batch(path, format=tensor_format)


# --- Lists ------------------------------------------------------------------------------------------------


def write(tmp_path: Any, **columns: pa.Array) -> str:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_lists_within_lists_have_offsets_per_level(tensor_format: str, tmp_path: Any) -> None:
    path = write(tmp_path, x=pa.array([[[1], [2, 3]], [], [[], [4]]], pa.list_(pa.list_(pa.int64()))))
    batch = only_batch(path, format=tensor_format)
    assert list(batch) == ["x", "x_offsets", "x_offsets_1"]
    assert plain(batch["x"]) == [1, 2, 3, 4]
    assert plain(batch["x_offsets"]) == [0, 2, 2, 4]
    assert plain(batch["x_offsets_1"]) == [0, 1, 3, 3, 4]


def test_missing_lists_and_items_have_masks_of_their_own(tensor_format: str, tmp_path: Any) -> None:
    path = write(tmp_path, x=pa.array([[1, None], None, [2]], pa.list_(pa.int64())))
    batch = only_batch(path, format=tensor_format, nulls="mask")
    assert plain(batch["x_offsets"]) == [0, 2, 2, 3]
    assert plain(batch["x_mask"]) == [False, True, False]
    assert plain(batch["x_mask_1"]) == [False, True, False]


def test_lists_of_fixed_size_lists_keep_their_shape(tensor_format: str, tmp_path: Any) -> None:
    path = write(tmp_path, box=pa.array([[[1, 2], [3, 4]], []], pa.list_(pa.list_(pa.float32(), 2))))
    batch = only_batch(path, format=tensor_format)
    assert plain(batch["box"]) == [[1.0, 2.0], [3.0, 4.0]]
    assert plain(batch["box_offsets"]) == [0, 2, 2]


def test_lists_in_batches_begin_at_zero(tensor_format: str, tmp_path: Any) -> None:
    rows = [list(range(i % 5)) for i in range(1000)]
    path = write(tmp_path, x=pa.array(rows, pa.list_(pa.int32())))
    with ps.Loader(path, batch_size=7, format=tensor_format, memory_budget="64MiB") as loader:
        got = []
        for batch in loader:
            offsets = plain(batch["x_offsets"])
            assert offsets[0] == 0
            values = plain(batch["x"])
            got += [values[a:b] for a, b in itertools.pairwise(offsets)]
    assert got == rows


def test_arrays_of_one_name_are_refused(tmp_path: Any) -> None:
    path = write(tmp_path, x=pa.array([[1]], pa.list_(pa.int32())), x_offsets=pa.array([1]))
    with pytest.raises(ValueError, match="'x_offsets'"):
        ps.Loader(path, format="numpy")


# --- Structs ----------------------------------------------------------------------------------------------

STRUCTS = [{"a": 1, "b": {"c": 2.5, "d": "x"}}, None, {"a": 3, "b": None}]
STRUCT = pa.struct([("a", pa.int64()), ("b", pa.struct([("c", pa.float64()), ("d", pa.string())]))])


def test_structs_come_as_their_fields(tensor_format: str, tmp_path: Any) -> None:
    """A field is missing where a struct around it is."""
    path = write(tmp_path, s=pa.array(STRUCTS, STRUCT))
    batch = only_batch(path, format=tensor_format, nulls="mask")
    assert list(batch) == ["s.a", "s.a_mask", "s.b.c", "s.b.c_mask", "s.b.d"]
    assert plain(batch["s.a_mask"]) == [False, True, False]
    assert plain(batch["s.b.c_mask"]) == [False, True, True]
    assert plain(batch["s.b.d"]) == ["x", None, None]


@pytest.mark.parametrize("format", ["torch", "numpy", "arrow", "pandas"])
def test_a_field_can_be_named_in_every_format(format: str, tmp_path: Any) -> None:
    path = write(tmp_path, s=pa.array([s for s in STRUCTS if s], STRUCT))
    batch = only_batch(path, columns=["s.a"], format=format)
    assert list(batch["s.a"].to_pylist() if isinstance(batch, pa.RecordBatch) else batch["s.a"].tolist()) == [
        1,
        3,
    ]


def test_a_column_of_that_name_wins(tmp_path: Any) -> None:
    path = write(tmp_path, s=pa.array([{"a": 1, "b": 2}]), **{"s.a": pa.array([7])})
    batch = only_batch(path, format="numpy")
    assert plain(batch["s.a"]) == [7]
    assert plain(batch["s.b"]) == [2]


def test_structs_in_lists_come_as_lists_of_their_fields(tensor_format: str, tmp_path: Any) -> None:
    path = write(tmp_path, o=pa.array([[{"k": 1, "n": "x"}, {"k": 2, "n": "y"}], []]))
    batch = only_batch(path, format=tensor_format)
    assert plain(batch["o.k"]) == [1, 2]
    assert plain(batch["o.k_offsets"]) == [0, 2, 2]
    assert plain(batch["o.n"]) == [["x", "y"], []]


def test_an_unknown_field_is_named_with_what_there_is(tmp_path: Any) -> None:
    path = write(tmp_path, s=pa.array([{"alpha": 1}]))
    with pytest.raises(ValueError, match=r"s\.alpah.*s\.alpha"):
        ps.Loader(path, columns=["s.alpah"], format="numpy")


def test_only_the_field_is_read(tmp_path: Any) -> None:
    """Of a struct of which one field is wanted, no other is read: neither its bytes nor its errors."""
    big = "".join(chr(33 + i % 90) for i in range(200_000))
    path = write(tmp_path, s=pa.array([{"a": i, "b": big[i:]} for i in range(20)]))
    with ps.Loader(path, columns=["s.a"], format="numpy") as loader:
        assert sum(len(batch["s.a"]) for batch in loader) == 20
        assert loader.memory()["total"]["peak_bytes"] < 1_000_000


# --- Tensors ----------------------------------------------------------------------------------------------


def stored_as(array: pa.Array, name: str, metadata: Any) -> pa.Field:
    """A field with an extension type that this process does not know."""
    return pa.field(
        "x",
        array.type,
        metadata={"ARROW:extension:name": name, "ARROW:extension:metadata": json.dumps(metadata)},
    )


def write_stored(tmp_path: Any, array: pa.Array, name: str, metadata: Any) -> str:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table([array], schema=pa.schema([stored_as(array, name, metadata)])), path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("ray.data.arrow_tensor", pa.list_(pa.int64())),
        ("ray.data.arrow_tensor_v2", pa.large_list(pa.int64())),
    ],
)
def test_ray_tensors_have_their_shape(
    name: str, type: pa.DataType, tensor_format: str, tmp_path: Any
) -> None:
    path = write_stored(tmp_path, pa.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]], type), name, [2, 3])
    batch = only_batch(path, format=tensor_format)
    assert plain(batch["x"]) == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]


def test_ray_tensors_of_varying_shape(tensor_format: str, tmp_path: Any) -> None:
    rows = [{"data": [1.0, 2.0], "shape": [1, 2]}, {"data": [3.0] * 6, "shape": [3, 2]}]
    kind = pa.struct([("data", pa.large_list(pa.float32())), ("shape", pa.list_(pa.int64()))])
    path = write_stored(tmp_path, pa.array(rows, kind), "ray.data.arrow_variable_shaped_tensor", 2)
    batch = only_batch(path, format=tensor_format)
    assert list(batch) == ["x", "x_offsets", "x_shape"]
    assert plain(batch["x_offsets"]) == [0, 2, 8]
    assert plain(batch["x_shape"]) == [[1, 2], [3, 2]]


def test_a_tensor_that_does_not_have_its_shape_is_an_error(tmp_path: Any) -> None:
    path = write_stored(tmp_path, pa.array([[1, 2, 3]]), "ray.data.arrow_tensor", [2, 2])
    with pytest.raises(ValueError, match=r"row group 0, column 'x': .*shape \[2, 2\]"):
        only_batch(path, format="numpy")


def test_hugging_face_arrays_have_their_shape(tensor_format: str, tmp_path: Any) -> None:
    rows = [[[1, 2], [3, 4], [5, 6]], None]
    kind = pa.list_(pa.list_(pa.int32()))
    name = "datasets.features.features.Array2DExtensionType"
    path = write_stored(tmp_path, pa.array(rows, kind), name, [[3, 2], "int32"])
    batch = only_batch(path, format=tensor_format, nulls="mask")
    assert tuple(batch["x"].shape) == (2, 3, 2)
    assert plain(batch["x"])[0] == rows[0]
    assert np.asarray(plain(batch["x_mask"])).all(axis=(1, 2)).tolist() == [False, True]


def test_hugging_face_images_come_as_bytes_and_path(tensor_format: str, tmp_path: Any) -> None:
    path = write(tmp_path, image=pa.array([{"bytes": b"\x89PNG", "path": "a.png"}]))
    batch = only_batch(path, format=tensor_format)
    assert plain(batch["image.bytes"]) == [b"\x89PNG"]
    assert plain(batch["image.path"]) == ["a.png"]


# --- Missing values in strings ----------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["torch", "numpy", "arrow", "pandas"])
def test_strings_are_filled_with_a_text(format: str, tmp_path: Any) -> None:
    path = write(tmp_path, x=pa.array(["a", None]), y=pa.array([None, b"b"]))
    for options in (
        {"nulls": {"x": "?", "y": b"!"}},
        {"transforms": {"x": ps.ops.fill_null("?"), "y": ps.ops.fill_null(b"!")}},
    ):
        batch = only_batch(path, format=format, **options)
        assert list(plain(batch["x"])) == ["a", "?"]
        assert list(plain(batch["y"])) == [b"!", b"b"]


def test_strings_without_a_mask_array_have_their_own_nulls(tensor_format: str, tmp_path: Any) -> None:
    path = write(tmp_path, x=pa.array(["a", None]))
    batch = only_batch(path, format=tensor_format, nulls="mask")
    assert list(batch) == ["x"]
    assert plain(batch["x"]) == ["a", None]


# --- What is said of it -----------------------------------------------------------------------------------


def test_the_schema_names_all_arrays(tmp_path: Any) -> None:
    path = write(tmp_path, x=pa.array([[[1]]], pa.list_(pa.list_(pa.int16()))), s=pa.array(["a"]))
    with ps.Loader(path, format="numpy", nulls="mask") as loader:
        x, s = loader.schema["x"], loader.schema["s"]
        assert (x.dtype, x.lists, x.has_mask) == ("int16", 2, True)
        assert x.arrays == ("x", "x_offsets", "x_mask", "x_offsets_1", "x_mask_1", "x_mask_2")
        assert (s.dtype, s.arrow_type, s.arrays) == (None, pa.large_string(), ("s",))
        assert "levels of lists" in repr(x)
        assert "large_string" in repr(s)
        assert "large_string" in str(loader.explain())
