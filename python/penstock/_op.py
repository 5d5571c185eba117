"""What every op is, and how ops are chained."""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from penstock import _core

__all__ = ["Chain", "NativeOp", "Op", "col"]

NativeOp: TypeAlias = (
    _core.Cast
    | _core.FillNull
    | _core.HashBucket
    | _core.Lookup
    | _core.Scale
    | _core.Clip
    | _core.Spin
    | _core.PadList
    | _core.Pack
    | _core.ListLength
    | _core.Custom
)

_CAST_TARGETS = _core.cast_targets()
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


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


def number_type_name(to: object) -> str:
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
        raise ValueError(f"{to!r} is not possible here; choose one of {', '.join(_CAST_TARGETS)}")
    return str(name)


def native_number(value: object) -> _core.FillNull:
    """Return a bool, int or float as the native side takes it."""
    if isinstance(value, (bool, np.bool_, float, np.floating)):
        return _core.FillNull(float(value), None, None)
    try:
        integer = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"a fill value is a bool, int, float, str or bytes, got {type(value).__name__}"
        ) from None
    if not INT64_MIN <= integer <= INT64_MAX:
        raise ValueError(f"the fill value {integer} does not fit into 64 bits")
    return _core.FillNull(float(integer), None, integer)


def make_floats(op: Any) -> None:
    for field in fields(op):
        value = getattr(op, field.name)
        if value is None:
            continue
        if isinstance(value, str):
            raise TypeError(f"{field.name} is a number, got a str")
        object.__setattr__(op, field.name, float(value))


def check_int(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} is an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
