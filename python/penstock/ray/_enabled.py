"""Existing calls of iter_batches and iter_torch_batches, run through Penstock."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from penstock import _core
from penstock._arguments import MAX_INT, check_bytes, check_int
from penstock.ray._consumer import Recipe, iterate
from penstock.ray._steps import RaySteps, random_seed
from penstock.ray._version import require

__all__ = ["enabled"]

_MOST_COLLATE_WORKERS = 4  # As Ray's own consumer has them.

_lock = threading.Lock()
_settings: list[dict[str, Any]] = []  # Of those who are in `with enabled()`, the innermost last.
_original: Any = None


@contextmanager
def enabled(*, memory_budget: int | str | None = None, num_workers: int | None = None) -> Iterator[None]:
    """Run all iter_batches and iter_torch_batches calls of this process through Penstock.

    On data sets, iterators and shards, with the batches that Ray would give: in order, of exact sizes, by
    Ray's own rules for formats, collate functions and devices. Iterators that were made inside go on through
    Penstock after the end of the context; those made before it go on through Ray.

    What is not taken over runs through Ray's own consumer, with one warning. Where Arrow would change the
    types of the first block (pandas blocks, dictionaries), Ray's own code makes the batches, outside the
    budget, with one warning. The rows of a local shuffle are mixed in windows of
    `local_shuffle_buffer_size` rows, in another order in each epoch; where two and a half of them have no
    room in `memory_budget`, outside of it, with a warning.

    Parameters
    ----------
    memory_budget : int or str, optional
        The most memory that one iteration holds, beside Ray's store. None: a quarter of what this process may
        use.
    num_workers : int, optional
        Threads that copy rows into batches. None: the cores that this process may use.

    Raises
    ------
    ImportError
        If there is no Ray, or one of an unsupported version.

    Warns
    -----
    RuntimeWarning
        If a call inside has an argument that is not taken over, Ray's own code makes its batches, or its
        windows have no room.

    Examples
    --------
    >>> with ps.ray.enabled():  # doctest: +SKIP
    ...     for batch in dataset.iter_torch_batches(batch_size=256):
    ...         train(batch)
    """
    require()
    setting: dict[str, Any] = {
        "memory_budget": (
            max(1, _core.available_memory_bytes() // 4)
            if memory_budget is None
            else check_bytes("memory_budget", memory_budget)
        ),
        "num_workers": None if num_workers is None else check_int("num_workers", num_workers, 0, MAX_INT),
        "warned": set(),
    }
    _enter(setting)
    try:
        yield
    finally:
        _leave(setting)


def _enter(setting: dict[str, Any]) -> None:
    global _original
    from ray.data import DataIterator

    with _lock:
        _settings.append(setting)
        if len(_settings) == 1:
            _original = DataIterator._iter_batches
            DataIterator._iter_batches = _iter_batches


def _leave(setting: dict[str, Any]) -> None:
    global _original
    from ray.data import DataIterator

    with _lock:
        _settings.remove(setting)
        if not _settings:
            DataIterator._iter_batches = _original
            _original = None


def _iter_batches(self: Any, **arguments: Any) -> Any:
    """Stand in for DataIterator._iter_batches, through which all its iter_*_batches methods go."""
    with _lock:
        original, setting = _original, _settings[-1]
    reason = _why_not(arguments)
    if reason is not None:
        if reason and reason not in setting["warned"]:
            setting["warned"].add(reason)
            warnings.warn(
                f"penstock.ray.enabled: {reason}; this iteration runs through Ray's own consumer",
                RuntimeWarning,
                stacklevel=3,
            )
        return original(self, **arguments)
    return _Batches(self, arguments, setting)


_KNOWN = {
    "prefetch_batches",
    "batch_size",
    "batch_format",
    "drop_last",
    "local_shuffle_buffer_size",
    "local_shuffle_seed",
    "_collate_fn",
    "_finalize_fn",
}


def _why_not(arguments: dict[str, Any]) -> str | None:
    """Return why Ray's own consumer is to run; "": it is to say itself what is wrong."""
    unknown = sorted(set(arguments) - _KNOWN)
    if unknown:
        return f"the argument {unknown[0]!r} is not taken over"
    batch_format = arguments.get("batch_format", "default")
    if batch_format not in ("default", "numpy", "pandas", "pyarrow", None):
        return f"batch_format={batch_format!r} is not taken over"
    batch_size = arguments.get("batch_size", 256)
    rows = arguments.get("local_shuffle_buffer_size")
    if batch_format is None and batch_size is not None:
        return "batch_format=None with a batch_size is not taken over"
    if rows is not None and batch_size is None:
        return ""
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        return ""
    if not isinstance(arguments.get("prefetch_batches", 1), int) or arguments.get("prefetch_batches", 1) < 0:
        return ""
    return None


class _Batches:
    """What iter_batches returns: each iteration is one epoch."""

    def __init__(self, iterator: Any, arguments: dict[str, Any], setting: dict[str, Any]) -> None:
        self._iterator = iterator
        self._arguments = arguments
        self._setting = setting
        self._epoch = 0

    def __iter__(self) -> Iterator[Any]:
        arguments = self._arguments
        form = arguments.get("batch_format", "default")
        steps = RaySteps(
            "numpy" if form == "default" else form,
            arguments.get("_collate_fn"),
            arguments.get("_finalize_fn"),
        )
        prefetch = arguments.get("prefetch_batches", 1)
        seed = arguments.get("local_shuffle_seed")
        rows = arguments.get("local_shuffle_buffer_size")
        # Ray rounds it up, too.
        shuffle_rows = 0 if rows is None else max(rows, arguments.get("batch_size", 256))
        own = {
            "drop_last": arguments.get("drop_last", False),
            "prefetch_batches": prefetch,
            "memory_budget": self._setting["memory_budget"],
            "num_workers": self._setting["num_workers"],
            "collate_workers": max(1, min(_MOST_COLLATE_WORKERS, prefetch)),
        }
        recipe = Recipe(
            options=lambda schema, meter, has_nulls: {**own, **steps.options(schema, meter, has_nulls)},
            batch_size=arguments.get("batch_size", 256),
            prefetch_batches=prefetch,
            shuffle_rows=shuffle_rows,
            may_exceed=True,
            looks_for_nulls=True,
            seed=random_seed() if seed is None else seed,
            epoch=self._epoch,
            make=lambda meter: steps.make(None, meter),
            finalize=steps.finalize,
            why_not_arrow=steps.differs_in_arrow,
            warned=self._setting["warned"],
            drop_last=own["drop_last"],
        )
        self._epoch += 1
        return iterate(self._iterator, recipe)
