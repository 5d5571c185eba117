"""One epoch with the user's own code in it: collate_fn, finalize_fn, on_stats."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from penstock import _core
from penstock._collate import MOST_WAIT_S, Chained, Making, Source
from penstock._device import DeviceCopier
from penstock._footprint import charge_python, memory_of
from penstock._reports import Stats

__all__ = ["Epoch", "UserCode"]


@dataclass(frozen=True)
class UserCode:
    """What a loader was given to do with its batches."""

    collate_fn: Callable[[Any], Any] | None = None
    collate_workers: int = 1
    finalize_fn: Callable[[Any], Any] | None = None
    on_stats: Callable[[Stats], object] | None = None
    on_stats_every_s: float = 10.0
    device: Any = None  # A torch.device with its index, if batches are to be copied.

    @property
    def is_any(self) -> bool:
        """Whether there is anything to do at all."""
        return any(fn is not None for fn in (self.collate_fn, self.finalize_fn, self.on_stats, self.device))

    def num_threads(self, num_workers: int | None) -> int:
        """Of collate threads, in a loader of so many workers."""
        return self.collate_workers if self.collate_fn is not None and num_workers != 0 else 0

    def num_batches(self, num_workers: int | None) -> int:
        """Return the most batches that all of it holds beside the consumer's own."""
        num_threads = self.num_threads(num_workers)
        collated = num_threads + 1 if num_threads > 0 else 0
        return collated + (1 if self.device is not None and num_workers != 0 else 0)


def _call(core: _core.Loader, name: str, fn: Callable[[Any], Any], batch: Any, number: int) -> Any:
    begin_ns = time.perf_counter_ns()
    try:
        result = fn(batch)
    except StopIteration as error:  # Raised by next() it would look like the end of the data.
        raise RuntimeError(f"{name} raised StopIteration for batch {number} of the epoch") from error
    except Exception as error:
        if hasattr(error, "add_note"):
            error.add_note(f"in {name}, for batch {number} of the epoch")
        raise
    core.add_user_code("collate" if name == "collate_fn" else "finalize", time.perf_counter_ns() - begin_ns)
    if result is None:
        raise TypeError(
            f"{name} returned None for batch {number} of the epoch: it must return what the loop is to get"
        )
    return result


class Epoch(Iterator[Any]):
    """Iterator over one epoch of a loader with user code; as `_core.EpochIterator` for those without.

    One thread at a time may call `next`; any thread may call `close`. It is closed by its end, by an error
    (an interrupt of `next` among them), by `close`, by the next epoch and by garbage collection.
    """

    _makings: tuple[Making, ...] = ()

    def __init__(self, core: _core.Loader, code: UserCode) -> None:
        self._core = core
        self._code = code
        self._pid = os.getpid()
        self._turn = threading.Lock()  # Held by who is in next().
        self._is_over = False
        self._is_superseded = False
        self._number = 0
        self._reported_s = time.monotonic()
        self._source = _core.EpochIterator(core)
        self._copier = DeviceCopier(core, code.device) if code.device is not None else None
        self._start_threads()

    def _start_threads(self) -> None:
        source: Source = self._source
        num_threads = self._code.num_threads(self._core.num_workers)
        if num_threads > 0:
            collate = _make_collate(self._core, self._code)
            may_work_here = num_threads == 1 and self._copier is None
            self._makings = (
                Making(source, collate, num_threads, num_threads + 1, may_work_here=may_work_here),
            )
            source = Chained(self._makings[0])
        if self._copier is not None and self._core.num_workers > 0:
            # One token: at most one batch is on the device ahead of the consumer's.
            copying = Making(source, _make_copy(self._copier), 1, 1, "copy")
            self._makings = (*self._makings, copying)

    def __iter__(self) -> Epoch:
        return self

    def __next__(self) -> Any:
        if self._is_over:
            raise StopIteration
        if not self._turn.acquire(blocking=False):
            raise RuntimeError(
                "another thread is taking a batch from this loader; take them from one thread at a time"
            )
        try:
            self._check_usable()
            try:
                self._report_if_due()
                self._core.consumer_called()
                rows = 0
                try:
                    value, rows = self._take()
                finally:
                    self._core.consumer_returned(rows)
            except BaseException:
                # Also an interrupt, which may have come between taking a batch and returning it.
                self.close()
                raise
            if rows > 0:
                self._warn_of_refusal()
                return value
            self.close()
            self._report()
            raise StopIteration
        finally:
            self._turn.release()

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this loader was made before the process forked, and threads do not survive a fork: "
                "make the loader in the child"
            )
        if self._is_superseded:
            raise RuntimeError("this iterator was closed when its loader started the next epoch")
        if self._core.is_closed:
            raise RuntimeError("the loader is closed")

    def _take(self) -> tuple[Any, int]:
        """Wait for the next batch; (None, 0) at the end."""
        if not self._makings:
            value, rows = self._take_here()
        else:
            made = self._makings[-1].next()
            if made is None:
                self._check_not_stopped(self._makings[-1])
                return None, 0
            value, rows = made.value, made.rows
            del made  # With what was charged for it until now.
            self._check_usable()  # It may have been waited for while another thread closed the loader.
        if rows > 0 and self._copier is not None:
            value = self._copier.deliver(*value)
        if rows > 0 and self._code.finalize_fn is not None:
            value = _call(self._core, "finalize_fn", self._code.finalize_fn, value, self._number)
        self._number += 1
        return value, rows

    def _take_here(self) -> tuple[Any, int]:
        try:
            got = self._source.take(True)
        except StopIteration:
            return None, 0
        assert got is not None
        batch, rows = got
        if self._code.collate_fn is not None:
            batch, _ = _make_collate(self._core, self._code)(batch, self._number)
        return (self._copier.copy(batch) if self._copier is not None else batch), rows

    def _check_not_stopped(self, making: Making) -> None:
        """Tell the end of the data from that of the loader, which another thread has brought about."""
        if not making.is_stopped:
            return
        if making.is_exiting and threading.current_thread() is not threading.main_thread():
            raise SystemExit  # Ends a daemon thread without a message.
        self._check_usable()
        raise RuntimeError("the iterator was closed")

    def _warn_of_refusal(self) -> None:
        refusal = self._core.take_pin_refusal() if self._copier is not None else ""
        if refusal:
            warnings.warn(
                f"batches for the device are not page-locked, which makes copying them slower: {refusal}",
                RuntimeWarning,
                stacklevel=3,  # From here through next() to the loop.
            )

    def _report_if_due(self) -> None:
        if self._code.on_stats is None:
            return
        if time.monotonic() - self._reported_s >= self._code.on_stats_every_s:
            self._report()

    def _report(self) -> None:
        if self._code.on_stats is None:
            return
        self._reported_s = time.monotonic()
        try:
            self._code.on_stats(Stats(*self._core.stats()))
        except StopIteration as error:
            raise RuntimeError("on_stats raised StopIteration") from error

    def close(self) -> None:
        """End the epoch now: threads are stopped and joined, as soon as the user code in them returns."""
        self._is_over = True
        self._stop(timeout_s=None)

    def supersede(self) -> None:
        """Close for the next epoch. Raises RuntimeError where another thread is in `next`."""
        if not self._turn.acquire(blocking=False):
            raise RuntimeError(
                "another thread is taking a batch from this loader; take them from one thread at a time"
            )
        try:
            if not self._is_over:
                self._is_superseded = True
                self._stop(timeout_s=None)
        finally:
            self._turn.release()

    def _stop(self, timeout_s: float | None) -> None:
        self._source.stop()
        if os.getpid() != self._pid:
            return
        for making in self._makings:
            making.stop()
        for making in self._makings:
            making.join(timeout_s)

    def __del__(self) -> None:
        # Whoever collects garbage may hold a lock that user code on a thread waits for: hence not for ever.
        if self._makings and not sys.is_finalizing():
            self._stop(MOST_WAIT_S)


def _make_collate(
    core: _core.Loader, code: UserCode
) -> Callable[[Any, int], tuple[Any, _core.Charge | None]]:
    """Return what a collate thread does with a batch and its number; it must not refer to the Epoch."""
    collate_fn = code.collate_fn
    assert collate_fn is not None

    def collate(batch: Any, number: int) -> tuple[Any, _core.Charge | None]:
        result = _call(core, "collate_fn", collate_fn, batch, number)
        if result is batch:
            return result, None
        return result, charge_python(core, result, memory_of(batch))

    return collate


def _make_copy(copier: DeviceCopier) -> Callable[[Any, int], tuple[Any, None]]:
    """Return what the copying thread does with a batch."""
    return lambda batch, _: (copier.copy(batch), None)
