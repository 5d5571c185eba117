"""What comes out for what is in the files: docs/formats.md, type by type, against pyarrow's own reading."""

from __future__ import annotations

from typing import Any

import data_makers as make
import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROWS = 37

LIST_TYPES = {
    "list3_int8": make.nested_list(pa.int8(), 3),
    "list2x3_float32": make.nested_list(pa.float32(), 2, 3),
    "list2x1x4_bool": make.nested_list(pa.bool_(), 2, 1, 4),
    "list2_decimal": make.nested_list(pa.decimal128(12, 3), 2),
    "list2_timestamp": make.nested_list(pa.timestamp("us", "UTC"), 2),
    "list1_float64": make.nested_list(pa.float64(), 1),
}
TENSOR_TYPES = {**make.NUMBER_TYPES, **LIST_TYPES}


def epoch(path: Any, **options: Any) -> Any:
    with ps.Loader(path, **options) as loader:
        return make.joined(loader)


def read(path: str, column: str) -> pa.Array:
    """The column as pyarrow reads it, in one chunk."""
    return pq.read_table(path)[column].combine_chunks()


# --- Each type by its rule --------------------------------------------------------------------------------


@pytest.mark.parametrize("nulls", [0, 0.4])
@pytest.mark.parametrize("batch_size", [7, 100])
def test_each_type_has_its_documented_tensor_form(
    write_parquet: Any, tensor_format: str, batch_size: int, nulls: float
) -> None:
    """11: each type comes out by its rule; nulls="mask" gives a mask of its shape, and 0 where values are
    missing."""
    path = write_parquet(make.table_of(TENSOR_TYPES, ROWS, nulls=nulls), row_group_size=10)
    loader = ps.Loader(path, batch_size=batch_size, nulls="mask", format=tensor_format)
    got = make.joined(loader)
    for name in TENSOR_TYPES:
        values, missing = make.tensor_form(read(path, name))
        make.assert_same_bits(got[name], values, name)
        assert loader.schema[name].dtype == str(values.dtype)
        assert loader.schema[name].shape == values.shape[1:]
        assert loader.schema[name].source_type == read(path, name).type
        assert loader.schema[name].has_mask == (f"{name}_mask" in got)
        if nulls:
            make.assert_same_bits(got[f"{name}_mask"], missing, name)


@pytest.mark.parametrize("nulls", [0, 0.4])
@pytest.mark.parametrize("batch_size", [7, 100])
def test_arrow_batches_are_valid_and_what_pyarrow_reads(
    write_parquet: Any, batch_size: int, nulls: float
) -> None:
    """11: format="arrow" carries type, nulls and values; each batch passes full validation."""
    types = {name: type for name, type in TENSOR_TYPES.items() if name != "decimal256"}
    path = write_parquet(make.table_of(types, ROWS, nulls=nulls), row_group_size=10)
    loader = ps.Loader(path, batch_size=batch_size, format="arrow")
    batches = list(loader)
    for batch in batches:
        batch.validate(full=True)
    table = make.joined(batches)
    assert table.column_names == list(types)
    for name in types:
        got, expected = table[name].combine_chunks(), read(path, name)
        expected = expected.cast(make.arrow_form(expected.type))
        assert got.type == expected.type == loader.schema[name].arrow_type
        assert got.is_null().equals(expected.is_null())
        for form, wanted in zip(make.tensor_form(got), make.tensor_form(expected), strict=True):
            make.assert_same_bits(form, wanted, name)


def test_extension_types_follow_the_rule_of_their_storage(write_parquet: Any, tensor_format: str) -> None:
    """11: a fixed-shape tensor has its shape, others are their storage; in "arrow" they stay themselves."""
    tensor = pa.fixed_shape_tensor(pa.float32(), [2, 3])
    values = np.arange(ROWS * 6, dtype=np.float32)
    storage = pa.FixedSizeListArray.from_arrays(pa.array(values), 6)
    codes = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 1, 5] * ROWS, pa.int8())[:ROWS])
    path = write_parquet({"t": pa.ExtensionArray.from_storage(tensor, storage), "b": codes}, row_group_size=9)
    got = epoch(path, batch_size=7, format=tensor_format)
    make.assert_same_bits(got["t"], values.reshape(ROWS, 2, 3))
    make.assert_same_bits(got["b"], codes.storage.to_numpy())
    arrow = epoch(path, format="arrow")
    assert (arrow["t"].type, arrow["b"].type) == (tensor, pa.bool8())
    assert arrow["t"].combine_chunks().storage.to_pylist() == values.reshape(ROWS, 6).tolist()


def test_what_has_no_rule_is_a_type_error_that_names_column_and_remedy(write_parquet: Any) -> None:
    """What cannot be a tensor is an error when the loader is made; it names the column and what helps."""
    tensor = pa.fixed_shape_tensor(pa.int8(), [2, 3], permutation=[1, 0])
    six = pa.FixedSizeListArray.from_arrays(pa.array(range(6), pa.int8()), 6)
    columns = {
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())),
        "list_of_maps": pa.array([[[("k", 1)]]], pa.list_(pa.map_(pa.string(), pa.int8()))),
        "fixed_list_of_lists": pa.array([[[1], []]], pa.list_(pa.list_(pa.int8()), 2)),
        "permuted": pa.ExtensionArray.from_storage(tensor, six),
        "fine": pa.array([1]),
    }
    path = write_parquet(columns)
    for name in columns.keys() - {"fine"}:
        for format in ("numpy", "torch"):
            with pytest.raises(TypeError, match=rf"column '{name}': .*(format=\"arrow\"|permuted)"):
                ps.Loader(path, columns=[name], format=format)
        batch = epoch(path, columns=[name], format="arrow")
        assert batch[name].to_pylist() == columns[name].to_pylist()
    assert epoch(path, columns=["fine"], format="numpy")["fine"].tolist() == [1]


def test_columns_keep_their_order(write_parquet: Any, tensor_format: str) -> None:
    """11: columns come in the order of the file, or of `columns`; outputs of transforms as documented."""
    path = write_parquet({name: [1, 2] for name in "dbca"})
    for format in (tensor_format, "arrow"):
        names = lambda **options: list(ps.Loader(path, format=format, **options).schema)  # noqa: B023, E731
        assert names() == ["d", "b", "c", "a"]
        assert names(columns=["a", "d", "c"]) == ["a", "d", "c"]
        double = ps.col("b") | ps.ops.cast("float64")
        assert names(columns=["a", "x", "c"][::2], transforms={"x": double, "a": ps.ops.clip(0)}) == [
            "a",
            "c",
            "x",
        ]
    batch = next(iter(ps.Loader(path, columns=["c", "d"], format=tensor_format)))
    assert list(batch) == ["c", "d"]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_chunks_are_joined(write_parquet: Any, tmp_path: Any, tensor_format: str, rows: int) -> None:
    """8, 11: row groups and files far smaller than a batch come out as one array per batch."""
    types = {name: TENSOR_TYPES[name] for name in ("int16", "bool", "decimal128_38", "list2x3_float32")}
    table = make.table_of(types, 50, key=rows)
    for i, (start, end) in enumerate(make.cut(50, 11, 1, 7)):
        write_parquet(table.slice(start, end - start), f"parts/{i:02}.parquet", row_group_size=rows)
    got = epoch(tmp_path / "parts", batch_size=16, nulls="mask", format=tensor_format)
    for name in types:
        values, missing = make.tensor_form(table[name].combine_chunks())
        make.assert_same_bits(got[name], values, name)
        make.assert_same_bits(got[name + "_mask"], missing, name)


# --- Nulls ------------------------------------------------------------------------------------------------


def test_a_column_of_nothing_but_nulls(write_parquet: Any, tensor_format: str) -> None:
    """11: null columns: every value is missing, and the three policies hold."""
    path = write_parquet({"v": pa.nulls(5, pa.float32()), "d": pa.nulls(5, pa.decimal128(9, 2))})
    got = epoch(path, batch_size=2, nulls="mask", format=tensor_format)
    assert got["v"].tolist() == got["d"].tolist() == [0.0] * 5
    assert got["v_mask"].tolist() == got["d_mask"].tolist() == [True] * 5
    assert epoch(path, nulls={"v": 1.5, "d": 2}, format=tensor_format)["v"].tolist() == [1.5] * 5
    assert epoch(path, format="arrow").to_pylist() == [{"v": None, "d": None}] * 5
    with pytest.raises(ValueError, match=r"data\.parquet', row group 0, column 'v'.*row 0"):
        epoch(path, columns=["v"], format=tensor_format)


def test_a_null_is_an_error_that_names_its_place(write_parquet: Any) -> None:
    """nulls="error": a null is a ValueError that names file, row group, column, row and the remedies."""
    columns = {}
    for name, type in TENSOR_TYPES.items():
        leaves = make.leaves_of(make.random_array(type, 20, nulls=0))
        at = 16 * len(leaves) // 20
        array = pa.concat_arrays([leaves[:at], pa.nulls(1, leaves.type), leaves[at + 1 :]])
        for size in reversed(make.shape_of(type)):
            array = pa.FixedSizeListArray.from_arrays(array, size)
        columns[name] = array
    path = write_parquet(columns, row_group_size=10)
    for name in TENSOR_TYPES:
        place = rf"data\.parquet', row group 1, column '{name}': row 6\b"
        with pytest.raises(ValueError, match=place + r".*fill_null.*nulls="):
            epoch(path, columns=[name], format="numpy")


def test_a_fill_value_is_put_where_values_are_missing(write_parquet: Any, tensor_format: str) -> None:
    """nulls={column: value}: the value is put there, nothing else changes, and no mask is made."""
    path = write_parquet(make.table_of(TENSOR_TYPES, ROWS, nulls=0.4), row_group_size=10)
    for options in (
        {"nulls": dict.fromkeys(TENSOR_TYPES, 1)},
        {"transforms": {name: ps.ops.fill_null(1) for name in TENSOR_TYPES}},
    ):
        got = epoch(path, batch_size=7, format=tensor_format, **options)
        assert list(got) == list(TENSOR_TYPES)
        for name in TENSOR_TYPES:
            values, missing = make.tensor_form(read(path, name))
            values[missing] = 1
            make.assert_same_bits(got[name], values, name)


def test_fill_values_that_do_not_go_with_the_column_are_refused(write_parquet: Any) -> None:
    """A fill value that does not fit is an error when the loader is made, naming the column."""
    path = write_parquet({"v": pa.array([1, None], pa.int8()), "s": pa.array(["a", None])})
    options = {"columns": ["v"], "format": "numpy"}
    with pytest.raises(ValueError, match=r"column 'v'.*300"):
        ps.Loader(path, nulls={"v": 300}, **options)
    with pytest.raises(ValueError, match=r"column 'v'.*1\.5"):
        ps.Loader(path, nulls={"v": 1.5}, **options)
    with pytest.raises(TypeError, match="column 'v'"):
        ps.Loader(path, nulls={"v": "none"}, **options)
    with pytest.raises(ValueError, match="nope"):
        ps.Loader(path, nulls={"nope": 1}, **options)
    with pytest.raises(ValueError, match="row group 0, column 'v'"):
        epoch(
            path,
            columns=["v", "h"][:1],
            transforms={"h": ps.col("s") | ps.ops.hash_bucket(9)},
            nulls={"h": 1},
            format="numpy",
        )


# --- Dictionaries -----------------------------------------------------------------------------------------


def dictionary_files(write_parquet: Any) -> tuple[list[str], list[Any]]:
    """Two files, three row groups, each with a dictionary of its own in another order; and their values."""
    parts = [["b", "a", None, "b"], ["c", "b", "c"], ["é", "a", "a", "d", None]]
    paths, rows = [], []
    for i, part in enumerate(parts):
        table = pa.table({"v": pa.array(part).dictionary_encode(), "row": pa.array(range(len(part)))})
        paths.append(write_parquet(table, f"{i}.parquet", row_group_size=4))
        rows += part
    return paths, rows


@pytest.mark.parametrize("value_type", ["string", "binary", "large_string"])
def test_codes_mean_the_same_in_all_files(write_parquet: Any, tensor_format: str, value_type: str) -> None:
    """11: codes mean the same over row groups and files; the vocabulary is in loader.schema, each value
    once."""
    letters = str.encode if value_type == "binary" else str
    paths, rows = [], []
    for i, part in enumerate([["b", "a", "b"], ["c", "b", "c"], ["d", "a", "a", "e"]]):
        values = [letters(letter) for letter in part]
        rows += values
        array = pa.array(values, getattr(pa, value_type)()).dictionary_encode()
        paths.append(write_parquet({"v": array}, f"{i}.parquet", row_group_size=2))
    loader = ps.Loader(paths, batch_size=4, format=tensor_format)
    vocabulary = loader.schema["v"].vocabulary
    assert vocabulary is not None
    assert len(set(vocabulary.to_pylist())) == len(vocabulary) == 5
    assert vocabulary.to_pylist() == [letters(letter) for letter in "bacde"]
    got = make.joined(loader)["v"]
    assert got.dtype == np.int32
    assert vocabulary.take(pa.array(got)).to_pylist() == rows


def test_dictionaries_of_numbers_come_as_their_values(write_parquet: Any, tensor_format: str) -> None:
    """11: Parquet gives a dictionary of numbers back as numbers, and so do batches; there are no codes."""
    path = write_parquet({"v": pa.array([30, 10, 30]).dictionary_encode()})
    loader = ps.Loader(path, format=tensor_format)
    assert loader.schema["v"].source_type == read(path, "v").type == pa.int64()
    assert loader.schema["v"].vocabulary is None
    assert make.joined(loader)["v"].tolist() == [30, 10, 30]


def test_the_vocabulary_outlives_its_loader(write_parquet: Any, tensor_format: str) -> None:
    """24: vocabulary and batches stay valid after close() and the loader's end. (It was read after being
    freed.)"""
    paths, rows = dictionary_files(write_parquet)
    loader = ps.Loader(paths, columns=["v"], nulls="mask", format=tensor_format)
    batch = next(iter(loader))
    loader.close()
    accounts = loader.memory()
    assert accounts["metadata"]["current_bytes"] == accounts["blocks"]["current_bytes"] == 0
    vocabulary = loader.schema["v"].vocabulary
    del loader
    assert vocabulary is not None
    assert vocabulary.to_pylist() == ["b", "a", "c", "é", "d"]
    texts = vocabulary.take(pa.array(make.to_numpy(batch["v"]))).to_pylist()
    assert [text for text, gone in zip(texts, batch["v_mask"].tolist(), strict=True) if not gone] == [
        row for row in rows if row is not None
    ]


def test_dictionaries_with_nulls_masks_and_fill_values(write_parquet: Any, tensor_format: str) -> None:
    """For a dictionary column a number fills in a code, a text one of its values; the mask says what is
    missing."""
    paths, rows = dictionary_files(write_parquet)
    got = epoch(paths, columns=["v"], batch_size=5, nulls="mask", format=tensor_format)
    vocabulary = ps.Loader(paths, format="numpy", nulls="mask").schema["v"].vocabulary.to_pylist()
    assert vocabulary == ["b", "a", "c", "é", "d"]
    assert got["v_mask"].tolist() == [value is None for value in rows]
    assert got["v"].tolist() == [0 if value is None else vocabulary.index(value) for value in rows]
    filled = epoch(paths, columns=["v"], nulls={"v": "d"}, format=tensor_format)["v"].tolist()
    assert filled == [4 if value is None else vocabulary.index(value) for value in rows]
    coded = epoch(paths, columns=["v"], nulls={"v": -1}, format=tensor_format)["v"].tolist()
    assert coded == [-1 if value is None else vocabulary.index(value) for value in rows]
    with pytest.raises(ValueError, match=r"0\.parquet', row group 0, column 'v'.*row 2"):
        epoch(paths, columns=["v"], format=tensor_format)


def test_dictionaries_in_arrow_batches_and_under_ops(write_parquet: Any) -> None:
    """11: arrow batches carry dictionary<int32> with the same codes; under an op the column is its values."""
    paths, rows = dictionary_files(write_parquet)
    batches = list(ps.Loader(paths, columns=["v"], batch_size=5, format="arrow"))
    for batch in batches:
        batch.validate(full=True)
        assert batch["v"].type == pa.dictionary(pa.int32(), pa.string())
        assert batch["v"].dictionary.to_pylist() == ["b", "a", "c", "é", "d"]
    assert [value for batch in batches for value in batch["v"].to_pylist()] == rows
    chain = ps.ops.fill_null("?") | ps.ops.lookup(["a", "b", "c", "d", "é"], missing=9)
    got = epoch(paths, columns=["v"], transforms={"v": chain}, format="numpy")["v"].tolist()
    assert got == [9 if value is None else ["a", "b", "c", "d", "é"].index(value) for value in rows]


# --- Ops --------------------------------------------------------------------------------------------------


def transformed(write: Any, values: pa.Array, op: Any, format: str) -> np.ndarray:
    path = write({"v": values}, row_group_size=3)
    return epoch(path, batch_size=2, transforms={"v": op}, format=format)["v"]


def test_cast_gives_the_type_asked_for(write_parquet: Any, tensor_format: str) -> None:
    """cast: numbers, bools and text of numbers become `to`."""
    targets = [*make.INTEGERS, "float16", "float32", "float64", "bool"]
    for values in ([0, 1, 1, 0], [0.0, 1.0, -0.0, 1.0], [False, True, True, False], ["0", "1", "1", "0"]):
        path = write_parquet({"v": values}, row_group_size=3)
        transforms = {to: ps.col("v") | ps.ops.cast(to) for to in targets}
        got = epoch(path, columns=[], transforms=transforms, batch_size=2, format=tensor_format)
        for to in targets:
            make.assert_same_bits(got[to], np.array(values).astype("float32").astype(to), (values, to))


@pytest.mark.parametrize(
    "type", [pa.int8(), pa.uint64(), pa.int64(), pa.bool_(), pa.string(), pa.binary(), pa.binary(7)]
)
def test_hash_bucket_is_xxh64_of_the_value(write_parquet: Any, tensor_format: str, type: pa.DataType) -> None:
    """hash_bucket: int64 in [0, n) by XXH64 with seed 0 of the value, the same everywhere."""
    values = make.random_array(type, 20, nulls=0)
    got = transformed(write_parquet, values, ps.ops.hash_bucket(1009), tensor_format)
    assert got.dtype == np.int64
    assert got.tolist() == [make.bucket_of(value, 1009) for value in values.to_pylist()]


def test_lookup_scale_clip_and_chains(write_parquet: Any, tensor_format: str) -> None:
    """lookup, scale and clip do what the table says; chains run left to right; missing stays missing."""
    run = lambda values, op, **options: transformed(write_parquet, values, op, tensor_format, **options)  # noqa: E731
    texts = pa.array(["x", "y", "zz", "x"])
    assert run(texts, ps.ops.lookup(["zz", "x"], missing=-7)).tolist() == [1, -7, 0, 1]
    with pytest.raises(ValueError, match=r"row group 0, column 'v'.*row 1.*'?y'?"):
        run(texts, ps.ops.lookup(["zz", "x"]))
    make.assert_same_bits(run(pa.array([3, 5, 9], pa.int16()), ps.ops.lookup([9, 3, 5])), np.array([1, 2, 0]))
    numbers = np.array([1.5, -2.0, np.nan, 1e6])
    got = run(pa.array(numbers), ps.ops.scale(mean=2, std=4))
    make.assert_same_bits(got, (numbers - 2) / 4)
    got = run(pa.array([1, 2, 3], pa.int8()), ps.ops.scale(mean=2, std=4))
    make.assert_same_bits(got, np.array([-0.25, 0, 0.25], np.float32))
    make.assert_same_bits(run(pa.array(numbers), ps.ops.clip(-1, 2)), np.array([1.5, -1, np.nan, 2]))
    make.assert_same_bits(
        run(pa.array([1, 5, 9], pa.uint8()), ps.ops.clip(lower=2)), np.array([2, 5, 9], np.uint8)
    )
    chain = [ps.ops.cast("float32"), ps.ops.scale(std=2), ps.ops.fill_null(-1), ps.ops.clip(upper=3)]
    make.assert_same_bits(run(pa.array([4, None, 8]), chain), np.array([2, -1, 3], np.float32))
    masked = epoch(
        write_parquet({"v": [4, None]}), transforms={"v": chain[:2]}, nulls="mask", format=tensor_format
    )
    assert (masked["v"].tolist(), masked["v_mask"].tolist()) == ([2, 0], [False, True])


def test_col_makes_new_columns_of_any_column(write_parquet: Any, tensor_format: str) -> None:
    """ps.col: an output is made from another column, which need not be in `columns`, as often as one
    likes."""
    path = write_parquet({"a": [1, 2, 3], "s": ["p", "q", "p"]})
    transforms = {
        "half": ps.col("a") | ps.ops.scale(std=2),
        "same": ps.col("a"),
        "code": ps.col("s") | ps.ops.lookup(["p", "q"]),
    }
    got = epoch(path, columns=["a"], transforms=transforms, format=tensor_format)
    assert {name: values.tolist() for name, values in got.items()} == {
        "a": [1, 2, 3], "half": [0.5, 1.0, 1.5], "same": [1, 2, 3], "code": [0, 1, 0],
    }  # fmt: skip
    with pytest.raises(ValueError, match="did you mean 'a'"):
        ps.Loader(path, columns=["a"], transforms={"x": ps.col("A")}, format="numpy")


def test_an_op_refuses_what_it_does_not_take(write_parquet: Any) -> None:
    """An op on a type that it does not take is a TypeError when the loader is made, naming the column."""
    wrong = [
        (ps.ops.hash_bucket(5), pa.float32()),
        (ps.ops.lookup(["a"]), pa.int64()),
        (ps.ops.scale(1, 2), pa.string()),
        (ps.ops.clip(1), pa.binary()),
        (ps.ops.cast("int8"), pa.list_(pa.int8())),
    ]
    for op, type in wrong:
        with pytest.raises(TypeError, match="column 'v': "):
            ps.Loader(write_parquet({"v": pa.nulls(3, type)}), transforms={"v": op}, format="numpy")
