"""Ops of the user's own, written in Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from penstock import _core
from penstock._op import NativeOp, Op, check_int, number_type_name
from penstock._python_result import to_numpy

__all__ = ["python"]


@dataclass(frozen=True)
class python(Op):  # noqa: N801 - used like a function.
    """An op written in Python: for prototypes, and for what no native op does.

    It holds the GIL, so that workers run it one at a time and the training loop waits meanwhile (unless `fn`
    lets the GIL go, as NumPy and Pillow do for long work). It must be the first op of its column; native ops
    may follow.

    Parameters
    ----------
    fn : callable
        Called on the workers' threads with a pyarrow.Array: some consecutive rows of the column, as they are
        in the file, nulls included. It may keep them (they are a copy). How many rows there are in a call
        depends on the run: each row's result must depend on that row alone. Returns as many rows of `shape`,
        none missing: a NumPy array, a torch tensor (CPU), a pyarrow array or a list. The rows and the result
        are not counted in the budget. The op can be pickled if `fn` can.
    dtype : str, numpy.dtype, torch.dtype or pyarrow.DataType
        The type of the result, as in `cast`; kept as that str. What `fn` returns is converted where no value
        changes (floats are rounded to narrower floats).
    shape : int or tuple of int, default ()
        The shape of one row; () for a scalar.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If an extent of `shape` is below 1, or `dtype` is no number type.

    Notes
    -----
    What `fn` raises ends the epoch and is raised by ``next()`` in its place, as it is, with a note that names
    file, row group, column and rows (Python 3.11 on). A result of another length, shape or type is a
    ValueError or TypeError.
    """

    fn: Callable[[pa.Array], Any]
    dtype: str
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"fn is a function of a pyarrow.Array, got {type(self.fn).__name__}")
        object.__setattr__(self, "dtype", number_type_name(self.dtype))
        shape = self.shape if isinstance(self.shape, (tuple, list)) else (self.shape,)
        for extent in shape:
            check_int("an extent of shape", extent, 1)
        object.__setattr__(self, "shape", tuple(int(extent) for extent in shape))

    def __repr__(self) -> str:
        return f"python({self._fn_name}, dtype={self.dtype!r}, shape={self.shape!r})"

    @property
    def _fn_name(self) -> str:
        return getattr(self.fn, "__qualname__", None) or type(self.fn).__qualname__

    def _run(self, exported: _core.ArrowExport) -> object:
        rows = pa.array(exported)
        try:
            result = self.fn(rows)
        except StopIteration as error:  # Would end the loop over the loader in silence.
            raise RuntimeError(f"{self._fn_name} raised StopIteration") from error
        return to_numpy(result, len(rows), self.dtype, self.shape)

    def _to_native(self) -> NativeOp:
        return _core.python_op(self._run, f"python({self._fn_name})", self.dtype, list(self.shape))
