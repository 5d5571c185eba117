"""The loader that users see."""

from __future__ import annotations

import atexit
import inspect
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pyarrow.compute as pc

from penstock import _collate, _core, _state
from penstock._arguments import (
    MAX_EPOCH,
    MAX_INT,
    MAX_INT64,
    MAX_UINT64,
    check_balance,
    check_bool,
    check_bytes,
    check_callable,
    check_columns,
    check_filter,
    check_format,
    check_int,
    check_max_errors,
    check_nulls,
    check_on_error,
    check_pin_memory,
    check_prefetch_batches,
    check_seconds,
    check_uneven,
    to_bytes,
    warn_of_excess,
    warn_of_uneven_packing,
    warn_of_uneven_ranks,
)
from penstock._device import check_device
from penstock._epoch import Epoch, UserCode
from penstock._ranks import resolve_ranks
from penstock._reports import Explanation, Stats
from penstock._schema import Schema
from penstock._source import NativeSource, Source, to_native_filesystem, to_native_source
from penstock._split import Split
from penstock.ops import Chain, Op, as_chains, fill_null, to_native_transforms

if TYPE_CHECKING:
    from torch.utils.data import IterableDataset

__all__ = ["MOST_WINDOW_ROWS", "Loader"]

Format: TypeAlias = Literal["torch", "numpy", "arrow", "pandas"]
Nulls: TypeAlias = "Literal['error', 'mask'] | Mapping[str, bool | int | float | str | bytes]"
Transforms: TypeAlias = "Mapping[str, Op | Chain | Iterable[Op]]"

MOST_WINDOW_ROWS = 2**31  # Of a shuffle; as in C++.

_live_loaders: weakref.WeakSet[_core.Loader] = weakref.WeakSet()


class Loader:
    """Stream batches of equal size from Parquet files, in order, within a memory budget.

    Each ``for batch in loader`` is one epoch. A batch is a dict ``{name: tensor}`` of views, nothing copied:
    valid, counted in the budget and yours to write to for as long as you hold them.

    Parameters
    ----------
    source : str, os.PathLike or list of them; or data in memory, or a stream
        Files, folders (hive partitions become columns), glob patterns or a URI. They are read in this order,
        what is in a folder or matches a pattern sorted by path. Parquet, Arrow IPC, CSV and JSON lines; one
        kind in one loader.

        A pyarrow.dataset.Dataset of files; a pyarrow Table or RecordBatch, a polars.DataFrame: read again in
        each epoch, their memory is yours and not counted.

        A RecordBatchReader, anything else with ``__arrow_c_stream__``, or an iterable of tables and record
        batches. What they give is counted while it is held. Where it is an iterator (or a reader) there is
        one epoch; an iterable, and what gives a fresh stream each time, is iterated once per epoch. It runs
        on a worker, one call at a time.
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
    collate_fn : callable, optional
        Makes of each whole batch, as `format` has it, what the loop gets. Runs on `collate_workers` threads,
        ahead of the loop; in ``next()``, on the caller's thread, with ``num_workers=0``, and with one such
        thread also while the loop has no step worth the name (it is back within 0.1 ms, eight times in a
        row). Results keep the order of the batches. What it returns is estimated and charged to the account
        "python".
    finalize_fn : callable, optional
        As `collate_fn`, but last: on the caller's thread, in ``next()``, one batch at a time and in order.
    format : {"torch", "numpy", "arrow", "pandas"}, default "torch"
        Dicts of torch.Tensor or numpy.ndarray, pyarrow.RecordBatch, or pandas.DataFrame. In a dict, strings
        are Arrow arrays, lists of numbers come as flat values (``name``) and where each row's begin
        (``name_offsets``), structs as their fields ("struct.field").
    num_workers : int, optional
        Threads that read and convert. None: the cores that this process may use. 0: everything is done on the
        caller's thread, in ``next()``.
    collate_workers : int, default 1
        Threads that run `collate_fn`, >= 1. More than one helps where it lets go of the GIL. They hold up to
        ``collate_workers + 1`` batches, for which `explain` accounts.
    prefetch_batches : "auto" or int, default "auto"
        Finished batches ahead, >= 0. "auto": 1, and more where it helps.
    memory_budget : int or str, default "1GiB"
        The most memory that this loader holds, in bytes or as "256MiB".
    in_order : bool, default True
        False: deliver whichever batch is complete.
    pin_memory : bool, default False
        Lock the memory of batches in place, so that a GPU copies from it by itself:
        ``batch["x"].to("cuda", non_blocking=True)``. Needs NVIDIA's driver, which is found at run time. The
        memory of a batch is not used again before the GPUs have done what they had been given when the batch
        died. Values of columns whose rows vary in size (strings, lists) are not locked. Not with "pandas",
        which copies.
    device : str or torch.device, optional
        "cuda" or "cuda:N": tensors are copied there on a stream of their own, at most one batch ahead, after
        `collate_fn` and before `finalize_fn`. "cpu": where they are. Needs ``format="torch"``. Batches are
        page-locked then, as with `pin_memory`; where the driver refuses, they are copied as they are, with a
        warning.
    shuffle : bool, default False
        Another order in each epoch, the same for the same data, `seed` and `shuffle_window`, whatever the
        workers: row groups are permuted over the whole data set, rows within windows that join many of them.
        With a filter, the rows that pass are counted first. With `penstock.ops.pack` the packed rows are
        mixed, and none are counted without `balance`. Of a source that is read to be counted (a stream, an
        iterable, text files), rows are mixed within windows of consecutive rows alone.
    seed : int, default 0
        What random orders and what random transforms draw are made from, in [0, 2**64).
    shuffle_window : int or str, default "256MiB"
        Memory in which rows are mixed, part of `memory_budget`: one half is filled while the other is
        emptied. The larger, the better the rows are mixed; with room for 2.5 times the data, the order is a
        full random permutation.
    rank, world_size : int, optional
        Rank r of w gets the r-th of w consecutive parts of an epoch, all of the same size. None: from
        torch.distributed where that is initialised, else from the environment (RANK, WORLD_SIZE), else 0 of
        1.
    uneven : {"drop", "repeat"}, default "drop"
        The rows that do not divide by `world_size`: nobody gets the last of them (``stats`` counts them), or
        the first rows of the epoch come again at its end.
    balance : "rows", optional
        With a filter: count the rows that pass first, reading the filter's columns, so that ranks get as many
        and ``len()`` is known. None: ranks divide the rows before the filter, and may get different numbers
        of batches. With `penstock.ops.pack`: count the items of all lists first, from the footers where these
        have their numbers, so that ranks divide the packed rows. None: they divide the documents.
    epochs : int, optional
        Epochs of one iteration, >= 1: a stream without a pause between them, in which a batch may have rows
        of two. None: 1.
    limit : int, optional
        The most rows of an epoch, >= 0.
    on_error : str, default "raise"
        What happens to a row whose value does not convert (a broken photo, a number that does not fit), a row
        group that cannot be decoded, a file that cannot be opened. "raise": the error ends the iteration.
        "skip": such rows get the fill value that `nulls` has for their column, else they are left out of
        their batch, which is then shorter; other batches stay what they were (but for whole files, and row
        groups behind a filter), and `stats` counts and names what was left out. What your own Python raises
        is never skipped.
    max_errors : int, optional
        With ``on_error="skip"``: more errors than that in one iteration raise one of them. None: no
        limit.
    filesystem : pyarrow.fs.FileSystem or fsspec file system, optional
        Where the paths are. By default local, or what a URI names.
    on_stats : callable, optional
        Called with `Stats` on the caller's thread: in ``next()`` when `on_stats_every_s` have passed since
        the last call, and at the end of each epoch.
    on_stats_every_s : float, default 10.0
        Seconds between two calls of `on_stats`, >= 0; 0: before every batch.

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
    RuntimeError
        If `device` is a CUDA device, or `pin_memory` is True, and there is no GPU; when iterating, if the
        driver refuses to lock as much memory as `pin_memory` needs.

    Warns
    -----
    RuntimeWarning
        If ranks may get different numbers of batches (a filter or `penstock.ops.pack` without `balance`), or
        `num_workers` is above the number of cores, or `memory_budget` above the memory, that this process
        may use. When iterating, once, if batches for `device` cannot be page-locked.

    Notes
    -----
    What `collate_fn`, `finalize_fn` and `on_stats` raise, of whatever type, is raised once by ``next()``, in
    its place behind the batches before it, and ends the epoch. Returning None is an error too.

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
        collate_fn: Callable[[Any], Any] | None = None,
        finalize_fn: Callable[[Any], Any] | None = None,
        format: Format = "torch",
        num_workers: int | None = None,
        collate_workers: int = 1,
        prefetch_batches: int | Literal["auto"] = "auto",
        memory_budget: int | str = "1GiB",
        in_order: bool = True,
        pin_memory: bool = False,
        device: object = None,
        shuffle: bool = False,
        seed: int = 0,
        shuffle_window: int | str = "256MiB",
        rank: int | None = None,
        world_size: int | None = None,
        uneven: Literal["drop", "repeat"] = "drop",
        balance: Literal["rows"] | None = None,
        epochs: int | None = None,
        limit: int | None = None,
        on_error: str = "raise",
        max_errors: int | None = None,
        filesystem: object = None,
        on_stats: Callable[[Stats], object] | None = None,
        on_stats_every_s: float = 10.0,
        *,
        _direct_decode: bool = True,
        _pin_for_device: bool = True,
        _shuffle_window_rows: int = 0,
    ) -> None:
        part = source if isinstance(source, Split) else None
        native = to_native_source(source if part is None else part.source, filesystem)
        self._options: dict[str, Any] = {
            "source": part or _plain_source(source, native),
            "batch_size": check_int("batch_size", batch_size, 1, MAX_INT64),
            "drop_last": check_bool("drop_last", drop_last),
            "columns": check_columns(columns),
            "filter": check_filter(filter),
            "transforms": as_chains(transforms) or None,
            "nulls": check_nulls(nulls),
            "collate_fn": check_callable("collate_fn", collate_fn),
            "finalize_fn": check_callable("finalize_fn", finalize_fn),
            "format": check_format(format),
            "num_workers": None if num_workers is None else check_int("num_workers", num_workers, 0, MAX_INT),
            "collate_workers": check_int("collate_workers", collate_workers, 1, MAX_INT - 1),
            "prefetch_batches": check_prefetch_batches(prefetch_batches),
            "memory_budget": check_bytes("memory_budget", memory_budget),
            "in_order": check_bool("in_order", in_order),
            "pin_memory": check_pin_memory(pin_memory, format),
            "device": device,
            "shuffle": check_bool("shuffle", shuffle),
            "seed": check_int("seed", seed, 0, MAX_UINT64),
            "shuffle_window": check_bytes("shuffle_window", shuffle_window),
            "rank": None if rank is None else check_int("rank", rank, 0, MAX_INT),
            "world_size": None if world_size is None else check_int("world_size", world_size, 1, MAX_INT),
            "uneven": check_uneven(uneven),
            "balance": check_balance(balance),
            "epochs": None if epochs is None else check_int("epochs", epochs, 1, MAX_INT),
            "limit": None if limit is None else check_int("limit", limit, 0, MAX_INT64),
            "on_error": check_on_error(on_error),
            "max_errors": check_max_errors(max_errors, on_error),
            "filesystem": filesystem,
            "on_stats": check_callable("on_stats", on_stats),
            "on_stats_every_s": check_seconds("on_stats_every_s", on_stats_every_s),
            "_direct_decode": check_bool("_direct_decode", _direct_decode),
            "_pin_for_device": check_bool("_pin_for_device", _pin_for_device),
            "_shuffle_window_rows": check_int(
                "_shuffle_window_rows", _shuffle_window_rows, 0, MOST_WINDOW_ROWS
            ),
        }
        self._rank, self._world_size = resolve_ranks(rank, world_size)
        warn_of_excess(self._options)
        warn_of_uneven_ranks(self._options, self._world_size)
        warn_of_uneven_packing(self._options, self._world_size)
        self._user_code = UserCode(
            self._options["collate_fn"],
            self._options["collate_workers"],
            self._options["finalize_fn"],
            self._options["on_stats"],
            self._options["on_stats_every_s"],
            check_device(device, self._options["format"]),
        )
        self._is_one_shot = native.is_one_shot
        self._epoch: weakref.ref[Epoch] | None = None
        self._core = _make_core(native, self._options, self._user_code, self._rank, self._world_size)
        self._schema = Schema._of(self._core)
        _live_loaders.add(self._core)

    def __iter__(self) -> Iterator[Any]:
        """Start the next epoch, or go on where `load_state_dict` said.

        An iterator that is still open is closed, and says so when used.

        Returns
        -------
        Iterator
            Of the batches. ``next()`` raises MemoryError, naming the number, where only giving back batches
            that you still hold could go on; OSError, ValueError and so on for what is wrong with the data.
        """
        if not self._user_code.is_any:
            plain: Iterator[Any] = _core.EpochIterator(self._core)
            return plain
        open_epoch = self._open_epoch()
        if open_epoch is not None:
            open_epoch.supersede()
        epoch = Epoch(self._core, self._user_code)
        self._epoch = weakref.ref(epoch)
        return epoch

    def _open_epoch(self) -> Epoch | None:
        return None if self._epoch is None else self._epoch()

    def __len__(self) -> int:
        """Batches of one iteration. TypeError where not known ahead (filter, pack: see balance; a stream)."""
        return self._core.num_batches()

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration begin with that epoch, in [0, 2**32).

        Without it each iteration begins the epoch after the last one begun, 0 first; one that was broken off
        counts. A state of that very epoch that was loaded stands.
        """
        self._core.set_epoch(check_int("epoch", epoch, 0, MAX_EPOCH))

    def state_dict(self) -> dict[str, Any]:
        """Say where you are: the batch in your hand, and all before it, count as done.

        What is prefetched does not. Plain values that JSON can carry, mostly below 1 KiB; takes microseconds
        and may be called at any time, from any thread. After the end of an epoch: the start of the next.

        Returns
        -------
        dict
            For `load_state_dict`.

        Raises
        ------
        ValueError
            For a source that is read to be counted (a stream, an iterable).
        """
        return _state.to_dict(self._core.state())

    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Make the next iteration go on from `state`, with exactly the batches that would have come.

        Workers, prefetch, budget and format may be others (with ``shuffle=True`` format, transforms and nulls
        decide how many rows a window has, and a state with other windows is refused), and so may
        `world_size`: what is left of the epoch is then divided anew. Reads the footers of all files.

        Parameters
        ----------
        state : dict, or list of dict
            What `state_dict` gave. Of one rank, where all ranks step together; of all ranks, where they do
            not (a filter without `balance`, ``in_order=False``) and `world_size` has changed.

        Raises
        ------
        TypeError, ValueError
            If it is corrupt, from a newer version, or of other data, columns, filter or order; the message
            says what differs.
        """
        states = (
            [state] if isinstance(state, Mapping) or not isinstance(state, (list, tuple)) else list(state)
        )
        self._core.resume([_state.from_dict(each) for each in states])

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
            that you still hold), python and, beside the sum, device and store (of Ray).
        """
        return self._core.memory()

    def as_torch_dataset(self) -> IterableDataset[Any]:
        """Return this loader as a `torch.utils.data.IterableDataset` of whole batches.

        For frameworks that insist on one. Wrap it as ``DataLoader(dataset, batch_size=None)``: the batches
        are made already, by this loader's threads, so the DataLoader's `num_workers` stays 0.

        Raises
        ------
        ImportError
            If there is no torch.
        """
        from penstock._torch_dataset import LoaderDataset

        return LoaderDataset(self)

    def close(self) -> None:
        """End everything: threads are joined, memory is given back.

        Batches in your hand stay valid. Idempotent; may be called while another thread is in ``next()``,
        which then raises RuntimeError. Waits, as do Ctrl-C and ``break``, for a call of your own code that
        runs on one of the threads (a generator in ``queue.get()``, a function of `penstock.ops.python`); with
        ``num_workers=0`` it runs on your thread, where Ctrl-C interrupts it.
        """
        self._core.close()
        epoch = self._open_epoch()
        if epoch is not None:
            epoch.close()

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
        if self._world_size > 1:
            shown["rank"], shown["world_size"] = self._rank, self._world_size
        words = [_shown_source(source), *(f"{name}={_shown(value)}" for name, value in shown.items())]
        return f"Loader({', '.join(words)})"

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Loader], tuple[dict[str, Any]]]:
        if self._is_one_shot:
            raise TypeError(
                f"cannot pickle a loader over a {type(self._options['source']).__name__}, "
                "which can be read once"
            )
        return _rebuild, (self._options,)


_PARAMETERS = inspect.signature(Loader).parameters


def _is_default(name: str, value: object) -> bool:
    default = _PARAMETERS[name].default
    return type(value) is type(default) and value == default  # An Expression cannot be compared.


def _rebuild(options: dict[str, Any]) -> Loader:
    return Loader(**options)


def _plain_source(source: object, native: NativeSource) -> object:
    """Return what `source` was, as repr() and pickle want it."""
    if (
        not native.paths
        or native.partitions is not None
        or not isinstance(source, (str, os.PathLike, list, tuple))
    ):
        return source
    return native.paths[0] if isinstance(source, (str, os.PathLike)) else native.paths


def _make_core(
    source: NativeSource, options: dict[str, Any], code: UserCode, rank: int, world_size: int
) -> _core.Loader:
    part = options["source"] if isinstance(options["source"], Split) else None
    nulls = options["nulls"]
    fill = nulls if isinstance(nulls, dict) else {}
    filter_ = options["filter"]
    prefetch_batches = options["prefetch_batches"]
    return _core.Loader(
        paths=source.paths,
        table=source.table,
        stream=source.stream,
        is_one_shot=source.is_one_shot,
        partitions=source.partitions,
        filesystem=to_native_filesystem(source.filesystem),
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
        memory_budget_bytes=to_bytes(options["memory_budget"]),
        in_order=options["in_order"],
        limit=options["limit"],
        sample=None if part is None else (part.seed, part.begin, part.end),
        collate_workers=code.num_threads(options["num_workers"]),
        collate_batches=code.num_batches(options["num_workers"]),
        pin_memory=_pin_memory(options, code),
        pin_device=-1 if code.device is None else code.device.index,
        waits_for_copies=code.device is not None and code.collate_fn is None,
        order=_core.OrderChoices(
            rank=rank,
            world_size=world_size,
            repeat=options["uneven"] == "repeat",
            balance=options["balance"] == "rows",
            epochs=options["epochs"] or 1,
            seed=options["seed"],
            shuffle=options["shuffle"],
            shuffle_window_bytes=to_bytes(options["shuffle_window"]),
            shuffle_window_rows=options["_shuffle_window_rows"],
            skips_errors=options["on_error"] == "skip",
            max_errors=-1 if options["max_errors"] is None else options["max_errors"],
        ),
        direct_decode=options["_direct_decode"],
    )


def _pin_memory(options: dict[str, Any], code: UserCode) -> str:
    if options["pin_memory"]:
        return "required"
    return "where possible" if code.device is not None and options["_pin_for_device"] else "no"


def _serialize(expression: pc.Expression) -> bytes:
    # An Expression pickles as the buffer that arrow::compute::Deserialize reads.
    return bytes(expression.__reduce__()[1][0])


def _shown_source(source: object) -> str:
    return repr(source) if isinstance(source, (str, list)) else f"<{type(source).__name__}>"


def _shown(value: object) -> str:
    return str(value) if isinstance(value, pc.Expression) else repr(value)


@atexit.register
def _close_live_loaders() -> None:
    # Not before the interpreter waits for its threads: one of them may still be iterating, and must get all
    # its batches. Penstock's own threads are daemons or no Python threads: nobody has waited for them yet.
    _collate.stop_all()
    for core in list(_live_loaders):
        core.close_at_exit()
    _core.end_of_python()
