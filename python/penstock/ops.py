"""Native transforms: what happens to a column on the workers, in C++, without the GIL.

Each op is a plain description. Ops are chained with ``|`` and run from left to right:

>>> import penstock as ps
>>> ps.col("price") | ps.ops.fill_null(0) | ps.ops.scale(mean=10.0, std=2.0)
col('price') | fill_null(value=0) | scale(mean=10.0, std=2.0)

All of them are immutable, can be compared, hashed and pickled.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa

from penstock import _core

__all__ = ["Chain", "Op", "cast", "clip", "col", "fill_null", "hash_bucket", "lookup", "scale"]

NativeOp: TypeAlias = (
    _core.Cast | _core.FillNull | _core.HashBucket | _core.Lookup | _core.Scale | _core.Clip | _core.Spin
)

_CAST_TARGETS = _core.cast_targets()
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


class ArrowArray(Protocol):
    """Anything with the Arrow PyCapsule interface for arrays."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """Return the array's schema and data as capsules."""
        ...


class Op:
    """One native transform of a column. Made by the functions of this module, chained with ``|``."""

    def __or__(self, other: Op | Chain) -> Chain:
        return Chain(None, (self,)) | other

    def _to_native(self) -> NativeOp:
        raise NotImplementedError


@dataclass(frozen=True)
class Chain:
    """Ops in the order in which they run, and the column that they run on.

    Parameters
    ----------
    input : str or None
        Name of the column in the source; None stands for the column of the output's own name.
    ops : tuple of Op
        What is done to it.
    """

    input: str | None
    ops: tuple[Op, ...] = ()

    def __or__(self, other: Op | Chain) -> Chain:
        if isinstance(other, Chain):
            if other.input is not None:
                raise TypeError(f"{other!r} starts from a column of its own; only ops can follow after '|'")
            return Chain(self.input, self.ops + other.ops)
        if isinstance(other, Op):
            return Chain(self.input, (*self.ops, other))
        return NotImplemented

    def __repr__(self) -> str:
        start = [] if self.input is None else [f"col({self.input!r})"]
        return " | ".join(start + [repr(op) for op in self.ops])


def col(name: str) -> Chain:
    """Start a chain of ops from a column of the source.

    Parameters
    ----------
    name : str
        The column's name in the files.

    Returns
    -------
    Chain
        ``ps.col("a") | ps.ops.cast("float32")`` as a value of ``Loader(transforms={...})``.
    """
    if not isinstance(name, str):
        raise TypeError(f"a column's name is a str, got {type(name).__name__}")
    return Chain(name)


def _number_type_name(to: object) -> str:
    if isinstance(to, pa.DataType):
        to = np.dtype(to.to_pandas_dtype())
    text = str(to).removeprefix("torch.")
    if text in _CAST_TARGETS:
        return text
    try:
        name = np.dtype(to).name  # type: ignore[call-overload]
    except TypeError:
        name = text
    if name not in _CAST_TARGETS:
        raise ValueError(f"cast to {to!r} is not possible; choose one of {', '.join(_CAST_TARGETS)}")
    return str(name)


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
        object.__setattr__(self, "to", _number_type_name(self.to))

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
        if isinstance(value, (bool, np.bool_)):
            return _core.FillNull(float(value), None, None)
        if isinstance(value, (float, np.floating)):
            return _core.FillNull(float(value), None, None)
        try:
            integer = operator.index(value)
        except TypeError:
            raise TypeError(
                f"a fill value is a bool, int, float, str or bytes, got {type(value).__name__}"
            ) from None
        if not _INT64_MIN <= integer <= _INT64_MAX:
            raise ValueError(f"the fill value {integer} does not fit into 64 bits")
        return _core.FillNull(float(integer), None, integer)


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
        _check_int("buckets", self.buckets, 1)

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
            vocabulary = pa.array(vocabulary)
        object.__setattr__(self, "vocabulary", vocabulary)
        if self.missing is not None:
            _check_int("missing", self.missing, _INT64_MIN)

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
        _make_floats(self)
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
        _make_floats(self)
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"lower ({self.lower}) is above upper ({self.upper})")

    def _to_native(self) -> NativeOp:
        return _core.Clip(self.lower, self.upper)


def _make_floats(op: Any) -> None:
    for field in fields(op):
        value = getattr(op, field.name)
        if value is None:
            continue
        if isinstance(value, str):
            raise TypeError(f"{field.name} is a number, got a str")
        object.__setattr__(op, field.name, float(value))


def _check_int(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} is an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def to_native_transforms(
    transforms: Mapping[str, Op | Chain | Iterable[Op]] | None,
) -> list[tuple[str, str, list[NativeOp]]]:
    """Return ``Loader(transforms=...)`` as (output, input, ops) for the native loader."""
    return [
        (output, chain.input or output, [op._to_native() for op in chain.ops])
        for output, chain in as_chains(transforms).items()
    ]


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
