"""Native transforms: what happens to a column on the workers, in C++, without the GIL.

Each op is a plain description. Ops are chained with ``|`` and run from left to right:

>>> import penstock as ps
>>> ps.col("price") | ps.ops.fill_null(0) | ps.ops.scale(mean=10.0, std=2.0)
col('price') | fill_null(value=0) | scale(mean=10.0, std=2.0)

All of them are immutable, can be compared, hashed and pickled.

`pad_list`, `pack`, `list_length`, `python` and `native` take whole rows: lists, or the column as it is in
the file.
"""

from __future__ import annotations

import array
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from penstock import _core, image
from penstock._list_ops import list_length, pack, pad_list
from penstock._op import (
    INT64_MIN,
    Chain,
    NativeOp,
    Op,
    check_int,
    col,
    make_floats,
    native_number,
    number_type_name,
)
from penstock._user_ops import native, python

__all__ = [
    "Chain",
    "Op",
    "cast",
    "clip",
    "col",
    "fill_null",
    "hash_bucket",
    "list_length",
    "lookup",
    "native",
    "pack",
    "pad_list",
    "python",
    "scale",
]


def _to_array(values: Any) -> pa.Array:
    """As pyarrow.array(), but strings without it: it imports pandas wherever that is installed (0.3 s)."""
    if type(values) in (list, tuple) and values and all(type(value) is str for value in values):
        texts = [value.encode() for value in values]
        ends = list(itertools.accumulate(map(len, texts), initial=0))
        if ends[-1] < 2**31:
            buffers = [None, pa.py_buffer(array.array("i", ends)), pa.py_buffer(b"".join(texts))]
            return pa.Array.from_buffers(pa.string(), len(texts), buffers)
    return pa.array(values)


class ArrowArray(Protocol):
    """Anything with the Arrow PyCapsule interface for arrays."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """Return the array's schema and data as capsules."""
        ...


@dataclass(frozen=True)
class cast(Op):  # noqa: N801 - used like a function.
    """To another number type.

    A value that does not fit (an overflow; a fraction or NaN where an integer is asked for) is an error that
    names the row. Strings are parsed as decimal numbers.

    Parameters
    ----------
    to : str, numpy.dtype, torch.dtype or pyarrow.DataType
        "bool", "int8" to "int64", "uint8" to "uint64", "float16", "float32" or "float64"; kept as that str.

    Raises
    ------
    ValueError
        If `to` is none of these.
    """

    to: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "to", number_type_name(self.to))

    def _to_native(self) -> NativeOp:
        return _core.Cast(self.to)


@dataclass(frozen=True)
class fill_null(Op):  # noqa: N801
    """Put `value` where a value is missing; after it the column has no nulls.

    Parameters
    ----------
    value : bool, int, float, str or bytes
        A number or bool for columns of numbers, a str or bytes for strings and binary.

    Raises
    ------
    TypeError
        If `value` is of another type.
    ValueError
        If `value` is an int beyond 64 bits.
    """

    value: bool | int | float | str | bytes

    def __post_init__(self) -> None:
        self._to_native()

    def _to_native(self) -> _core.FillNull:
        value = self.value
        if isinstance(value, str):
            return _core.FillNull(0.0, value.encode(), None)
        if isinstance(value, bytes):
            return _core.FillNull(0.0, value, None)
        return native_number(value)


@dataclass(frozen=True)
class hash_bucket(Op):  # noqa: N801
    """The bucket, in [0, buckets), of an integer, bool, string or binary value, as int64.

    The hash is 64-bit xxHash (XXH64, seed 0), the same on every machine and in every version.

    Parameters
    ----------
    buckets : int
        Number of buckets, >= 1.
    """

    buckets: int

    def __post_init__(self) -> None:
        check_int("buckets", self.buckets, 1)

    def _to_native(self) -> NativeOp:
        return _core.HashBucket(self.buckets)


@dataclass(frozen=True, eq=False)
class lookup(Op):  # noqa: N801
    """The position of the value in a vocabulary, as int64.

    Parameters
    ----------
    vocabulary : pyarrow.Array, an object with ``__arrow_c_array__``, or a sequence
        Strings, binary or integers, each value once. Kept as a pyarrow.Array.
    missing : int, optional
        What values get that are not in it. Not given: an error that names the value.
    """

    vocabulary: pa.Array | ArrowArray | Sequence[Any]
    missing: int | None = None

    def __post_init__(self) -> None:
        vocabulary: Any = self.vocabulary
        if isinstance(vocabulary, (str, bytes)):
            raise TypeError("vocabulary is a sequence or an array of values, not one value")
        if isinstance(vocabulary, pa.ChunkedArray):
            vocabulary = vocabulary.combine_chunks()
        if not isinstance(vocabulary, pa.Array):
            vocabulary = _to_array(vocabulary)
        object.__setattr__(self, "vocabulary", vocabulary)
        if self.missing is not None:
            check_int("missing", self.missing, INT64_MIN)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, lookup):
            return NotImplemented
        return self.missing == other.missing and self._array.equals(other._array)

    def __hash__(self) -> int:
        first = self._array[0].as_py() if len(self._array) else None
        return hash((self.missing, str(self._array.type), len(self._array), first))

    def __repr__(self) -> str:
        words = f"<{len(self._array)} of {self._array.type}>"
        return f"lookup(vocabulary={words}, missing={self.missing!r})"

    @property
    def _array(self) -> pa.Array:
        return self.vocabulary

    def _to_native(self) -> NativeOp:
        return _core.Lookup(self._array, self.missing)


@dataclass(frozen=True)
class scale(Op):  # noqa: N801
    """(x - mean) / std, as float64 from float64, decimals and 64-bit integers, as float32 from all others.

    Parameters
    ----------
    mean : float, default 0
        Taken off first.
    std : float, default 1
        Divided by then; not 0.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        make_floats(self)
        if self.std == 0:
            raise ValueError("std must not be 0")

    def _to_native(self) -> NativeOp:
        return _core.Scale(self.mean, self.std)


@dataclass(frozen=True)
class clip(Op):  # noqa: N801
    """min(max(x, lower), upper). The type stays, NaN stays NaN.

    Parameters
    ----------
    lower, upper : float, optional
        A bound that is not given does not clip.
    """

    lower: float | None = None
    upper: float | None = None

    def __post_init__(self) -> None:
        make_floats(self)
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"lower ({self.lower}) is above upper ({self.upper})")

    def _to_native(self) -> NativeOp:
        return _core.Clip(self.lower, self.upper)


def to_native_transforms(
    transforms: Mapping[str, Op | Chain | Iterable[Op]] | None,
) -> list[tuple[str, str, list[NativeOp]]]:
    """Return ``Loader(transforms=...)`` as (output, input, ops) for the native loader."""
    return [
        (output, chain.input or output, _native_ops(chain.ops))
        for output, chain in as_chains(transforms).items()
    ]


def _native_ops(ops: Sequence[Op]) -> list[NativeOp]:
    native: list[NativeOp] = []
    for is_image, run in itertools.groupby(ops, lambda op: isinstance(op, image.Step)):
        if is_image:
            native.append(image.to_native([op for op in run if isinstance(op, image.Step)]))
        else:
            native.extend(op._to_native() for op in run)
    return native


def as_chains(transforms: Mapping[str, Op | Chain | Iterable[Op]] | None) -> dict[str, Chain]:
    """Return ``Loader(transforms=...)`` with each value as a Chain."""
    if transforms is None:
        return {}
    if not hasattr(transforms, "items"):
        raise TypeError(f"transforms is a dict {{output: ops}}, got {type(transforms).__name__}")
    return {_output_name(output): _as_chain(output, value) for output, value in transforms.items()}


def _output_name(output: object) -> str:
    if not isinstance(output, str):
        raise TypeError(f"transforms: an output's name is a str, got {output!r}")
    return output


def _as_chain(output: str, value: object) -> Chain:
    if isinstance(value, Chain):
        return value
    if isinstance(value, Op):
        return Chain(None, (value,))
    if isinstance(value, (list, tuple)) and all(isinstance(op, Op) for op in value):
        return Chain(None, tuple(value))
    raise TypeError(
        f"transforms[{output!r}] is an op, a list of ops or ps.col('input') | op | op, got {value!r}"
    )
