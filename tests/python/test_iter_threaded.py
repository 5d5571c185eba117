"""The promises of iter_threaded. Threads meet at events; the only clock is the watchdog."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock import iter_threaded

if TYPE_CHECKING:
    from penstock._iter_threaded import ThreadedIterator

PREFIX = "penstock-iter-threaded"
GRID = [(workers, buffer) for workers in (1, 2, 4) for buffer in (1, 2, 4)]


def workers_now() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(PREFIX)]


def join_workers() -> None:
    """Returns when no worker is left; a worker that never ends is the watchdog's."""
    for thread in workers_now():
        thread.join()


@pytest.fixture(autouse=True)
def no_worker_is_left(watchdog: None) -> Iterator[None]:
    yield
    gc.collect()
    for thread in workers_now():
        thread.join(10)  # pytest disarms the watchdog once a test has failed.
    assert workers_now() == []


def same(items: Iterator[int]) -> Iterator[int]:
    yield from items


class Numbers:
    """0, 1, 2, ... Not thread-safe, and notices when it is entered twice."""

    def __init__(self, stop: int = sys.maxsize, work: int = 0) -> None:
        self.stop = stop
        self.work = work
        self.num_fetched = 0
        self.was_shared = False
        self._inside = threading.Lock()

    def __iter__(self) -> Numbers:
        return self

    def __next__(self) -> int:
        if not self._inside.acquire(blocking=False):
            self.was_shared = True
            raise AssertionError("two threads are inside the base iterator")
        try:
            if self.num_fetched >= self.stop:
                raise StopIteration
            self.num_fetched += 1
            return (
                self.num_fetched - 1 + sum(0 for _ in range(self.work))
            )  # Long enough to be interrupted in here.
        finally:
            self._inside.release()


# Every item once, order, arguments


@pytest.mark.parametrize(("workers", "buffer"), GRID)
def test_every_item_exactly_once_and_base_entered_by_one_thread(workers: int, buffer: int) -> None:
    base = Numbers(500, work=50)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # Threads change places all the time.
    try:
        got = list(iter_threaded(base, same, workers, buffer))
    finally:
        sys.setswitchinterval(before)
    assert sorted(got) == list(range(500))
    assert not base.was_shared
    if workers == 1:
        assert got == list(range(500)), "one worker keeps the order"


@settings(max_examples=60, deadline=None, print_blob=True)
@given(
    counts=st.lists(st.integers(0, 3), max_size=40),
    workers=st.integers(1, 4),
    buffer=st.integers(1, 4),
)
def test_every_output_exactly_once_where_fn_yields_several_or_none(
    counts: list[int], workers: int, buffer: int
) -> None:
    def fn(items: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        for i, n in items:
            yield from ((i, k) for k in range(n))

    got = Counter(iter_threaded(enumerate(counts), fn, workers, buffer))
    assert got == Counter((i, k) for i, n in enumerate(counts) for k in range(n))


def test_fn_may_fold_its_whole_input_and_yield_at_the_end() -> None:
    def fn(items: Iterator[int]) -> list[int]:
        return [sum(items)]

    got = list(iter_threaded(range(100), fn, 4, 1))
    assert len(got) == 4
    assert sum(got) == sum(range(100))


@pytest.mark.parametrize("name", ["num_workers", "output_buffer_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_below_one_raise_at_the_call(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        iter_threaded([1], same, **{name: value})


def test_a_base_that_is_no_iterable_raises_at_the_call() -> None:
    with pytest.raises(TypeError):
        iter_threaded(3, same)  # type: ignore[arg-type]


def test_empty_base_is_empty() -> None:
    assert list(iter_threaded([], same, 4, 4)) == []


def test_nothing_runs_before_the_first_next() -> None:
    base = Numbers()
    it = iter_threaded(base, same, 2, 2)
    assert base.num_fetched == 0
    assert workers_now() == []
    it.close()
    assert list(it) == []


def test_fn_is_called_once_per_worker() -> None:
    all_called = threading.Barrier(4)  # Passed only if four workers call fn, whatever the buffer is.
    calls: list[int] = []

    def fn(items: Iterator[int]) -> Iterator[int]:
        calls.append(threading.get_ident())
        all_called.wait()
        return map(abs, items)

    assert sorted(iter_threaded(range(50), fn, 4, 1)) == list(range(50))
    assert len(calls) == len(set(calls)) == 4


@pytest.mark.parametrize("buffer", [1, 2])
def test_nested_use_does_not_deadlock(buffer: int) -> None:
    def fn(items: Iterator[int]) -> Iterable[int]:
        return iter_threaded(items, same, 2, buffer)

    inner = iter_threaded(range(200), same, 2, buffer)
    assert sorted(iter_threaded(inner, fn, 3, buffer)) == list(range(200))


def test_work_overlaps_the_consumer() -> None:
    made = threading.Event()

    def fn(items: Iterator[int]) -> Iterator[int]:
        for i in items:
            if i == 1:
                made.set()
            yield i

    it = iter_threaded(range(2), fn)
    assert next(it) == 0
    made.wait()  # Item 1 is made while item 0 is in hand and nobody asks.
    assert list(it) == [1]


# Errors


def fails_when_called(error: BaseException) -> Iterator[int]:
    def the_culprit(items: Iterator[int]) -> Iterator[int]:
        raise error

    return iter_threaded(range(9), the_culprit, 2, 2)


def fails_in_fn(error: BaseException) -> Iterator[int]:
    def the_culprit(items: Iterator[int]) -> Iterator[int]:
        for i in items:
            if i == 5:
                raise error
            yield i

    return iter_threaded(range(9), the_culprit, 2, 2)


def fails_in_base(error: BaseException) -> Iterator[int]:
    def the_culprit() -> Iterator[int]:
        yield from range(5)
        raise error

    return iter_threaded(the_culprit(), same, 2, 2)


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("make", [fails_when_called, fails_in_fn, fails_in_base])
def test_an_error_is_raised_once_with_type_and_traceback(
    kind: type[BaseException], make: Callable[[BaseException], Iterator[int]]
) -> None:
    error = kind("boom")
    it = make(error)
    with pytest.raises(kind) as caught:
        list(it)
    assert caught.value is error
    assert "the_culprit" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    with pytest.raises(StopIteration):
        next(it)


def test_items_finished_before_the_error_are_delivered_first() -> None:
    def fn(items: Iterator[int]) -> Iterator[int]:
        for i in items:
            if i == 3:
                raise OSError("item 3")
            yield i

    it = iter_threaded(range(9), fn, 1, 8)
    assert [next(it) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="item 3"):
        next(it)


def test_stop_iteration_out_of_the_call_of_fn_does_not_pass_for_the_end() -> None:
    def fn(items: Iterator[int]) -> Iterator[int]:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(iter_threaded(range(9), fn))


def test_an_error_that_the_user_keeps_is_in_no_reference_cycle() -> None:
    class Error(Exception):
        pass

    def fn(items: Iterator[int]) -> Iterator[int]:
        raise Error

    def run() -> weakref.ref[Error]:
        try:
            next(iter_threaded(range(9), fn))
        except Error as error:
            join_workers()
            return weakref.ref(error)
        raise AssertionError("no error")

    gc.disable()
    try:
        assert run()() is None
    finally:
        gc.enable()


# The bound


@pytest.mark.parametrize(("workers", "buffer"), GRID)
def test_queue_and_in_flight_never_exceed_the_buffer(workers: int, buffer: int) -> None:
    # Fetched less asked for: the consumer frees a slot only within next(), so while it holds an item and does
    # not ask, this is queue + in-flight exactly.
    asked = 0
    peak = 0
    full = threading.Event()

    def base() -> Iterator[int]:
        nonlocal peak
        for fetched in range(1, 201):
            peak = max(peak, fetched - asked)
            if fetched - asked >= buffer:
                full.set()
            yield fetched

    it = iter_threaded(base(), same, workers, buffer)
    while peak <= buffer:
        asked += 1
        if next(it, None) is None:
            break
        if asked <= 200 - buffer:
            full.wait()  # The workers make use of the whole buffer ...
        full.clear()
    assert peak == buffer  # ... and of no more.


def test_an_fn_that_reads_ahead_while_it_is_called_needs_a_slot() -> None:
    live = 0
    peak = 0
    mu = threading.Lock()

    def fn(items: Iterator[int]) -> Iterator[int]:
        nonlocal live, peak
        held = list(islice(items, 1))
        with mu:
            live += len(held)
            peak = max(peak, live)
        return outputs(held, items)

    def outputs(held: list[int], items: Iterator[int]) -> Iterator[int]:
        nonlocal live
        with mu:
            live -= len(held)
        yield from held
        yield from items

    assert sorted(iter_threaded(range(50), fn, 4, 1)) == list(range(50))
    assert peak == 1


# Stopping


class Blocker:
    """fn that takes two inputs per output and, from the second output on, stays between the two."""

    def __init__(self) -> None:
        self.is_between = threading.Event()
        self.may_go_on = threading.Event()
        self.busy = threading.current_thread()

    def __call__(self, items: Iterator[int]) -> Iterator[int]:
        for i in items:
            if i >= 2:
                self.busy = threading.current_thread()
                self.is_between.set()
                self.may_go_on.wait()
            next(items, None)
            yield i


def leave(how: str, it: ThreadedIterator[int], wait: Callable[[], object]) -> None:
    if how == "with":
        with it:
            next(it)
            wait()
    elif how == "break, its death":
        for _ in it:
            wait()
            break
    elif how == "error":
        try:
            for _ in it:
                wait()
                raise OSError("step")
        except OSError:
            pass
    else:
        next(it)
        wait()
        if how == "close":
            it.close()
            assert next(it, None) is None
        elif how == "garbage collection":
            cycle: list[object] = [it]
            cycle.append(cycle)
            del it, cycle
            gc.collect()


LEAVE = ["with", "break, its death", "error", "close", "garbage collection"]


@pytest.mark.parametrize("how", LEAVE)
def test_nothing_is_fetched_after_the_consumer_left(how: str) -> None:
    base = Numbers()
    fn = Blocker()
    iterators = [iter_threaded(base, fn, 1, 1)]  # The only reference, which goes to `leave`.
    leave(how, iterators.pop(), fn.is_between.wait)
    fn.may_go_on.set()  # Only now may fn ask for its second input.
    join_workers()
    assert base.num_fetched == 3


@pytest.mark.parametrize("how", LEAVE)
def test_workers_that_wait_for_a_slot_end_although_one_is_busy(how: str) -> None:
    fn = Blocker()
    iterators = [iter_threaded(Numbers(), fn, 4, 1)]
    leave(how, iterators.pop(), fn.is_between.wait)
    for thread in workers_now():
        if thread is not fn.busy:
            thread.join()
    assert workers_now() == [fn.busy]
    fn.may_go_on.set()


def test_stopping_does_not_wait_for_the_turn_lock() -> None:
    is_inside, may_return = threading.Event(), threading.Event()
    entered: list[int] = []

    def base() -> Iterator[int]:
        entered.append(1)
        is_inside.set()
        may_return.wait()
        yield 1
        entered.append(2)

    it = iter_threaded(base(), same, 4, 4)
    got: list[int] = []
    consumer = threading.Thread(target=lambda: got.extend(it))
    consumer.start()
    is_inside.wait()
    it.close()
    consumer.join()  # A consumer that waits is woken, while the base still blocks.
    assert len(workers_now()) >= 1
    may_return.set()
    join_workers()
    assert got == []
    assert entered == [1], "those who waited for their turn must see the flag"


def test_a_busy_worker_keeps_neither_what_the_consumer_let_go_nor_what_was_queued_at_close() -> None:
    class Item:
        pass

    items = [Item() for _ in range(3)]
    refs = [weakref.ref(item) for item in items]
    is_busy, may_return = threading.Event(), threading.Event()

    def base() -> Iterator[Item]:
        while items:
            yield items.pop(0)
        is_busy.set()
        may_return.wait()

    it = iter_threaded(base(), iter, 1, 4)
    next(it)
    is_busy.wait()
    first_is_gone = refs[0]() is None
    it.close()
    all_are_gone = [ref() for ref in refs] == [None] * 3
    may_return.set()
    assert first_is_gone
    assert all_are_gone


def test_close_with_wait_returns_when_the_user_code_has() -> None:
    base = Numbers()
    it = iter_threaded(base, same, 4, 4)
    next(it)
    it.close(wait=True)
    assert workers_now() == []


def test_a_thousand_abandoned_iterators_leave_no_thread() -> None:
    for _ in range(1000):
        next(iter_threaded(Numbers(), same, 2, 2))
    join_workers()


# The process around it


def test_ctrl_c_ends_the_wait_of_the_consumer() -> None:
    may_return = threading.Event()

    def fn(items: Iterator[int]) -> Iterator[int]:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # It is inside next().
        may_return.wait()
        yield from items

    it = iter_threaded(range(3), fn)
    with pytest.raises(KeyboardInterrupt):
        next(it)
    assert next(it, None) is None, "an interrupt closes the iterator"
    may_return.set()


SCRIPT = """
import os, sys, threading
from penstock import iter_threaded

class Forever:
    def __iter__(self): return self
    def __next__(self): return 1

inside = threading.Event()
def blocks(items):
    for i in items:
        yield i
        inside.set()
        threading.Event().wait()
def same(items):
    yield from items
"""


def run_script(body: str) -> subprocess.CompletedProcess[str]:
    code = SCRIPT + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=150)


@pytest.mark.parametrize(
    ("fn", "wait"),
    [("same", ""), ("blocks", "inside.wait()")],
    ids=["idle workers", "user code that never returns"],
)
def test_exit_in_mid_iteration_keeps_the_exit_code(fn: str, wait: str) -> None:
    done = run_script(f"""
        import penstock._iter_threaded as module
        module._EXIT_WAIT_S = 0.1
        it = iter_threaded(Forever(), {fn}, 4, 4)
        next(it)
        {wait}
        sys.exit(7)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


def test_a_thread_that_outlives_the_main_thread_gets_every_item() -> None:
    done = run_script("""
        main = threading.main_thread()
        def consume():
            it = iter_threaded(range(1000), same, 2, 2)
            got = [next(it)]
            main.join()
            got.extend(it)
            print(sorted(got) == list(range(1000)))
        threading.Thread(target=consume).start()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_use_after_fork_is_a_clear_error() -> None:
    done = run_script("""
        import warnings
        warnings.simplefilter("ignore")  # Newer Pythons warn of a fork beside threads.
        it = iter_threaded(Forever(), same, 2, 2)
        next(it)
        pid = os.fork()
        if pid == 0:
            try:
                next(it)
            except RuntimeError as error:
                os._exit(3 if "fork" in str(error) else 1)
            os._exit(2)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
