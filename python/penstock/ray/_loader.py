"""The loader over Ray's streams that users see."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from penstock._arguments import (
    MAX_INT,
    MAX_INT64,
    MAX_UINT64,
    check_bool,
    check_bytes,
    check_callable,
    check_columns,
    check_filter,
    check_format,
    check_int,
    check_nulls,
    check_prefetch_batches,
    check_seconds,
    to_bytes,
)
from penstock._loader import Format, Nulls, Transforms
from penstock._loader import Loader as _Loader
from penstock._reports import Stats
from penstock.ops import as_chains, cast
from penstock.ray._consumer import Recipe, iterate
from penstock.ray._meter import Meter
from penstock.ray._steps import RaySteps, random_seed
from penstock.ray._version import as_iterator, require

__all__ = ["Loader"]

_SPLIT = (
    "Ray splits: dataset.streaming_split(n)[rank], or ray.train.get_dataset_shard() in a Ray Train worker"
)
_NO_STATE = (
    "a stream of Ray has no fixed order, so there is no position to go on from: save the model and the "
    "number of the epoch by Ray Train's checkpoints (ray.train.report(checkpoint=...)) and begin the epoch "
    "anew; where exact resume counts, read the files with penstock.Loader"
)
_REFUSED = {
    "rank": _SPLIT,
    "world_size": _SPLIT,
    "uneven": "streaming_split(n, equal=True) gives every rank as many rows",
    "balance": "streaming_split(n, equal=True) gives every rank as many rows",
    "epochs": "iterate again: each iteration is one execution of the data set",
    "filesystem": "Ray reads: ray.data.read_parquet(..., filesystem=...)",
    "shuffle": "use local_shuffle_buffer_size (rows), after dataset.randomize_block_order()",
    "shuffle_window": "use local_shuffle_buffer_size (rows)",
    "preserve_order": "batches come in the order of the blocks always; "
    "DataContext.execution_options.preserve_order sets that of the blocks",
}
_OF_ROWS = ("columns", "filter", "transforms", "limit")  # What is done to rows, by the native loader.
_COLLATE_FORMATS = {
    "ArrowBatchCollateFn": "pyarrow",
    "NumpyBatchCollateFn": "numpy",
    "PandasBatchCollateFn": "pandas",
}


class Loader:
    """Stream batches of equal size out of Ray Data, each block released with its last row.

    Each ``for batch in loader`` is one execution of the data set: one epoch. Batches come in the order of
    Ray's blocks.

    Parameters
    ----------
    source : ray.data.Dataset, ray.data.DataIterator, or a shard
        A shard is one of ``dataset.streaming_split(n)``, or what ``ray.train.get_dataset_shard`` returns.
    batch_size : int or None, default 256
        Rows per batch; only the last of an epoch may have fewer. None: Ray's blocks, as they come; it needs
        `batch_format`, or a collate function of Ray's classes.
    drop_last, columns, filter, transforms, nulls, finalize_fn, limit : optional
        As in `penstock.Loader`.
    num_workers, collate_workers, in_order, seed, on_stats, on_stats_every_s : optional
        As in `penstock.Loader`. Transforms run here, in the consumer: so blocks can carry what is small, such
        as JPEG, through the cluster.
    collate_fn : callable, optional
        As in `penstock.Loader`: it gets whole batches in `format`. One of Ray's classes
        (ArrowBatchCollateFn, NumpyBatchCollateFn, PandasBatchCollateFn) gets what Ray would give it.
    format : {"torch", "numpy", "arrow", "pandas"}, default "torch"
        As in `penstock.Loader`.
    prefetch_batches : "auto" or int, default "auto"
        As in `penstock.Loader`; references of blocks are held for as many batches at most, two with "auto".
    memory_budget : int or str, default "1GiB"
        The most memory that an iteration holds, beside Ray's store.
    device : str or torch.device, default "auto"
        As in `penstock.Loader`; "auto": what Ray Train gave this worker, the CPU elsewhere.
    batch_format : {"numpy", "pandas", "pyarrow", "default"}, optional
        Instead of `format`: batches as ``iter_batches`` gives them, by Ray's rules. Where Arrow would change
        the types (pandas blocks, dictionaries) Ray's own code makes them, outside the budget, with a warning.
    dtypes : torch.dtype or dict of them, optional
        What columns are cast to, natively: all numbers, or by name. Not with `collate_fn`.
    local_shuffle_buffer_size : int, optional
        Rows of the windows in which rows are mixed, at least `batch_size`. Batches keep their size. Two and a
        half windows must have room in `memory_budget`.
    local_shuffle_seed : int, optional
        What the order in the windows is made from, together with the number of the epoch. None: drawn anew.
    pin_memory : bool, default False
        As in `penstock.Loader`; what `collate_fn` makes, and tensors in Ray's forms, are copied to
        page-locked memory.

    Raises
    ------
    ImportError
        If there is no Ray, or one of an unsupported version.
    TypeError, ValueError
        If an argument is of the wrong type, out of range, or has no meaning for Ray's streams.
    RuntimeError
        When iterating, if Ray is not initialised.

    Notes
    -----
    What Ray raises is raised as it is, with a note (Python 3.11 on) that says what can be done. An iteration
    that is left early (``break``, an exception, garbage collection) shuts the executor down, or tells the
    coordinator that this split has finished.

    Pickling keeps the arguments, so that a loader over a shard can be handed to a worker.

    Examples
    --------
    >>> loader = ps.ray.Loader(ray.train.get_dataset_shard("train"), batch_size=256)  # doctest: +SKIP
    >>> for batch in loader:  # doctest: +SKIP
    ...     step(batch["x"], batch["y"])
    """

    def __init__(
        self,
        source: Any,
        batch_size: int | None = 256,
        drop_last: bool = False,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        transforms: Transforms | None = None,
        nulls: Nulls = "error",
        collate_fn: Callable[[Any], Any] | None = None,
        finalize_fn: Callable[[Any], Any] | None = None,
        format: Format | None = None,
        num_workers: int | None = None,
        collate_workers: int = 1,
        prefetch_batches: int | Literal["auto"] = "auto",
        memory_budget: int | str = "1GiB",
        in_order: bool = True,
        device: object = "auto",
        seed: int = 0,
        limit: int | None = None,
        on_stats: Callable[[Stats], object] | None = None,
        on_stats_every_s: float = 10.0,
        *,
        batch_format: str | None = None,
        dtypes: object = None,
        local_shuffle_buffer_size: int | None = None,
        local_shuffle_seed: int | None = None,
        pin_memory: bool = False,
        **unknown: object,
    ) -> None:
        require()
        for name in unknown:
            if name in _REFUSED:
                raise ValueError(f"{name} has no meaning for a stream of Ray: {_REFUSED[name]}")
            raise TypeError(f"penstock.ray.Loader has no argument {name!r}")
        self._iterator = as_iterator(source)
        self._batch_size = None if batch_size is None else check_int("batch_size", batch_size, 1, MAX_INT64)
        self._drop_last = check_bool("drop_last", drop_last)
        self._prefetch_batches = check_prefetch_batches(prefetch_batches)
        to_bytes(check_bytes("memory_budget", memory_budget))
        self._native: dict[str, Any] = {
            "drop_last": self._drop_last,
            "columns": check_columns(columns),
            "filter": check_filter(filter),
            "transforms": as_chains(transforms) or None,
            "nulls": check_nulls(nulls),
            "finalize_fn": check_callable("finalize_fn", finalize_fn),
            "num_workers": None if num_workers is None else check_int("num_workers", num_workers, 0, MAX_INT),
            "collate_workers": check_int("collate_workers", collate_workers, 1, MAX_INT - 1),
            "prefetch_batches": self._prefetch_batches,
            "memory_budget": memory_budget,
            "in_order": check_bool("in_order", in_order),
            "seed": check_int("seed", seed, 0, MAX_UINT64),
            "limit": None if limit is None else check_int("limit", limit, 0, MAX_INT64),
            "on_stats": check_callable("on_stats", on_stats),
            "on_stats_every_s": check_seconds("on_stats_every_s", on_stats_every_s),
        }
        self._collate_fn = check_callable("collate_fn", collate_fn)
        self._pin_memory = check_bool("pin_memory", pin_memory)
        self._dtypes = _check_dtypes(dtypes, collate_fn)
        self._ray_format = _ray_format(batch_format, format, collate_fn)
        if format is not None or self._ray_format is None:
            check_format(format or "torch")
        self._format: Any = format or "torch"
        self._device = device
        self._shuffle_rows = _check_shuffle(local_shuffle_buffer_size, self._batch_size)
        self._shuffle_seed = (
            None
            if local_shuffle_seed is None
            else check_int("local_shuffle_seed", local_shuffle_seed, 0, MAX_UINT64)
        )
        if self._batch_size is None:
            self._check_whole_blocks()
        self._epoch = 0
        self._warned: set[str] = set()
        self._loader: _Loader | None = None
        self._running: weakref.ref[Any] | None = None

    def _check_whole_blocks(self) -> None:
        for name in _OF_ROWS:
            if self._native[name] is not None:
                raise ValueError(f"{name} needs a batch_size: with None Ray's blocks are given as they are")
        if self._dtypes is not None or self._ray_format is None:
            raise ValueError(
                "batch_size=None gives Ray's blocks in Ray's forms: pass batch_format='numpy', 'pandas' or "
                "'pyarrow', or a batch_size"
            )

    def _may_be_by_ray(self) -> bool:
        """Whether Ray's own code can make these batches, where Arrow would change their types."""
        return self._ray_format is not None and all(self._native[name] is None for name in _OF_ROWS)

    def __iter__(self) -> Iterator[Any]:
        """Start the next epoch. An iterator of this loader that is still open is closed."""
        running = None if self._running is None else self._running()
        if running is not None:
            running.close()
        batches: Iterator[Any] = self._iterate()
        self._running = weakref.ref(batches)
        return batches

    def _iterate(self) -> Any:
        steps = RaySteps(self._ray_format, self._collate_of_ray(), self._native["finalize_fn"])
        recipe = Recipe(
            options=lambda schema, meter, _: self._options(schema, meter, steps),
            batch_size=self._batch_size,
            prefetch_batches=self._prefetch_batches,
            shuffle_rows=self._shuffle_rows,
            shuffles_blocks=self._native["transforms"] is not None,
            seed=random_seed() if self._shuffle_seed is None else self._shuffle_seed,
            epoch=self._epoch,
            make=lambda meter: steps.make(None, meter),
            why_not_arrow=steps.differs_in_arrow if self._may_be_by_ray() else None,
            warned=self._warned,
            drop_last=self._drop_last,
            finalize=steps.finalize,
            opened=self._keep,
        )
        self._epoch += 1
        return iterate(self._iterator, recipe)

    def _keep(self, loader: _Loader) -> None:
        self._loader = loader

    def _options(self, schema: pa.Schema, meter: Meter, steps: RaySteps) -> dict[str, Any]:
        options = dict(self._native)
        if self._ray_format is not None:
            ray = steps.options(self._given(schema), meter)
            return {
                **options,
                "format": ray["format"],
                "nulls": ray["nulls"],
                "collate_fn": ray["collate_fn"],
                "finalize_fn": ray["finalize_fn"],
            }
        options["format"] = self._format
        options["device"] = self._resolve_device()
        options["pin_memory"] = self._pin_memory
        options["collate_fn"] = None if self._collate_fn is None else self._pinning(self._collate_fn)
        if self._dtypes is not None:
            options["transforms"] = {**_casts(self._dtypes, schema), **(options["transforms"] or {})}
        return options

    def _given(self, schema: pa.Schema) -> pa.Schema:
        columns = self._native["columns"]
        return schema if columns is None else pa.schema([schema.field(name) for name in columns])

    def _collate_of_ray(self) -> Callable[[Any], Any] | None:
        return self._pinning(self._collate_fn)

    def _pinning(self, collate_fn: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
        if not self._pin_memory:
            return collate_fn
        from penstock._device import map_tensors

        def pinned(batch: Any) -> Any:
            made = batch if collate_fn is None else collate_fn(batch)
            return map_tensors(made, pin)

        def pin(tensor: Any) -> Any:
            return tensor if tensor.device.type != "cpu" or tensor.is_pinned() else tensor.pin_memory()

        return pinned

    def _resolve_device(self) -> object:
        if not isinstance(self._device, str) or self._device != "auto":
            return self._device
        if self._format != "torch":
            return None
        from ray.train.utils import _in_ray_train_worker

        if not _in_ray_train_worker():
            return None
        from ray.train.torch import get_device

        return get_device()

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that epoch: the local shuffle and random transforms follow from it."""
        self._epoch = check_int("epoch", epoch, 0, MAX_INT)

    def __len__(self) -> NoReturn:
        """Raise TypeError: Ray does not know the number of rows ahead."""
        raise TypeError(
            "a stream of Ray has no length: dataset.count() // batch_size, where that is worth it"
        )

    def state_dict(self) -> NoReturn:
        """Raise ValueError, which says what to use instead."""
        raise ValueError(_NO_STATE)

    def load_state_dict(self, state: Mapping[str, Any]) -> NoReturn:
        """Raise ValueError, which says what to use instead."""
        raise ValueError(_NO_STATE)

    def stats(self) -> Stats:
        """Say what the iteration that was begun last has done. Ray's own are in ``dataset.stats()``.

        Raises
        ------
        RuntimeError
            If none was begun.
        """
        return self._begun().stats()

    def memory(self) -> dict[str, Any]:
        """Return who holds how much memory in the iteration that was begun last, as `penstock.Loader.memory`.

        The account "store", beside the sum: blocks in Ray's store whose rows are still needed.

        Raises
        ------
        RuntimeError
            If none was begun.
        """
        return self._begun().memory()

    def _begun(self) -> _Loader:
        if self._loader is None:
            raise RuntimeError(
                "no iteration has begun: take the first batch before (whole blocks, and batches that "
                "Ray's own code makes, have no such report)"
            )
        return self._loader

    def close(self) -> None:
        """End an iteration that is open. Batches in your hand stay valid. Idempotent."""
        running = None if self._running is None else self._running()
        if running is not None:
            running.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loader": None, "_running": None}

    def __repr__(self) -> str:
        form = self._format if self._ray_format is None else self._ray_format
        return (
            f"ray.Loader(<{type(self._iterator).__name__}>, batch_size={self._batch_size}, format={form!r})"
        )


def _check_dtypes(dtypes: Any, collate_fn: object) -> Any:
    if dtypes is None:
        return None
    if collate_fn is not None:
        raise ValueError("dtypes cannot be used with collate_fn: cast in it, or with transforms=")
    for dtype in dtypes.values() if isinstance(dtypes, Mapping) else [dtypes]:
        cast(_dtype_name(dtype))
    return dtypes


def _dtype_name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _casts(dtypes: Any, schema: pa.Schema) -> dict[str, Any]:
    if isinstance(dtypes, Mapping):
        named = {name: _dtype_name(dtype) for name, dtype in dtypes.items()}
    else:
        named = {field.name: _dtype_name(dtypes) for field in schema if _is_number(field.type)}
    return dict(as_chains({name: cast(dtype) for name, dtype in named.items()}))


def _is_number(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    while pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _ray_format(batch_format: object, format: object, collate_fn: object) -> str | None:
    """Return Ray's name of the batch's form; None: Penstock's own forms."""
    bases = {base.__name__ for base in type(collate_fn).__mro__}
    wanted = next((form for name, form in _COLLATE_FORMATS.items() if name in bases), None)
    if batch_format is None:
        if wanted is not None and format is not None:
            raise ValueError(f"a {type(collate_fn).__name__} gets batches in Ray's form: leave format out")
        return wanted
    if format is not None:
        raise ValueError("give format (Penstock's forms) or batch_format (Ray's), not both")
    if not isinstance(batch_format, str) or batch_format not in ("default", "numpy", "pandas", "pyarrow"):
        raise ValueError(f"batch_format is 'numpy', 'pandas', 'pyarrow' or 'default', got {batch_format!r}")
    chosen = "numpy" if batch_format == "default" else batch_format
    if wanted not in (None, chosen):
        raise ValueError(
            f"a {type(collate_fn).__name__} gets {wanted!r}, and batch_format is {batch_format!r}"
        )
    return chosen


def _check_shuffle(rows: object, batch_size: int | None) -> int:
    if rows is None:
        return 0
    if batch_size is None:
        raise ValueError("local_shuffle_buffer_size needs a batch_size")
    return max(batch_size, check_int("local_shuffle_buffer_size", rows, 1, MAX_INT64))
