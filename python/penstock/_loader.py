"""The loader that users see."""

from __future__ import annotations

import atexit
import inspect
import operator
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, TypeAlias

import pyarrow.compute as pc

from penstock import _core
from penstock._reports import Explanation, Stats
from penstock._schema import Schema
from penstock._source import Source, to_native_filesystem, to_paths
from penstock.ops import Chain, Op, as_chains, fill_null, to_native_transforms

__all__ = ["Loader"]

Format: TypeAlias = Literal["torch", "numpy", "arrow", "pandas"]
Nulls: TypeAlias = "Literal['error', 'mask'] | Mapping[str, bool | int | float | str | bytes]"
Transforms: TypeAlias = "Mapping[str, Op | Chain | Iterable[Op]]"

_MAX_INT = 2**31 - 1
_MAX_INT64 = 2**63 - 1

_live_loaders: weakref.WeakSet[_core.Loader] = weakref.WeakSet()


class Loader:
    """Stream batches of equal size from Parquet files, in order, within a memory budget.

    Each ``for batch in loader`` is one epoch. A batch is a dict ``{name: tensor}`` of views, nothing copied:
    valid, counted in the budget and yours to write to for as long as you hold them.

    Parameters
    ----------
    source : str, os.PathLike or list of them
        Files, folders (hive partitions become columns), glob patterns or a URI. They are read in this order,
        what is in a folder or matches a pattern sorted by path.
    batch_size : int, default 1024
        Rows per batch, >= 1. Only the last batch of an epoch may have fewer.
    drop_last : bool, default False
        Leave out a last batch that is not full.
    columns : sequence of str, optional
        The columns wanted, in this order. All of them by default. "struct.field" is a field of a struct.
    filter : pyarrow.compute.Expression, optional
        Only rows for which it is true. Its columns need not be in `columns`.
    transforms : dict, optional
        ``{"out": op}``, ``{"out": [op, op]}`` on the column of that name, or ``{"out": ps.col("in") | op |
        op}``, with ops of `penstock.ops`. They run on the workers, without the GIL.
    nulls : "error", "mask" or dict, default "error"
        What becomes of missing values: an error that names the column; a second array ``<name>_mask``, bool,
        True where a value is missing; or ``{column: value to put there}`` (an error in other columns). Arrow
        arrays have their own nulls with "mask", and so have all columns with format="arrow" and "pandas".
    format : {"torch", "numpy", "arrow", "pandas"}, default "torch"
        Dicts of torch.Tensor or numpy.ndarray, pyarrow.RecordBatch, or pandas.DataFrame. In a dict, strings
        are Arrow arrays, lists of numbers come as flat values (``name``) and where each row's begin
        (``name_offsets``), structs as their fields ("struct.field").
    num_workers : int, optional
        Threads that read and convert. None: the cores that this process may use. 0: everything is done on the
        caller's thread, in ``next()``.
    prefetch_batches : "auto" or int, default "auto"
        Finished batches ahead, >= 0. "auto": 1, and more where it helps.
    memory_budget : int or str, default "1GiB"
        The most memory that this loader holds, in bytes or as "256MiB".
    in_order : bool, default True
        False: deliver whichever batch is complete.
    limit : int, optional
        The most rows of an epoch, >= 0.
    filesystem : pyarrow.fs.FileSystem or fsspec file system, optional
        Where the paths are. By default local, or what a URI names.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or a column has no form in `format`.
    ValueError
        If an argument is out of range, a column is unknown, or the budget is below the least that can work
        (the message gives the number).
    OSError
        If a file is missing (FileNotFoundError), cannot be read or is no Parquet file.
    ImportError
        If `format` is "torch" and there is no torch, or "pandas" and there is no pandas.

    Warns
    -----
    RuntimeWarning
        If `num_workers` is above the number of cores, or `memory_budget` above the memory, that this process
        may use.

    Notes
    -----
    Batches are taken from one thread at a time; `stats`, `memory` and `close` may be called from any. The GIL
    is not held while waiting. Pickling a loader keeps its arguments, not a running epoch. After a fork a
    loader of the parent process cannot be used: make a new one.

    Examples
    --------
    >>> import penstock as ps
    >>> with ps.Loader("train/*.parquet", columns=["x", "y"]) as loader:  # doctest: +SKIP
    ...     for epoch in range(3):
    ...         for batch in loader:
    ...             step(batch["x"], batch["y"])
    """

    def __init__(
        self,
        source: Source,
        batch_size: int = 1024,
        drop_last: bool = False,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        transforms: Transforms | None = None,
        nulls: Nulls = "error",
        format: Format = "torch",
        num_workers: int | None = None,
        prefetch_batches: int | Literal["auto"] = "auto",
        memory_budget: int | str = "1GiB",
        in_order: bool = True,
        limit: int | None = None,
        filesystem: object = None,
        *,
        _direct_decode: bool = True,
    ) -> None:
        paths = to_paths(source)
        self._options: dict[str, Any] = {
            "source": paths[0] if isinstance(source, (str, os.PathLike)) else paths,
            "batch_size": _int("batch_size", batch_size, 1, _MAX_INT64),
            "drop_last": _bool("drop_last", drop_last),
            "columns": _columns(columns),
            "filter": _filter(filter),
            "transforms": as_chains(transforms) or None,
            "nulls": _nulls(nulls),
            "format": _format(format),
            "num_workers": None if num_workers is None else _int("num_workers", num_workers, 0, _MAX_INT),
            "prefetch_batches": _prefetch_batches(prefetch_batches),
            "memory_budget": _memory_budget(memory_budget),
            "in_order": _bool("in_order", in_order),
            "limit": None if limit is None else _int("limit", limit, 0, _MAX_INT64),
            "filesystem": filesystem,
            "_direct_decode": _bool("_direct_decode", _direct_decode),
        }
        _warn_of_excess(self._options)
        self._core = _make_core(paths, self._options)
        self._schema = Schema._of(self._core)
        _live_loaders.add(self._core)

    def __iter__(self) -> Iterator[Any]:
        """Start an epoch from its first row. An iterator that is still open is closed, and says so when used.

        Returns
        -------
        Iterator
            Of the batches. ``next()`` raises MemoryError, naming the number, where only giving back batches
            that you still hold could go on; OSError, ValueError and so on for what is wrong with the data.
        """
        iterator: Iterator[Any] = _core.EpochIterator(self._core)
        return iterator

    def __len__(self) -> int:
        """Batches of one epoch. TypeError where that is not known ahead (with a filter)."""
        return self._core.num_batches()

    @property
    def schema(self) -> Schema:
        """The columns of the batches: name -> `Field`."""
        return self._schema

    def explain(self) -> Explanation:
        """Say what this loader will do: plan, bytes per batch and slot, least budget, predicted peak.

        Reads the footers of all files the first time.
        """
        return Explanation(*self._core.explain())

    def stats(self) -> Stats:
        """Say what this loader has done since it was made. May be called at any time, from any thread."""
        return Stats(*self._core.stats())

    def memory(self) -> dict[str, Any]:
        """Return who holds how much memory, now and at the most.

        Returns
        -------
        dict
            ``{account: {"current_bytes", "peak_bytes"}, "total": {...}, "budget_bytes",
            "over_budget_bytes"}`` with the accounts metadata, decode, blocks, slots, shuffle, user (batches
            that you still hold), python and, beside the sum, device.
        """
        return self._core.memory()

    def close(self) -> None:
        """End everything: threads are joined, memory is given back.

        Batches in your hand stay valid. Idempotent; may be called while another thread is in ``next()``,
        which then raises RuntimeError.
        """
        self._core.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        shown = {
            name: value
            for name, value in self._options.items()
            if name in ("batch_size", "format", "memory_budget") or not _is_default(name, value)
        }
        source = shown.pop("source")
        shown["num_workers"] = self._core.num_workers
        words = [repr(source), *(f"{name}={_shown(value)}" for name, value in shown.items())]
        return f"Loader({', '.join(words)})"

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Loader], tuple[dict[str, Any]]]:
        return _rebuild, (self._options,)


_PARAMETERS = inspect.signature(Loader).parameters


def _is_default(name: str, value: object) -> bool:
    default = _PARAMETERS[name].default
    return type(value) is type(default) and value == default  # An Expression cannot be compared.


def _rebuild(options: dict[str, Any]) -> Loader:
    return Loader(**options)


def _make_core(paths: list[str], options: dict[str, Any]) -> _core.Loader:
    nulls = options["nulls"]
    fill = nulls if isinstance(nulls, dict) else {}
    filter_ = options["filter"]
    prefetch_batches = options["prefetch_batches"]
    return _core.Loader(
        paths=paths,
        filesystem=to_native_filesystem(options["filesystem"]),
        batch_size=options["batch_size"],
        drop_last=options["drop_last"],
        columns=options["columns"],
        filter=None if filter_ is None else _serialize(filter_),
        transforms=to_native_transforms(options["transforms"]),
        mask_nulls=nulls == "mask",
        fill_nulls={name: fill_null(value)._to_native() for name, value in fill.items()},
        format=options["format"],
        num_workers=-1 if options["num_workers"] is None else options["num_workers"],
        prefetch_batches=-1 if prefetch_batches == "auto" else prefetch_batches,
        memory_budget_bytes=_budget_bytes(options["memory_budget"]),
        in_order=options["in_order"],
        limit=options["limit"],
        direct_decode=options["_direct_decode"],
    )


def _serialize(expression: pc.Expression) -> bytes:
    # An Expression pickles as the buffer that arrow::compute::Deserialize reads.
    return bytes(expression.__reduce__()[1][0])


def _shown(value: object) -> str:
    return str(value) if isinstance(value, pc.Expression) else repr(value)


def _int(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{name} is an int, got a bool")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} is an int, got {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    if number > most:
        raise ValueError(f"{name} must be at most {most}, got {number}")
    return number


def _bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, got {value!r}")
    return value


def _columns(columns: Sequence[str] | None) -> list[str] | None:
    if columns is None:
        return None
    if isinstance(columns, str) or not all(isinstance(name, str) for name in columns):
        raise TypeError(f"columns is a list of names, got {columns!r}")
    return list(columns)


def _filter(expression: object) -> pc.Expression | None:
    if expression is None or isinstance(expression, pc.Expression):
        return expression
    raise TypeError(
        f"filter is a pyarrow.compute expression such as pc.field('x') > 0, got {type(expression).__name__}"
    )


def _nulls(nulls: object) -> Any:
    if nulls in ("error", "mask"):
        return nulls
    if isinstance(nulls, Mapping):
        for name, value in nulls.items():
            if not isinstance(name, str):
                raise TypeError(f"nulls: a column's name is a str, got {name!r}")
            fill_null(value)
        return dict(nulls)
    message = f"nulls is 'error', 'mask' or {{column: fill value}}, got {nulls!r}"
    raise ValueError(message) if isinstance(nulls, str) else TypeError(message)


def _format(format: object) -> str:
    if not isinstance(format, str) or format not in ("torch", "numpy", "arrow", "pandas"):
        raise ValueError(f"format is 'torch', 'numpy', 'arrow' or 'pandas', got {format!r}")
    if format == "pandas":
        try:
            import pandas  # noqa: F401
        except ImportError as error:
            raise ImportError("format='pandas' needs pandas: pip install pandas") from error
    if format == "torch":
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "format='torch' (the default) needs PyTorch: pip install torch, or pass format='numpy'"
            ) from error
    return format


def _prefetch_batches(prefetch_batches: object) -> Any:
    if isinstance(prefetch_batches, str):
        if prefetch_batches != "auto":
            raise ValueError(f"prefetch_batches is 'auto' or an int, got {prefetch_batches!r}")
        return "auto"
    return _int("prefetch_batches", prefetch_batches, 0, _MAX_INT)


def _memory_budget(memory_budget: object) -> Any:
    if isinstance(memory_budget, str):
        return memory_budget
    return _int("memory_budget", memory_budget, 1, _MAX_INT64)


def _budget_bytes(memory_budget: str | int) -> int:
    return _core.parse_bytes(memory_budget) if isinstance(memory_budget, str) else memory_budget


def _warn_of_excess(options: dict[str, Any]) -> None:
    workers, cores = options["num_workers"] or 0, _core.available_cores()
    if workers > cores:
        _warn(
            f"num_workers={workers} is more than the {cores} cores that this process may use; "
            "more threads than cores rarely help"
        )
    budget_bytes, available_bytes = _budget_bytes(options["memory_budget"]), _core.available_memory_bytes()
    if budget_bytes > available_bytes:
        _warn(
            f"memory_budget is {_core.format_bytes(budget_bytes)}, "
            f"but this process may use only {_core.format_bytes(available_bytes)}"
        )


def _warn(message: str) -> None:
    # From here through _warn_of_excess() and Loader() to the caller.
    warnings.warn(message, RuntimeWarning, stacklevel=4)


@atexit.register
def _close_live_loaders() -> None:
    # Not before the interpreter waits for its threads: one of them may still be iterating, and must get all
    # its batches. Penstock's own threads are no Python threads, so nobody has waited for them yet.
    for core in list(_live_loaders):
        core.close_at_exit()
    _core.end_of_python()
