"""How many bytes an object holds that user code returned, beyond those that are counted already."""

from __future__ import annotations

import bisect
import dataclasses
import sys
import types
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from penstock import _core

__all__ = ["Footprint", "charge_at_death", "charge_python", "memory_of"]

# Of a long list some elements are looked at and stand for the rest: an estimate must not cost what collating
# does.
_MOST_ELEMENTS = 64
_MOST_DEPTH = 32
_PLAIN = (str, bytes, bytearray, int, float, complex, np.generic)
_ARROW = (pa.Array, pa.ChunkedArray, pa.RecordBatch, pa.Table)
_NO_DATA = (
    type(None),
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
)


class Footprint:
    """Finds the memory behind `value`: tensors by their storage, arrays by what they are views of.

    Parameters
    ----------
    value : object
        Anything; dicts, other mappings, lists, tuples, dataclasses and objects with attributes are walked
        through.
    counted : list of (int, int), optional
        Address ranges [begin, end), sorted, that are counted elsewhere.

    Attributes
    ----------
    ranges : list of (int, int)
        Address ranges that were found, `counted` left out.
    holders : list of (object, int)
        Objects at whose death bytes come free, and how many.
    plain_bytes : int
        Bytes of objects whose death cannot be watched, such as strings and lists.
    """

    def __init__(self, value: object, counted: Iterable[tuple[int, int]] = ()) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.holders: list[tuple[object, int]] = []
        self.plain_bytes = 0
        self._counted = list(counted)
        self._torch = sys.modules.get("torch")
        self._pandas = sys.modules.get("pandas")
        self._seen: set[int] = set()
        self._weight = 1.0  # How many elements the one that is looked at stands for.
        self._add(value, 0)

    def _add(self, value: Any, depth: int) -> None:
        if isinstance(value, _PLAIN):
            self.plain_bytes += int(self._weight * sys.getsizeof(value))
            return
        if isinstance(value, _NO_DATA) or id(value) in self._seen or depth > _MOST_DEPTH:
            return
        self._seen.add(id(value))
        if isinstance(value, np.ndarray):
            self._add_array(value, depth)
        elif self._torch is not None and isinstance(value, self._torch.Tensor):
            self._add_tensor(value)
        elif isinstance(value, _ARROW):
            self._add_arrow(value)
        elif self._pandas is not None and isinstance(value, (self._pandas.DataFrame, self._pandas.Series)):
            usage = value.memory_usage(deep=False)
            self._hold(value, int(usage if isinstance(value, self._pandas.Series) else usage.sum()))
        else:
            self._add_container(value, depth + 1)

    def _add_container(self, value: Any, depth: int) -> None:
        self.plain_bytes += int(self._weight * sys.getsizeof(value, 0))
        if isinstance(value, (dict, Mapping)):
            self._add_elements(list(value.values()), depth)
        elif isinstance(value, (list, tuple)):
            self._add_elements(value, depth)
        elif isinstance(value, (set, frozenset, deque)):
            self._add_elements(list(value), depth)
        elif dataclasses.is_dataclass(value):
            self._add_elements(
                [getattr(value, field.name, None) for field in dataclasses.fields(value)], depth
            )
        elif hasattr(value, "__dict__"):
            self._add_elements(list(vars(value).values()), depth)

    def _add_elements(self, elements: list[Any] | tuple[Any, ...], depth: int) -> None:
        if len(elements) <= _MOST_ELEMENTS:
            for element in elements:
                self._add(element, depth)
            return
        weight = self._weight
        self._weight = weight * len(elements) / _MOST_ELEMENTS
        for i in range(_MOST_ELEMENTS):
            self._add(elements[i * len(elements) // _MOST_ELEMENTS], depth)
        self._weight = weight

    def _add_array(self, array: np.ndarray[Any, Any], depth: int) -> None:
        root: Any = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        if self._is_new(root.__array_interface__["data"][0], root.nbytes):
            self._hold(root, root.nbytes)
        if array.dtype == object:
            self._add_elements(array.ravel()[: _MOST_ELEMENTS * 64].tolist(), depth + 1)

    def _add_tensor(self, tensor: Any) -> None:
        if tensor.device.type != "cpu":
            return  # Not in the process's memory.
        try:
            storage = tensor.untyped_storage()
            address, size = storage.data_ptr(), storage.nbytes()
        except (NotImplementedError, RuntimeError):  # Sparse ones, and others without a storage.
            self._hold(tensor, tensor.numel() * tensor.element_size())
            return
        if self._is_new(address, size):
            self._hold(storage, size)

    def _add_arrow(self, value: Any) -> None:
        columns = value.columns if isinstance(value, (pa.Table, pa.RecordBatch)) else [value]
        size = 0
        for column in columns:
            for array in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
                for buffer in array.buffers():
                    if buffer is not None and self._is_new(buffer.address, buffer.size):
                        size += buffer.size
        self._hold(value, size)

    def _is_new(self, address: int, size: int) -> bool:
        """Whether this memory is neither counted elsewhere nor seen before."""
        if size == 0 or address in self._seen:
            return False
        at = bisect.bisect_right(self._counted, (address, sys.maxsize)) - 1
        if at >= 0 and address < self._counted[at][1]:
            return False
        self._seen.add(address)
        self.ranges.append((address, address + size))
        return True

    def _hold(self, holder: object, size: int) -> None:
        size = int(self._weight * size)
        if size > 0:
            self.holders.append((holder, size))


def memory_of(value: object) -> list[tuple[int, int]]:
    """Return the address ranges of the tensors and arrays in `value`, sorted."""
    return sorted(Footprint(value).ranges)


def charge_python(core: _core.Loader, value: object, counted: list[tuple[int, int]]) -> _core.Charge | None:
    """Charge what `value` holds to the account "python", but for `counted` address ranges.

    Tensors and arrays are given back when they die, wherever they are then. The rest, whose death cannot be
    watched, is given back with what is returned, at hand-over.
    """
    footprint = Footprint(value, counted)
    plain_bytes = footprint.plain_bytes
    for holder, size in footprint.holders:
        if not charge_at_death(core, "python", holder, size):
            plain_bytes += size
    return core.charge("python", plain_bytes) if plain_bytes else None


def charge_at_death(core: _core.Loader, account: str, holder: object, size: int) -> bool:
    """Charge `size` bytes until `holder` dies. False, and nothing charged, where that cannot be watched."""
    try:
        ref = weakref.ref(holder, _give_back)
    except TypeError:
        return False
    _charged[id(ref)] = ref, core.charge(account, size)
    return True


# By the identity of the reference: what is referred to need not be hashable.
_charged: dict[int, tuple[weakref.ref[Any], _core.Charge]] = {}


def _give_back(ref: weakref.ref[Any], charged: dict[int, Any] = _charged) -> None:
    charged.pop(id(ref), None)  # An argument: globals are gone at the end of the interpreter.
