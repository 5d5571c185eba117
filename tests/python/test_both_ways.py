"""Values decoded straight into slots and values read through Arrow are the same, for every file that tests
can make.

`_direct_decode=False` sends every column through Arrow. Both are also held against pyarrow's own reading.
"""

from __future__ import annotations

from typing import Any

import data_makers as make
import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

ROWS = 300

CODECS = ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]

LISTS = {"list3": make.nested_list(pa.int16(), 3), "list2x2": make.nested_list(pa.float64(), 2, 2)}
ALL_TYPES = {**make.NUMBER_TYPES, **make.BYTES_TYPES, **LISTS}


def is_integer_in_parquet(type: pa.DataType) -> bool:
    return pa.types.is_integer(type) or pa.types.is_temporal(type)


def encodings_of(types: dict[str, pa.DataType], kind: str) -> dict[str, Any]:
    """Options of write_table: the encoding `kind` for the columns that can have it, PLAIN for others."""
    if kind == "dictionary":
        return {"use_dictionary": True}
    if kind == "fallback":  # Dictionary pages first, then plain ones.
        return {"use_dictionary": True, "dictionary_pagesize_limit": 128}
    chosen: dict[str, str] = {}
    for name, type in types.items():
        encoding = "PLAIN"
        is_text = name in make.BYTES_TYPES and not pa.types.is_fixed_size_binary(type)
        if kind == "delta" and is_integer_in_parquet(type):
            encoding = "DELTA_BINARY_PACKED"
        elif kind == "delta" and is_text:
            encoding = "DELTA_BYTE_ARRAY" if "binary" in name else "DELTA_LENGTH_BYTE_ARRAY"
        elif kind == "delta" and (pa.types.is_fixed_size_binary(type) or "128_38" in name):
            encoding = "DELTA_BYTE_ARRAY"
        elif (kind == "split" and (is_integer_in_parquet(type) or pa.types.is_floating(type))) or (
            kind == "split" and (pa.types.is_fixed_size_binary(type) or pa.types.is_decimal(type))
        ):
            encoding = "BYTE_STREAM_SPLIT"
        elif kind in ("delta", "split") and pa.types.is_boolean(type):
            encoding = "RLE"
        chosen[name if not pa.types.is_fixed_size_list(type) else f"{name}.list.element"] = encoding
    nested = [name for name, type in types.items() if pa.types.is_fixed_size_list(type)]
    for name in nested:
        chosen.pop(f"{name}.list.element")
    return {"use_dictionary": False, "column_encoding": chosen}


def both_ways(path: Any, **options: Any) -> list[Any]:
    """One epoch decoded straight into slots, and one through Arrow."""
    epochs = []
    for direct in (True, False):
        with ps.Loader(path, _direct_decode=direct, **options) as loader:
            epochs.append(make.joined(loader))
    return epochs


def assert_both_equal(path: Any, **options: Any) -> dict[str, np.ndarray]:
    direct, through_arrow = both_ways(path, format="numpy", **options)
    assert list(direct) == list(through_arrow)
    for name in direct:
        make.assert_same_bits(direct[name], through_arrow[name], name)
    return direct  # type: ignore[no-any-return]


def hashed(types: dict[str, pa.DataType]) -> dict[str, Any]:
    return {name: ps.ops.hash_bucket(2**40) for name in types if name in make.BYTES_TYPES}


@pytest.mark.parametrize("nulls", [0, 0.3], ids=["required", "optional"])
@pytest.mark.parametrize("pages", ["1.0", "2.0"])
@pytest.mark.parametrize("kind", ["plain", "dictionary", "fallback", "delta", "split"])
def test_every_type_in_every_encoding_is_the_same_both_ways(
    write_parquet: Any, kind: str, pages: str, nulls: float
) -> None:
    """Every row exactly once, with its value: all types x encodings x page versions x required and
    optional."""
    table = make.table_of(ALL_TYPES, ROWS, nulls=nulls)
    path = write_parquet(
        table,
        row_group_size=130,
        data_page_size=200,
        write_batch_size=16,
        data_page_version=pages,
        write_page_checksum=pages == "2.0",
        **encodings_of(ALL_TYPES, kind),
    )
    got = assert_both_equal(path, batch_size=47, nulls="mask", transforms=hashed(ALL_TYPES))
    source = pq.read_table(path)
    for name in {**make.NUMBER_TYPES, **LISTS}:
        values, missing = make.tensor_form(source[name].combine_chunks())
        make.assert_same_bits(got[name], values, name)
        if nulls:
            make.assert_same_bits(got[f"{name}_mask"], missing, name)
    for name in make.BYTES_TYPES:
        expected = [0 if v is None else make.bucket_of(v, 2**40) for v in source[name].to_pylist()]
        assert got[name].tolist() == expected, name


@pytest.mark.parametrize("pages", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_the_same_both_ways(write_parquet: Any, codec: str, pages: str) -> None:
    """Every row exactly once, with its value: all types x codecs x page versions."""
    table = make.table_of(ALL_TYPES, ROWS, key=codec)
    options = {"compression": codec, "data_page_version": pages, "data_page_size": 700}
    path = write_parquet(table, row_group_size=170, **options)
    got = assert_both_equal(path, batch_size=64, nulls="mask", transforms=hashed(ALL_TYPES))
    source = pq.read_table(path)
    for name in make.NUMBER_TYPES:
        values, _ = make.tensor_form(source[name].combine_chunks())
        make.assert_same_bits(got[name], values, name)


@pytest.mark.parametrize("nulls", [0, 0.3], ids=["required", "optional"])
def test_arrow_batches_are_the_same_both_ways(write_parquet: Any, nulls: float) -> None:
    """11: format="arrow" is the same both ways, valid, and equal in each null and value."""
    types = {name: type for name, type in {**make.NUMBER_TYPES, **LISTS}.items() if name != "decimal256"}
    table = make.table_of(types, ROWS, nulls=nulls, key="arrow")
    path = write_parquet(table, row_group_size=130, data_page_size=300)
    direct, through_arrow = both_ways(path, batch_size=47, format="arrow")
    assert direct.schema == through_arrow.schema
    for name in types:
        one, other = direct[name].combine_chunks(), through_arrow[name].combine_chunks()
        one.validate(full=True)
        assert one.is_null().equals(other.is_null()), name
        for form, wanted in zip(make.tensor_form(one), make.tensor_form(other), strict=True):
            make.assert_same_bits(form, wanted, name)


@pytest.mark.parametrize("shape", ["no nulls", "all nulls", "runs", "last", "first"])
@pytest.mark.parametrize("batch_size", [1, 64, 1000])
def test_nulls_in_every_place_are_the_same_both_ways(write_parquet: Any, shape: str, batch_size: int) -> None:
    """Values of optional columns are spread to their rows, wherever the nulls stand."""
    missing = np.zeros(ROWS, bool)
    if shape != "no nulls":
        missing[{"all nulls": slice(None), "runs": slice(90, 210), "last": -1, "first": 0}[shape]] = True
    columns = {
        name: pa.array([None if gone else i for i, gone in enumerate(missing)], type)
        for name, type in {"a": pa.int32(), "b": pa.float64(), "c": pa.int16(), "d": pa.decimal128(9)}.items()
    }
    path = write_parquet(columns, row_group_size=100, data_page_size=64, write_batch_size=8)
    for nulls in ("mask", dict.fromkeys(columns, 7)):
        got = assert_both_equal(path, batch_size=batch_size, nulls=nulls, limit=min(ROWS, 20 * batch_size))
        rows = len(got["a"])
        fill = 0 if nulls == "mask" else 7
        for name in columns:
            assert got[name].tolist() == np.where(missing, fill, np.arange(ROWS))[:rows].tolist(), name


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("budget", ["least", "1GiB"])
def test_ops_are_the_same_both_ways(write_parquet: Any, num_workers: int, budget: str) -> None:
    """Converting once per distinct value and per row give the same, at the least budget too, whoever
    works."""
    random = make.seeded("ops")
    texts = [["red", "green", "blue", None][i] for i in random.integers(0, 4, ROWS)]
    digits = [str(i) for i in random.integers(-99, 99, ROWS)]
    prices = pc.cast(pa.array(np.round(random.random(ROWS) * 99, 2)), pa.decimal128(9, 2), safe=False)
    table = pa.table({"s": texts, "d": digits, "p": prices, "c": pa.array(texts).dictionary_encode()})
    path = write_parquet(table, row_group_size=90, data_page_size=128, dictionary_pagesize_limit=400)
    options: dict[str, Any] = {
        "transforms": {
            "hash": ps.col("s") | ps.ops.fill_null("?") | ps.ops.hash_bucket(97),
            "code": ps.col("s") | ps.ops.lookup(["blue", "red"], missing=-1) | ps.ops.fill_null(-2),
            "s": ps.ops.fill_null("red") | ps.ops.lookup(["red", "green", "blue"]),
            "d": [ps.ops.cast("int32"), ps.ops.clip(-50, 50), ps.ops.scale(1, 2)],
            "p": [ps.ops.scale(10, 3), ps.ops.cast("float32")],
        },
        "nulls": {"c": "green"},
        "batch_size": 37,
        "num_workers": num_workers,
    }
    if budget == "least":
        least = ps.Loader(path, format="numpy", **options).explain().to_dict()["least_budget_bytes"]
        options["memory_budget"] = least
    got = assert_both_equal(path, **options)
    assert list(got) == ["s", "d", "p", "c", "hash", "code"]
    assert got["s"].tolist() == [["red", "green", "blue"].index(text or "red") for text in texts]
    assert got["code"].tolist() == [{"blue": 0, "red": 1, None: -2}.get(text, -1) for text in texts]
    assert got["hash"].tolist() == [make.bucket_of(text or "?", 97) for text in texts]
    assert got["d"].tolist() == ((np.clip(np.array(digits, int), -50, 50) - 1) / np.float32(2)).tolist()
    make.assert_same_bits(
        got["p"], ((np.array([float(p) for p in prices.to_pylist()]) - 10) / 3).astype("f4")
    )


@pytest.mark.parametrize("seed", range(8))
def test_random_files_are_the_same_both_ways(write_parquet: Any, seed: int) -> None:
    """Files of random make (types, encodings, codecs, page and row group sizes), read with random options."""
    random = make.seeded("file", seed)
    names = list(random.choice(list(ALL_TYPES), int(random.integers(1, 12)), replace=False))
    types = {str(name): ALL_TYPES[str(name)] for name in names}
    rows = int(random.integers(1, 1500))
    table = make.table_of(types, rows, nulls=float(random.choice([0, 0.05, 0.9])), key=seed)
    options = {
        "row_group_size": int(random.integers(1, rows + 1)),
        "data_page_size": int(random.choice([1, 64, 1000, 100_000])),
        "write_batch_size": int(random.choice([1, 7, 1024])),
        "compression": str(random.choice(CODECS)),
        "data_page_version": str(random.choice(["1.0", "2.0"])),
        "write_page_index": bool(random.random() < 0.5),
        **encodings_of(types, str(random.choice(["plain", "dictionary", "fallback", "delta", "split"]))),
    }
    if rows / options["row_group_size"] > 150:
        options["row_group_size"] = rows // 100
    print("write options:", options)
    path = write_parquet(table, **options)
    read = {
        "batch_size": int(random.integers(1, 400)),
        "num_workers": int(random.integers(0, 3)),
        "transforms": hashed(types),
        "nulls": "mask",
    }
    print("read options:", read)
    got = assert_both_equal(path, **read)
    assert {len(values) for values in got.values()} == {rows}
    source = pq.read_table(path)
    for name in types.keys() - make.BYTES_TYPES.keys():
        make.assert_same_bits(got[name], make.tensor_form(source[name].combine_chunks())[0], name)
