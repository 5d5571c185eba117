"""The generic primitive: worker threads share one base iterator and feed one consumer.

Stopping may be asked for at any moment, by the garbage collector too, on a thread that is in the middle of
anything. So it takes no lock: all that threads wait for are two `queue.SimpleQueue`, whose `put` may be
called from a destructor, and flags that are only ever set.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar, cast

__all__ = ["ThreadedIterator", "iter_threaded"]

T = TypeVar("T")
U = TypeVar("U")

# How long the end of the interpreter waits for user code that still runs on a worker. Killing a thread inside
# native code may abort the process, hence the wait; it is bounded, since a read may never return.
_EXIT_WAIT_S = 5.0


class _End:
    """Stands in the queue behind everything that will ever be delivered."""


class _Failure:
    """Carries an error to the consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Shared(Generic[T, U]):
    """What the consumer and its workers share. Never refers to the iterator that the user holds.

    slots: one token per item that may still be started. A worker takes one before it starts, the token then
    goes with the item, and the consumer puts it back when it takes the item: so queue + in-flight never
    exceed the number of tokens.
    """

    def __init__(
        self, base: Iterator[T], fn: Callable[[Iterator[T]], Iterable[U]], num_workers: int, num_slots: int
    ) -> None:
        self.base = base
        self.fn = fn
        self.consumer = threading.current_thread()
        self.turn = threading.Lock()  # Held by the one worker that is inside `base`.
        self.is_base_done = False  # Guarded by `turn`.
        self.is_stopped = False  # No work may start.
        self.is_abandoned = False  # Nobody reads `ready` any more.
        self.slots: SimpleQueue[None] = SimpleQueue()
        self.ready: SimpleQueue[U | _Failure | _End] = SimpleQueue()
        self.not_left: list[None] = [None] * num_workers
        for _ in range(num_slots):
            self.slots.put(None)

    def put(self, item: U) -> None:
        """Hand an item to the consumer, or drop it if nothing more is wanted."""
        if self.is_stopped:
            return
        self.ready.put(item)
        if self.is_abandoned:  # Only just: abandon() may have emptied the queue before the item came.
            self.discard()

    def fail(self, error: BaseException) -> None:
        """Send the first error to the consumer, behind the finished items, and let the workers end."""
        if self.is_stopped:
            return
        self.is_stopped = True
        self.ready.put(_Failure(error))
        self.slots.put(None)
        if self.is_abandoned:
            self.discard()

    def leave(self) -> None:
        """Say that a worker has put its last item."""
        self.not_left.pop()
        if not self.not_left:  # Two workers may both see it empty; a second end does no harm.
            self.ready.put(_End())

    def abandon(self) -> None:
        """Stop the workers and drop what is queued. Waits for nothing; may be called from a destructor."""
        self.is_abandoned = True
        self.is_stopped = True
        self.slots.put(None)  # Wakes a worker, which wakes the next.
        self.discard()

    def discard(self) -> None:
        """Drop what is queued and wake a consumer that waits on another thread."""
        try:
            while True:
                self.ready.get_nowait()
        except Empty:
            self.ready.put(_End())


class _Inputs(Iterator[T], Generic[T, U]):
    """What one worker's fn iterates over, and that worker's hold on its slot."""

    def __init__(self, shared: _Shared[T, U]) -> None:
        self._shared = shared
        self._owner: int | None = threading.get_ident()
        self._has_slot = False

    def take_slot(self) -> bool:
        """Wait for a slot unless one is held. False if no work may start any more."""
        if not self._has_slot:
            self._shared.slots.get()
            self._has_slot = True
        if self._shared.is_stopped:
            self.give_slot_back()  # The token goes on to the next worker that waits.
        return self._has_slot

    def hand_slot_over(self) -> None:
        """Leave the slot to the queued item."""
        self._has_slot = False

    def give_slot_back(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self._shared.slots.put(None)

    def retire(self) -> None:
        """End with the worker: whoever kept this iterator gets no slot through it."""
        self._owner = None
        self.give_slot_back()

    def __next__(self) -> T:
        # An fn that reads ahead while it is being called starts work too. A thread that fn itself started
        # (nested use) takes none: its worker may be waiting for the slot that such a thread would sit on.
        if threading.get_ident() == self._owner and not self.take_slot():
            raise StopIteration
        shared = self._shared
        with shared.turn:
            if shared.is_stopped or shared.is_base_done:
                raise StopIteration
            try:
                return next(shared.base)
            except BaseException:
                shared.is_base_done = True
                raise


def _call_fn(shared: _Shared[T, U], inputs: Iterator[T]) -> Iterator[U]:
    if shared.is_stopped:
        return iter(())
    try:
        return iter(shared.fn(inputs))
    except StopIteration as error:  # Raised by next() it would look like the end of the data.
        raise RuntimeError("fn raised StopIteration while it was being called") from error


def _run_worker(shared: _Shared[T, U]) -> None:
    inputs: _Inputs[T, U] = _Inputs(shared)
    outputs: Iterator[U] | None = None
    try:
        outputs = _call_fn(shared, inputs)
        while inputs.take_slot():
            try:
                item = next(outputs)
            except StopIteration:
                break
            inputs.hand_slot_over()
            shared.put(item)
            del item  # Waiting for the next slot must not keep alive what the consumer has let go.
    except BaseException as error:  # Whatever it is, SystemExit too, the consumer gets it.
        shared.fail(error)
    finally:
        outputs = (
            None  # Runs the `finally` blocks of a generator before anybody is told that this worker is done.
        )
        inputs.retire()
        shared.leave()
        _running.pop(threading.current_thread(), None)


class ThreadedIterator(Iterator[U]):
    """Iterator over what the workers of `iter_threaded` make; see there.

    One thread at a time may call `next`; any thread may call `close`. It is closed by its end, by an error
    (an interrupt of `next` among them), by `close`, by leaving a `with` block and by garbage collection.
    """

    _shared: _Shared[object, U] | None = None

    def __init__(self, shared: _Shared[object, U], num_workers: int) -> None:
        self._shared = shared
        self._pid = 0  # Of the process that started the threads.
        self._num_workers = num_workers
        self._threads: list[threading.Thread] = []

    def __iter__(self) -> ThreadedIterator[U]:
        return self

    def __next__(self) -> U:
        shared = self._shared
        if shared is None:
            raise StopIteration
        if self._threads and os.getpid() != self._pid:
            raise RuntimeError("iter_threaded was started before a fork: make a new one in the child process")
        try:
            if not self._threads:
                self._start(shared)
            got = shared.ready.get()
            if isinstance(got, _End):
                raise StopIteration
            if isinstance(got, _Failure):
                try:
                    raise got.error
                finally:
                    del got  # The error's traceback holds this frame: do not let the frame hold the error.
            shared.slots.put(None)
            return got
        except BaseException:
            # Also an interrupt, which may have come between taking an item and returning it.
            self.close()
            raise

    def _start(self, shared: _Shared[object, U]) -> None:
        self._pid = os.getpid()
        shared.consumer = threading.current_thread()
        for i in range(self._num_workers):
            thread = threading.Thread(
                target=_run_worker, args=(shared,), name=f"penstock-iter-threaded-{i}", daemon=True
            )
            self._threads.append(thread)
            _running[thread] = cast("_Shared[object, object]", shared)
            try:
                thread.start()
            except BaseException:
                _running.pop(thread, None)
                self._threads.pop()
                raise

    def close(self, *, wait: bool = False) -> None:
        """Stop the workers and drop what is queued. Safe to call twice.

        Parameters
        ----------
        wait : bool, default False
            Also wait until the threads have ended, that is until the user code which runs on them returns.
            Use it where `base_iterator` reads from something that is about to be closed.
        """
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.abandon()
        if wait:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join()

    def __enter__(self) -> ThreadedIterator[U]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        shared = self._shared
        if shared is not None:
            shared.abandon()


def iter_threaded(
    base_iterator: Iterable[T],
    fn: Callable[[Iterator[T]], Iterable[U]],
    num_workers: int = 1,
    output_buffer_size: int = 1,
) -> ThreadedIterator[U]:
    """Run `fn` over a shared iterator on worker threads.

    Parameters
    ----------
    base_iterator : Iterable
        What the workers share. It need not be thread-safe: one thread at a time is inside it.
    fn : Callable[[Iterator], Iterable]
        Maps an iterator to an iterator; called once per worker, with an iterator that takes items from
        `base_iterator`. It may yield any number of items per input.
    num_workers : int, default 1
        Number of threads, >= 1. They start at the first `next`.
    output_buffer_size : int, default 1
        The most items that may be in the making or waiting to be taken, together, >= 1. Fewer than
        `num_workers` leaves workers idle.

    Returns
    -------
    ThreadedIterator
        Yields every item once: in order with one worker, else in the order in which they were finished. It
        has `close()` and is a context manager.

    Raises
    ------
    ValueError
        If `num_workers` or `output_buffer_size` is below 1.
    TypeError
        If `base_iterator` cannot be iterated over.

    Notes
    -----
    The first error of `fn` or of `base_iterator`, of any type, is raised once by `next`, with its own
    traceback and behind the items that were finished before it; then the iteration is over. Errors after
    `close()` go nowhere.

    When the consumer leaves (`break` and the death of the iterator, `close()`), no further item is fetched
    and idle threads end at once; one that runs user code ends when that returns. To `fn` this looks like the
    end of its input. Nobody waits for it, unless `close(wait=True)` is asked for.

    An `fn` that is a generator keeps its variables while it is suspended at `yield`, and with them its last
    item, although the consumer may have let go of it. `map` does not.

    Dropping the iterator stops the threads only if neither `base_iterator` nor `fn` refers to it, as a bound
    method of its owner does; close it in that case.

    Examples
    --------
    >>> sorted(iter_threaded(range(4), lambda numbers: (n * n for n in numbers), num_workers=2))
    [0, 1, 4, 9]
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    if output_buffer_size < 1:
        raise ValueError(f"output_buffer_size must be at least 1, got {output_buffer_size}")
    shared = _Shared(iter(base_iterator), fn, num_workers, output_buffer_size)
    return ThreadedIterator(cast("_Shared[object, U]", shared), num_workers)


# Threads that run, and what they share. Plain dict operations are atomic, so no lock is needed here either.
_running: dict[threading.Thread, _Shared[object, object]] = {}


def _stop_running(is_over: Callable[[threading.Thread], bool]) -> None:
    """Stop what was started by consumers of whom `is_over` holds, and wait a while for the threads."""
    deadline = time.monotonic() + _EXIT_WAIT_S
    for shared in list(_running.values()):
        if is_over(shared.consumer):
            shared.abandon()
    for thread, shared in list(_running.items()):
        if is_over(shared.consumer):
            thread.join(max(0.0, deadline - time.monotonic()))
            _running.pop(thread, None)  # Is not waited for twice.


def _stop_before_threads_are_joined() -> None:
    # A thread that the interpreter is about to wait for may still be iterating, and must get all its items.
    _stop_running(lambda consumer: consumer is threading.main_thread() or not consumer.is_alive())


def _stop_at_exit() -> None:
    _stop_running(lambda _consumer: True)


def _register_exit() -> None:
    register = getattr(threading, "_register_atexit", None)  # Not public, hence the fallback.
    if register is not None:
        try:
            register(_stop_before_threads_are_joined)
        except RuntimeError:  # Imported while the interpreter shuts down.
            return
    atexit.register(_stop_at_exit)


_register_exit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)  # The child has none of these threads.
