"""Where the references come from: a data set's executor, or the coordinator of streaming_split."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Opened", "open_stream"]

_STOP_CHECK_S = 0.2


@dataclass
class Opened:
    """A stream of references that runs.

    Attributes
    ----------
    bundles : Iterator of RefBundle
        Run by one thread; returns soon after the event was set and `end` was called.
    stats : DatasetStats or None
        Ray's statistics of the iteration.
    report : callable
        Takes the bytes that the consumer holds, for Ray's resource manager.
    end : callable
        Ends the execution, or says that this split has finished; takes whether blocks are left. Idempotent.
    """

    bundles: Iterator[Any]
    stats: Any
    report: Callable[[int], None]
    end: Callable[[bool], None]


def open_stream(iterator: Any, stop: threading.Event) -> Opened:
    """Start the next epoch of a DataIterator."""
    from ray.data._internal.iterator.stream_split_iterator import StreamSplitDataIterator

    if isinstance(iterator, StreamSplitDataIterator):
        return _open_split(iterator, stop)
    bundles, stats, *rest = iterator._to_ref_bundle_iterator()  # The last is the executor, in all versions.
    executor = rest[-1]

    def report(held_bytes: int) -> None:
        if executor is not None:
            executor.set_external_consumer_bytes(held_bytes)
        if stats is not None:
            stats.iter_prefetched_bytes = held_bytes

    def end(is_early: bool) -> None:
        iterator._on_iteration_end(executor)
        if not is_early:
            return
        # The data set would keep what is left in the executor's queues until it is iterated over again.
        dataset: Any = getattr(iterator, "_base_dataset", None)
        if executor is not None and getattr(dataset, "_current_executor", None) is executor:
            dataset._current_executor = None

    report(0)
    return Opened(bundles, stats, report, end)


def _open_split(split: Any, stop: threading.Event) -> Opened:
    stats = split._iter_stats
    held = [0]

    def report(held_bytes: int) -> None:
        held[0] = stats.iter_prefetched_bytes = held_bytes

    report(0)
    return Opened(_split_bundles(split, stop, held), stats, report, lambda _: split._on_iteration_end(None))


def _split_bundles(split: Any, stop: threading.Event, held: list[int]) -> Iterator[Any]:
    """Ask the coordinator for this split's blocks, as the split itself does, but stoppable."""
    coordinator, number = split._coord_actor, split._output_split_idx
    epoch = _wait_for(coordinator.start_epoch.remote(number), stop)
    if epoch is None:
        return
    split._active_epoch = epoch  # _on_iteration_end() tells the coordinator.
    pending = coordinator.get.remote(epoch, number, 0)
    while True:
        bundle = _wait_for(pending, stop)
        if not bundle:
            return
        # One is asked for ahead, with what is held: the coordinator reports it to the resource manager.
        pending = coordinator.get.remote(epoch, number, held[0] + bundle.size_bytes())
        yield bundle
        del bundle


def _wait_for(ref: Any, stop: threading.Event) -> Any:
    import ray

    while not stop.is_set():
        ready, _ = ray.wait([ref], timeout=_STOP_CHECK_S)
        if ready:
            return ray.get(ref)
    return None
