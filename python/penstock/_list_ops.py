"""Ops on columns of lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock import _core
from penstock._op import NativeOp, Op, check_int, native_number

__all__ = ["list_length", "pack", "pad_list"]

_SIDES = ("left", "right")
_MAX_LENGTH = 2**31 - 1


@dataclass(frozen=True)
class pad_list(Op):  # noqa: N801 - used like a function.
    """Lists to rows of one length: shorter ones are padded, longer ones refused or cut.

    The column is a list of numbers (or of fixed-size lists of them; of strings, with `hash_bucket` or
    `lookup` in front), in any of Arrow's list layouts. Ops in front of it and behind it run on the items; the
    padding goes through those behind it. All items of a missing list are missing: the null policy and
    `fill_null` see items. Padding is not missing. `list_length` gives the lengths beside it.

    Parameters
    ----------
    length : int
        Items per row, >= 1.
    value : bool, int or float, default 0
        What is put in for padding, in the type that the items have at this place of the chain.
    truncate : bool or "right" or "left", default False
        Where a longer list loses items: True or "right" keeps its beginning, "left" its end. False: it is an
        error that names the row.
    side : "right" or "left", default "right"
        Where the padding goes: behind the items or in front of them.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If an argument is out of range.
    """

    length: int
    value: bool | int | float = 0
    truncate: bool | Literal["right", "left"] = False
    side: Literal["right", "left"] = "right"

    def __post_init__(self) -> None:
        _check_padding(self.length, self.value)
        if self.truncate is True:
            object.__setattr__(self, "truncate", "right")
        if self.truncate is not False and self.truncate not in _SIDES:
            raise ValueError(f"truncate is False, True, 'right' or 'left', got {self.truncate!r}")
        if self.side not in _SIDES:
            raise ValueError(f"side is 'right' or 'left', got {self.side!r}")

    def _to_native(self) -> NativeOp:
        truncate = None if self.truncate is False else str(self.truncate)
        return _core.PadList(self.length, native_number(self.value), self.side, truncate)


@dataclass(frozen=True)
class pack(Op):  # noqa: N801
    """Lists (documents) end to end in rows of `length` items, without padding in between.

    Row i of an epoch is its items from ``i * length`` on, whichever lists they are from, so a list may begin
    in one row and go on in the next. All columns of the loader are packed, to the same length, and have lists
    of equal lengths in each row of the source (tokens, labels, a loss mask); leave others out with `columns`.
    `batch_size`, `limit` and ``stats`` count packed rows; ``len()`` is known with ``balance="rows"`` alone.

    A *segment* is as much of one list as lies in one row. Beside the first column, ``name``, come:

    ``name_positions``
        int32, (rows, length): each item's position in its segment, from 0. These are the `position_ids` of
        Hugging Face's models.
    ``name_offsets``
        int32, with tensors: where the segments of the batch begin among its rows * length items, and where
        the last one ends. These are the `cu_seqlens` of FlashAttention's varlen functions.

    Ops in front of it and behind it run on the items. Missing lists are an error, or have no items where
    nulls are masked or filled; items follow the null policy.

    The last row of an epoch is filled up with `value`, as a segment of its own; ``drop_last=True`` leaves out
    the batch that would have needed it. With ``shuffle=True`` row groups are permuted, their documents packed
    and the packed rows mixed within windows. Ranks divide the documents, and may get different numbers of
    batches; with ``balance="rows"`` they divide the packed rows, and get as many.

    Parameters
    ----------
    length : int
        Items per row, >= 1.
    value : bool, int or float, default 0
        What fills up the last row, in the type that the items have at this place of the chain.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If an argument is out of range.
    """

    length: int
    value: bool | int | float = 0

    def __post_init__(self) -> None:
        _check_padding(self.length, self.value)

    def _to_native(self) -> NativeOp:
        return _core.Pack(self.length, native_number(self.value))


def _check_padding(length: int, value: object) -> None:
    check_int("length", length, 1)
    if length > _MAX_LENGTH:
        raise ValueError(f"length must be at most {_MAX_LENGTH}, got {length}")
    if isinstance(value, (str, bytes)):
        raise TypeError(f"the padding's value is a number, got {value!r}")
    native_number(value)


@dataclass(frozen=True)
class list_length(Op):  # noqa: N801
    """The number of items of each list, as int64; missing where the list is missing.

    The first op of its column, which is a list of anything. As a second output beside `pad_list` it says what
    is padding: ``{"tokens": pad_list(512), "length": ps.col("tokens") | list_length()}``.
    """

    def _to_native(self) -> NativeOp:
        return _core.ListLength()
