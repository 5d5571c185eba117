"""Threads that run `collate_fn`: they take batches from the loader one at a time and hand on what they made.

As in `_iter_threaded`, stopping may be asked for at any moment, by the garbage collector too, on a thread
that is in the middle of anything: all that threads wait for are `queue.SimpleQueue`, whose `put` may be
called from a destructor, and locks that their holder always releases.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from penstock import _core

__all__ = ["MOST_WAIT_S", "Chained", "Made", "Making", "Source", "stop_all"]

# How long the end of the interpreter, and the garbage collector, wait for user code that still runs: a thread
# killed inside native code may abort the process, but a read may never return.
MOST_WAIT_S = 5.0

# A consumer that takes the next batch so soon, so many times in a row, has no step of its own: handing a
# batch and the GIL from one thread to another takes about as long.
QUICK_NS = 100_000
MANY_QUICK = 8


class Made:
    """What became of one batch; the thread that works on it releases `is_done`."""

    __slots__ = ("charge", "error", "is_done", "number", "rows", "value")

    def __init__(self, value: Any, rows: int, number: int) -> None:
        self.value = value
        self.rows = rows
        self.number = number
        self.charge: _core.Charge | None = None
        self.error: BaseException | None = None
        self.is_done = threading.Lock()
        self.is_done.acquire()

    def drop(self) -> None:
        """Let go of everything: an error's traceback refers to a frame that refers to this object."""
        self.value = self.charge = self.error = None


class _Starved:
    """Stands in the queue where only the consumer can free memory for the next batch."""


class Source(Protocol):
    """Where a `Making` gets its batches, one thread at a time."""

    def take(self, is_last_try: bool) -> tuple[Any, int] | None:
        """Return the next batch and its rows; None where only the consumer could free memory for it."""

    def stop(self) -> None:
        """End it, also where another thread is in `take`. Idempotent."""


class Making:
    """Batches in the making. Shared by the consumer and the threads; never refers to the user's iterator.

    permits: one token per batch that may be in the making or finished. A thread takes one before it asks for
    a batch, the token then goes with the batch, and the consumer puts it back when it takes the result.

    Results come in the order in which the batches were taken: what is queued is a promise, made under the
    turn lock, on which the consumer waits.

    A consumer that is back at once gains nothing from a thread that works ahead, but pays for each batch and
    the GIL being handed over. It keeps the tokens then, and when it has them all makes the batches itself,
    until a step takes longer.

    Parameters
    ----------
    source : Source
        Gives the batches; one thread at a time is inside it.
    make : Callable[[Any, int], tuple[Any, _core.Charge | None]]
        Makes of a batch and its number the result, and what is charged for it until it is handed over.
    num_threads : int
        How many run `make`, >= 1.
    most_batches : int
        The most batches in the making or finished, together.
    name : str
        Of the threads.
    may_work_here : bool
        Whether a consumer without a step of its own may run `make`; for one thread.
    """

    def __init__(
        self,
        source: Source,
        make: Callable[[Any, int], tuple[Any, _core.Charge | None]],
        num_threads: int,
        most_batches: int,
        name: str = "collate",
        may_work_here: bool = False,
    ) -> None:
        self.is_stopped = False  # No work may start, and nobody reads `_ready` any more.
        self.is_exiting = False  # Stopped by the end of the interpreter.
        self._source = source
        self._make = make
        self._turn = threading.Lock()  # Held by the one thread that is inside `source`.
        self._is_source_done = False  # Guarded by `_turn`, as is:
        self._num_taken = 0
        self._permits: SimpleQueue[None] = SimpleQueue()
        self._ready: SimpleQueue[Made | _Starved | None] = SimpleQueue()  # None: the end.
        self._retry: SimpleQueue[None] = SimpleQueue()
        self._most_batches = most_batches
        # The consumer's own:
        self._may_work_here = may_work_here
        self._num_kept = 0  # Tokens that it has not put back.
        self._num_quick = 0  # How often in a row it was back at once.
        self._returned_ns = 0
        self._here = threading.RLock()  # Held by a consumer that runs `make`.
        for _ in range(most_batches):
            self._permits.put(None)
        self._threads: list[threading.Thread] = []
        try:
            for i in range(num_threads):
                self._start(f"penstock-{name}-{i}")
        except BaseException:
            self.stop()
            self.join()
            raise

    def _start(self, name: str) -> None:
        thread = threading.Thread(target=_run, args=(self,), name=name, daemon=True)
        _running[thread] = self
        self._threads.append(thread)
        try:
            thread.start()
        except BaseException:
            if thread.ident is None:  # Else it runs, and an interrupt came while it was waited for.
                self._threads.remove(thread)
                _running.pop(thread, None)
            raise

    # --- The threads' side ---

    def work_once(self) -> bool:
        """Make one batch. False when there is nothing more to do."""
        self._permits.get()
        made = self._take(is_last_try=False)
        if made is None:
            self._permits.put(None)  # Wakes the next thread, which finds the same.
            return False
        self._finish(made)
        return True

    def _finish(self, made: Made) -> None:
        try:
            made.value, made.charge = self._make(made.value, made.number)
        except BaseException as error:  # Whatever it is, SystemExit too, the consumer gets it.
            made.drop()
            made.error = error
        if self.is_stopped:
            made.drop()
        made.is_done.release()

    def _take(self, is_last_try: bool) -> Made | None:
        if self.is_stopped:  # By a signal's handler perhaps, within the consumer's turn below it.
            return None
        with self._turn:
            if self.is_stopped or self._is_source_done:
                return None
            try:
                made = Made(*self._take_from_source(is_last_try), self._num_taken)
            except BaseException as error:
                self._is_source_done = True
                self._put(None if isinstance(error, StopIteration) else self._failed(error))
                return None
            self._num_taken += 1
            self._put(made)
            return made

    def _take_from_source(self, is_last_try: bool) -> tuple[Any, int]:
        got = self._source.take(is_last_try)
        while got is None:
            # The consumer may let go of batches while it works through those that are ready. Only when it
            # waits for this one, and still nothing is free, is it an error.
            self._put(_Starved())
            self._retry.get()
            if self.is_stopped:
                raise StopIteration
            got = self._source.take(True)
        return got

    def _failed(self, error: BaseException) -> Made:
        failed = Made(None, 0, self._num_taken)
        failed.error = error
        failed.is_done.release()
        return failed

    def _put(self, item: Made | _Starved | None) -> None:
        self._ready.put(item)
        if self.is_stopped:  # Only just: stop() may have emptied the queue before the item came.
            self._discard()

    # --- The consumer's side ---

    def next(self) -> Made | None:
        """Wait for the next result, or for the end: None. Raises what was raised for this batch."""
        if not self._may_work_here:
            return self._next(False)
        self._choose()
        try:
            return self._next(self._num_quick >= MANY_QUICK)
        finally:
            self._returned_ns = time.perf_counter_ns()

    def _choose(self) -> None:
        is_quick = time.perf_counter_ns() - self._returned_ns < QUICK_NS
        self._num_quick = self._num_quick + 1 if is_quick else 0
        if self._num_quick < MANY_QUICK:
            for _ in range(self._num_kept):
                self._permits.put(None)
            self._num_kept = 0

    def _next(self, prefers_here: bool) -> Made | None:
        while True:
            is_here = self._num_kept == self._most_batches  # No thread has a batch, or can take one.
            if is_here:
                self._make_here()
            made = self._ready.get()
            if made is None:
                return None
            if isinstance(made, _Starved):
                self._retry.put(None)
                continue
            made.is_done.acquire()
            if self.is_stopped:
                return None
            error = made.error
            if error is not None:
                made.drop()
                try:
                    raise error
                finally:
                    del error  # Its traceback holds this frame: do not let the frame hold the error.
            if prefers_here and not is_here:
                self._num_kept += 1
            elif not is_here:
                self._permits.put(None)
            return made

    def _make_here(self) -> None:
        with self._here:
            made = self._take(is_last_try=True)
            if made is not None:
                self._finish(made)

    def stop(self) -> None:
        """Let the threads end, and drop what is finished. Waits for no user code; callable from anywhere."""
        self.is_stopped = True
        self._source.stop()
        self._permits.put(None)  # Wakes a thread, which wakes the next.
        self._retry.put(None)
        self._discard()

    def _discard(self) -> None:
        """Drop what is queued, and wake a consumer that waits on another thread."""
        try:
            while True:
                item = self._ready.get_nowait()
                if isinstance(item, Made):
                    item.error = None
        except Empty:
            self._ready.put(None)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until the threads have ended, that is until the user code that they run returns."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            if thread is threading.current_thread():
                continue
            with contextlib.suppress(RuntimeError):  # Interrupted in its start.
                thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if self._here.acquire(timeout=-1 if deadline is None else max(0.0, deadline - time.monotonic())):
            self._here.release()


class Chained:
    """What one `Making` has made, as the source of the next."""

    def __init__(self, making: Making) -> None:
        self._making = making

    def take(self, is_last_try: bool) -> tuple[Any, int]:
        """Return the next result and its rows. Raises StopIteration at the end."""
        made = self._making.next()
        if made is None:
            raise StopIteration
        return made.value, made.rows

    def stop(self) -> None:
        """End both."""
        self._making.stop()


def _run(making: Making) -> None:
    try:
        while making.work_once():
            pass
    finally:
        _running.pop(threading.current_thread(), None)


# Threads that run, and what they work on. Plain dict operations are atomic.
_running: dict[threading.Thread, Making] = {}


def stop_all() -> None:
    """Stop everything at the end of the interpreter, and wait a while for the threads."""
    deadline = time.monotonic() + MOST_WAIT_S
    makings = set(_running.values())
    for making in makings:
        making.is_exiting = True
        making.stop()
    for making in makings:
        making.join(max(0.0, deadline - time.monotonic()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)  # The child has none of these threads.
