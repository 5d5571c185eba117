"""Makers of Arrow data of every type that Penstock knows, and what docs/formats.md says comes out for it.

The expectations are made with pyarrow and numpy alone, so that they do not share code with what they test.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DAY_MS = 86_400_000

INTEGERS = {f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64)}

#: name -> type, for each type of a number per value in the table of docs/formats.md.
NUMBER_TYPES: dict[str, pa.DataType] = {
    **{name: getattr(pa, name)() for name in INTEGERS},
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "date32": pa.date32(),
    "date64": pa.date64(),
    "time32_s": pa.time32("s"),
    "time32_ms": pa.time32("ms"),
    "time64_us": pa.time64("us"),
    "time64_ns": pa.time64("ns"),
    **{f"timestamp_{unit}": pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")},
    **{f"timestamp_{unit}_utc": pa.timestamp(unit, "UTC") for unit in ("s", "ms", "us", "ns")},
    "timestamp_us_zone": pa.timestamp("us", "Europe/Berlin"),
    **{f"duration_{unit}": pa.duration(unit) for unit in ("s", "ms", "us", "ns")},
    "decimal32": pa.decimal32(9, 2),
    "decimal64": pa.decimal64(18, 4),
    "decimal128_9": pa.decimal128(9, 3),
    "decimal128_18": pa.decimal128(18, 0),
    "decimal128_38": pa.decimal128(38, 10),
    "decimal256": pa.decimal256(60, 12),
}

#: Types of text and bytes, which need an op.
BYTES_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "binary_view": pa.binary_view(),
    "fixed_binary": pa.binary(7),
}


def seeded(*key: object) -> np.random.Generator:
    """A generator that is the same in every run; the key is printed, for failures."""
    print("seed key:", key)
    return np.random.default_rng(list(repr(key).encode()))


def random_array(type: pa.DataType, rows: int, *, nulls: float = 0.25, key: object = 0) -> pa.Array:
    """Values over the whole range of `type`, extremes among them; each is null with probability `nulls`."""
    random = seeded(str(type), rows, nulls, key)
    missing = random.random(rows) < nulls if nulls else None
    if pa.types.is_fixed_size_list(type):
        return _random_lists(type, rows, nulls, key)
    if pa.types.is_decimal(type):
        values = _decimals(type, rows, random)
        kept = [None if missing is not None and missing[i] else value for i, value in enumerate(values)]
        return pa.array(kept, type)
    if type in BYTES_TYPES.values():
        return _random_bytes(type, rows, random, missing)
    if type == pa.bool_():
        return pa.array(random.random(rows) < 0.5, type, mask=missing)
    if pa.types.is_floating(type):
        return pa.array(_floats(type, rows, random), type, mask=missing)
    return pa.array(_integers(type, rows, random), mask=missing).cast(_storage(type)).view(type)


def _storage(type: pa.DataType) -> pa.DataType:
    if pa.types.is_integer(type):
        return type
    return pa.int32() if type.bit_width == 32 else pa.int64()


def _integers(type: pa.DataType, rows: int, random: np.random.Generator) -> np.ndarray:
    if pa.types.is_integer(type):
        dtype = np.dtype(type.to_pandas_dtype())
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        values = random.integers(low, high, rows, dtype=dtype, endpoint=True)
        values[:4] = [low, high, 0, 1][: len(values)]
        return values
    if pa.types.is_date64(type):
        return random.integers(-40_000, 40_000, rows) * DAY_MS
    if pa.types.is_time(type):
        day = {"s": 86_400, "ms": DAY_MS, "us": DAY_MS * 10**3, "ns": DAY_MS * 10**6}[type.unit]
        return random.integers(0, day, rows)
    most = 2**31 - 1 if type.bit_width == 32 else 2**53
    return random.integers(-most, most, rows)


def _floats(type: pa.DataType, rows: int, random: np.random.Generator) -> np.ndarray:
    values = random.normal(0, 1000, rows)
    values[:5] = [np.nan, np.inf, -np.inf, -0.0, 1e-7][: len(values)]
    return values.astype(type.to_pandas_dtype())


def _decimals(type: pa.DataType, rows: int, random: np.random.Generator) -> list[Any]:
    import decimal

    def one() -> decimal.Decimal:
        digits = "".join(map(str, random.integers(0, 10, int(random.integers(1, type.precision + 1)))))
        return decimal.Decimal(random.choice(["", "-"]) + digits).scaleb(-type.scale, decimal.Context(80))

    nines = decimal.Decimal("9" * type.precision).scaleb(-type.scale, decimal.Context(80))
    return ([nines, nines.copy_negate(), decimal.Decimal(0)] + [one() for _ in range(rows)])[:rows]


def _random_bytes(
    type: pa.DataType, rows: int, random: np.random.Generator, missing: np.ndarray | None
) -> pa.Array:
    width = type.byte_width if pa.types.is_fixed_size_binary(type) else None
    is_text = type in (pa.string(), pa.large_string(), pa.string_view())
    letters = "abcdeé€𝄞 " if is_text else None
    values: list[Any] = []
    for i in range(rows):
        length = width if width is not None else int(random.integers(0, 8))
        if missing is not None and missing[i]:
            values.append(None)
        elif letters is not None:
            values.append("".join(random.choice(list(letters), length)))
        else:
            values.append(random.bytes(length))
    return pa.array(values, type)


def _random_lists(type: pa.DataType, rows: int, nulls: float, key: object) -> pa.Array:
    values = random_array(type.value_type, rows * type.list_size, nulls=nulls, key=key)
    return pa.FixedSizeListArray.from_arrays(values, type=type)


def nested_list(leaf: pa.DataType, *sizes: int) -> pa.DataType:
    """Fixed-size lists of `sizes`, outermost first, around `leaf`."""
    for size in reversed(sizes):
        leaf = pa.list_(leaf, size)
    return leaf


def shape_of(type: pa.DataType) -> tuple[int, ...]:
    """The shape that a row of fixed-size lists has."""
    return (type.list_size, *shape_of(type.value_type)) if pa.types.is_fixed_size_list(type) else ()


def leaves_of(array: pa.Array) -> pa.Array:
    """The innermost values of fixed-size lists."""
    while pa.types.is_fixed_size_list(array.type):
        array = array.flatten()
    return array


def tensor_dtype(type: pa.DataType) -> str:
    """The rule of docs/formats.md for torch and numpy."""
    if pa.types.is_integer(type) or pa.types.is_floating(type):
        return {"halffloat": "float16", "float": "float32", "double": "float64"}.get(str(type), str(type))
    if pa.types.is_boolean(type):
        return "bool"
    if pa.types.is_decimal(type):
        return "float64"
    return "int32" if pa.types.is_date(type) or pa.types.is_time32(type) else "int64"


def tensor_dtype_or_none(type: pa.DataType) -> str | None:
    """The same; None where a type has no tensor form."""
    is_number = pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_boolean(type)
    if (
        is_number
        or pa.types.is_decimal(type)
        or (pa.types.is_temporal(type) and not pa.types.is_interval(type))
    ):
        return tensor_dtype(type)
    return None


def tensor_form(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """What docs/formats.md says comes out for `array`: values (0 where missing), and what is missing."""
    shape = (len(array), *shape_of(array.type))
    leaf = leaves_of(array)
    missing = leaf.is_null().to_numpy(zero_copy_only=False)
    dtype = tensor_dtype(leaf.type)
    if pa.types.is_decimal(leaf.type):
        numbers = leaf.cast(pa.float64())
    elif pa.types.is_date64(leaf.type):
        numbers = pc.divide(leaf.view(pa.int64()), DAY_MS)
    elif pa.types.is_temporal(leaf.type):
        numbers = leaf.view(_storage(leaf.type))
    else:
        numbers = leaf
    values = np.zeros(len(leaf), dtype)
    values[~missing] = numbers.drop_null().to_numpy(zero_copy_only=False).astype(dtype)
    return values.reshape(shape), missing.reshape(shape)


def arrow_form(type: pa.DataType) -> pa.DataType:
    """The rule of docs/formats.md for format="arrow"."""
    if pa.types.is_fixed_size_list(type):
        return pa.list_(type.value_field.with_type(arrow_form(type.value_type)), type.list_size)
    if pa.types.is_decimal(type):
        return pa.decimal128(type.precision, type.scale)
    return type


def table_of(types: dict[str, pa.DataType], rows: int, *, nulls: float = 0.25, key: object = 0) -> pa.Table:
    """A table with a column of random values of each type; not nullable where `nulls` is 0."""
    fields = [pa.field(name, type, nullable=nulls > 0) for name, type in types.items()]
    arrays = [random_array(field.type, rows, nulls=nulls, key=key) for field in fields]
    return pa.table(arrays, schema=pa.schema(fields))


def to_numpy(tensor: Any) -> np.ndarray:
    """A torch.Tensor or numpy.ndarray as the latter."""
    return np.asarray(tensor)


def joined(batches: Iterable[Any]) -> Any:
    """All rows of an epoch, copied batch by batch so that none is held: {name: ndarray}, or a
    pyarrow.Table."""
    parts = [
        batch if isinstance(batch, pa.RecordBatch) else {name: to_numpy(batch[name]).copy() for name in batch}
        for batch in batches
    ]
    if not parts:
        return {}
    if isinstance(parts[0], pa.RecordBatch):
        return pa.Table.from_batches(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def assert_same_bits(got: np.ndarray, expected: np.ndarray, what: object = "") -> None:
    """Equal in type, shape and each value; NaN equals NaN."""
    assert got.dtype == expected.dtype, (what, got.dtype, expected.dtype)
    assert got.shape == expected.shape, (what, got.shape, expected.shape)
    np.testing.assert_array_equal(got, expected, err_msg=str(what))


def cut(rows: int, *sizes: int) -> list[tuple[int, int]]:
    """Half-open ranges of these sizes in turn that cover `rows`."""
    ranges, start = [], 0
    for size in itertools.cycle(sizes):
        if start >= rows:
            return ranges
        ranges.append((start, min(start + size, rows)))
        start += size
    return ranges


_PRIMES = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_MASK = 2**64 - 1


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _round(accumulator: int, lane: int) -> int:
    return _rotate(accumulator + lane * _PRIMES[1] & _MASK, 31) * _PRIMES[0] & _MASK


def xxh64(data: bytes) -> int:
    """XXH64 with seed 0, written from its specification (for fewer than 32 bytes)."""
    assert len(data) < 32
    p1, p2, p3, p4, p5 = _PRIMES
    value, at = p5 + len(data), 0
    while at + 8 <= len(data):
        value ^= _round(0, int.from_bytes(data[at : at + 8], "little"))
        value, at = (_rotate(value, 27) * p1 + p4) & _MASK, at + 8
    if at + 4 <= len(data):
        value ^= int.from_bytes(data[at : at + 4], "little") * p1 & _MASK
        value, at = (_rotate(value, 23) * p2 + p3) & _MASK, at + 4
    for byte in data[at:]:
        value = _rotate(value ^ byte * p5 & _MASK, 11) * p1 & _MASK
    for shift, prime in ((33, p2), (29, p3)):
        value = (value ^ value >> shift) * prime & _MASK
    return value ^ value >> 32


def bucket_of(value: Any, buckets: int) -> int:
    """What docs/formats.md says of hash_bucket: integers as eight bytes, text as UTF-8."""
    if isinstance(value, str):
        data = value.encode()
    else:
        data = value if isinstance(value, bytes) else (int(value) & _MASK).to_bytes(8, "little")
    return xxh64(data) % buckets
