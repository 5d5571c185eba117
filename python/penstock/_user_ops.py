"""Ops of the user's own: in Python, or in C++ in a shared object."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from penstock import _core
from penstock._op import NativeOp, Op, check_int, number_type_name
from penstock._python_result import to_numpy

__all__ = ["native", "python"]


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


@dataclass(frozen=True, init=False, repr=False)
class native(Op):  # noqa: N801 - used like a function.
    """An op written in C++, from a shared object: runs on the workers, without the GIL.

    It must be the first op of its column; native ops may follow. ``penstock/custom_op.h`` says what it has
    to do, ``examples/native_op`` has one of 40 lines.

    Parameters
    ----------
    path : str or os.PathLike
        The shared object. It is loaded when a loader is made, and stays loaded until the process ends.
    symbol : str
        The name given to ``PENSTOCK_EXPORT_OP``.
    **params : object
        The op's settings; it gets each as `str`.

    Raises
    ------
    TypeError
        If `path` or `symbol` is of the wrong type.

    Notes
    -----
    Making the loader raises OSError where the file cannot be loaded, ValueError where it has no such op, was
    built with another Penstock or Arrow, or refuses its settings, and TypeError where it does not take the
    column. A shared object is code: load only those that you trust.
    """

    path: str
    symbol: str
    params: tuple[tuple[str, str], ...]

    def __init__(self, path: str | os.PathLike[str], symbol: str, **params: object) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"path is a str or a path, got {type(path).__name__}")
        if not isinstance(symbol, str):
            raise TypeError(f"symbol is a str, got {type(symbol).__name__}")
        object.__setattr__(self, "path", os.fspath(path))
        object.__setattr__(self, "symbol", symbol)
        object.__setattr__(
            self, "params", tuple(sorted((name, str(value)) for name, value in params.items()))
        )

    def __repr__(self) -> str:
        params = "".join(f", {name}={value!r}" for name, value in self.params)
        return f"native({self.path!r}, {self.symbol!r}{params})"

    def _to_native(self) -> NativeOp:
        return _core.load_custom_op(self.path, self.symbol, dict(self.params))
