"""Ray's blocks on their way into batches: fetched ahead, in order, held no longer than their rows need."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from penstock.ray._errors import explain
from penstock.ray._forms import Conformer, has_nulls, own_copy_of_block, sliced, to_table
from penstock.ray._meter import TELL_EVERY_S

__all__ = ["Block", "BlockStream"]

# Blocks that are fetched ahead are mapped, so that the store can neither spill nor evict them: small ones may
# be, and one large block is fetched when it is asked for (until then it is on its way to this node).
_MOST_AHEAD_BYTES = 16 << 20
_LEAST_HELD_BYTES = 16 << 20
_RUN_BYTES = 1 << 20  # Small blocks are fetched in one call...
_RUN_BLOCKS = 16  # ... of so many at most.
_GETTERS = 2
_STOP_CHECK_S = 0.2


class Block:
    """A block, and the reference that keeps it in Ray's store.

    The native loader takes it for an item of its stream and drops it when its last row has been copied; then
    the block's memory and the reference go together.

    Parameters
    ----------
    table : pyarrow.Table
        The rows.
    is_in_store : bool
        Whether the rows lie in Ray's memory, not in this process's own.
    on_death : callable
        Called once without arguments when the block is dropped, on any thread.
    keeps : object
        What is to live as long as the block.
    """

    __slots__ = ("_keeps", "_on_death", "is_in_store", "table")

    def __init__(
        self, table: pa.Table, is_in_store: bool, on_death: Callable[[], None], keeps: object = None
    ) -> None:
        self.table = table
        self.is_in_store = is_in_store
        self._on_death = on_death
        self._keeps = keeps

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __del__(self) -> None:
        self.table = self._keeps = None
        self._on_death()


class _Entry:
    """A block that has not been asked for yet."""

    __slots__ = ("begin", "block", "end", "error", "nbytes", "ref", "rows", "state")

    def __init__(self, ref: Any, metadata: Any, part: Any) -> None:
        self.ref = ref
        self.nbytes: int = metadata.size_bytes or 0
        self.rows: int | None = metadata.num_rows
        self.begin: int = 0 if part is None else part.start_offset
        self.end: int | None = None if part is None else part.end_offset
        self.state = "waiting"  # "getting", "ready"
        self.block: Any = None
        self.error: BaseException | None = None


class BlockStream(Iterator[Block]):
    """The blocks of a Ray stream, in its order.

    A thread takes references from Ray as far ahead as `rows_ahead` says, others fetch the blocks; all of them
    end with the stream. Empty blocks are passed over.

    Parameters
    ----------
    bundles : Iterator of RefBundle
        What Ray gives; run on a thread of its own.
    stop : threading.Event
        Set by `stop`; `bundles` returns soon after.
    rows_ahead : int or None
        Rows whose references are held ahead, at least one block; None: one block. Beyond 16 MiB, rows that
        were given and not yet told to `use` count as well: they lie in batches ahead already.
    meter : Meter
        Takes the times.
    report : callable
        Called with the bytes of all blocks that are held, whenever they change.
    """

    def __init__(
        self,
        bundles: Iterator[Any],
        stop: threading.Event,
        rows_ahead: int | None,
        meter: Any,
        report: Callable[[int], None],
    ) -> None:
        self._bundles: Iterator[Any] | None = bundles
        self._stop = stop
        self._rows_ahead = rows_ahead
        self._meter = meter
        self._report = report
        # Reentrant: a block may die while its lock is held.
        self._lock = threading.RLock()
        # Each wakes whom it concerns: a thread that wakes for nothing takes the GIL from those that work.
        self._came = threading.Condition(self._lock)  # Who takes blocks waits for the front one...
        self._room = threading.Condition(self._lock)  # ... the thread that takes references for room...
        self._work = threading.Condition(self._lock)  # ... and those that fetch for something to fetch.
        self._entries: deque[_Entry] = deque()  # In order.
        self._waiting: deque[_Entry] = deque()  # Those of them whose fetch has not begun.
        self._ahead_bytes = 0  # Of entries that are being fetched, or have been.
        self._entry_rows = 0
        self._entry_bytes = 0
        self._unused_rows = 0
        self.counts_unused = True  # False where batches have fewer rows than what they are made of.
        self._held_bytes = 0
        self._is_over = False
        self._failure: BaseException | None = None
        self._peeked: _Entry | None = None
        self._put_back: Block | None = None
        self._threads: list[threading.Thread] = []
        self._conformer = Conformer()
        self.looks_for_nulls = False
        self.has_nulls = False  # In any block that was given, if it looks for them.

    @property
    def held_bytes(self) -> int:
        """Of all blocks whose references are held: those ahead and those whose rows are still needed."""
        return self._held_bytes

    def peek(self) -> Any:
        """Return the first block as Ray has it; None where there is no row at all."""
        if self._peeked is None:
            self._peeked = self._next()
        return None if self._peeked is None else self._peeked.block

    def first(self) -> Block:
        """Return the first block, which stays the next."""
        self._put_back = next(self)
        return self._put_back

    def put_back(self, block: Block) -> None:
        """Give that block again, although it was taken: by whom it was of no use to."""
        self._put_back = block

    def __next__(self) -> Block:
        block, self._put_back = self._put_back, None
        if block is not None:
            return block
        entry = self._next_or_peeked()
        if entry is None:
            raise StopIteration
        return self._to_block(entry)

    def as_they_are(self) -> Iterator[Any]:
        """Yield what is left as Ray has it, tables and data frames, each copied out of Ray's memory."""
        while (entry := self._next_or_peeked()) is not None:
            block, entry.block = own_copy_of_block(entry.block), None
            self._forget(entry)
            yield block
            del block

    def _next_or_peeked(self) -> _Entry | None:
        entry, self._peeked = self._peeked, None
        return self._next() if entry is None else entry

    def _next(self) -> _Entry | None:
        while True:
            entry = self._take()
            if entry is None:
                return None
            if entry.state == "waiting":
                self._fetch([entry])
            if entry.error is not None:
                self._forget(entry)
                raise entry.error
            if entry.block is None:  # Stopped.
                return None
            with self._lock:
                self._ahead_bytes -= entry.nbytes
                self._work.notify()
            if len(entry.block) > 0:
                return entry
            self._forget(entry)

    def _to_block(self, entry: _Entry) -> Block:
        is_in_store = isinstance(entry.block, pa.Table)
        try:
            table = to_table(entry.block)
            conformed = self._conformer(table)
        except BaseException:
            self._forget(entry)
            raise
        entry.block = None
        if self.looks_for_nulls and not self.has_nulls:
            self.has_nulls = has_nulls(conformed)
        nbytes = entry.nbytes
        return Block(
            conformed, is_in_store and conformed is table, lambda: self._let_go(nbytes), keeps=entry.ref
        )

    def _take(self) -> _Entry | None:
        """Wait for the front entry: fetched, or for the caller to fetch; None at the end."""
        with self._lock:
            self._start()
            while not self._stop.is_set():
                if self._entries:
                    entry = self._entries[0]
                    if entry.state == "waiting":
                        self._waiting.popleft()
                        self._ahead_bytes += entry.nbytes
                    if entry.state != "getting":
                        self._entries.popleft()
                        self._entry_rows -= entry.rows or 0
                        self._entry_bytes -= entry.nbytes
                        self._unused_rows += entry.rows or 0
                        self._room.notify()
                        return entry
                elif self._is_over:
                    if self._failure is not None:
                        raise self._failure
                    return None
                self._came.wait()
            return None

    def _start(self) -> None:
        if self._threads or self._stop.is_set():
            return
        work = [self._feed] + [self._get_ahead] * _GETTERS
        self._threads = [threading.Thread(target=each, name="penstock-ray", daemon=True) for each in work]
        for thread in self._threads:
            thread.start()

    def _feed(self) -> None:
        """Take references from Ray while there is room for them; tell Ray's metrics until the end."""
        failure: BaseException | None = None
        bundles, self._bundles = self._bundles, None
        assert bundles is not None
        try:
            while self._wait_for_room():
                with self._meter.bundles():
                    bundle = next(bundles, None)
                if bundle is None:
                    break
                parts = getattr(bundle, "slices", None) or [None] * len(bundle.blocks)
                for each, part in zip(bundle.blocks, parts, strict=True):
                    self._add(_Entry(each.ref, each.metadata, part))
                del bundle, each
        except BaseException as error:
            explain(error)
            failure = error
        finally:
            del bundles
            with self._lock:
                self._is_over = True
                self._failure = failure
                self._notify_all()
        while not self._stop.wait(TELL_EVERY_S):
            self._meter.tell()

    def _notify_all(self) -> None:
        for condition in (self._came, self._room, self._work):
            condition.notify_all()

    def use(self, rows: int) -> None:
        """Say that so many of the rows that were given are in the consumer's hand."""
        with self._lock:
            self._unused_rows -= rows
            self._room.notify()

    def _wait_for_room(self) -> bool:
        while True:
            self._meter.tell()
            with self._lock:
                if self._room.wait_for(self._may_take, TELL_EVERY_S):
                    return not self._stop.is_set()

    def _may_take(self) -> bool:
        return self._stop.is_set() or not self._entries or self._has_room()

    def _has_room(self) -> bool:
        if self._rows_ahead is None or self._entry_rows >= self._rows_ahead:
            return False
        is_little = self._entry_bytes < _LEAST_HELD_BYTES
        unused_rows = self._unused_rows if self.counts_unused else 0
        return is_little or self._entry_rows + unused_rows < self._rows_ahead

    def _add(self, entry: _Entry) -> None:
        import ray

        if entry.rows == 0:
            return
        with self._lock:
            if self._stop.is_set():
                return
            self._entries.append(entry)
            self._waiting.append(entry)
            self._entry_rows += entry.rows or 0
            self._entry_bytes += entry.nbytes
            self._hold(entry.nbytes)
            self._came.notify()
            self._work.notify()
        if entry.nbytes > _MOST_AHEAD_BYTES:
            ray.wait([entry.ref], timeout=0, fetch_local=True)  # On its way to this node, not mapped.

    def _get_ahead(self) -> None:
        while True:
            run = self._choose()
            if not run:
                return
            self._fetch(run)
            with self._lock:
                for entry in run:
                    entry.state = "ready"
                self._came.notify()
            del run, entry

    def _choose(self) -> list[_Entry]:
        """Wait for blocks to fetch ahead; none at the end."""
        with self._lock:
            while not self._stop.is_set():
                run: list[_Entry] = []
                run_bytes = 0
                while self._waiting and len(run) < _RUN_BLOCKS:
                    entry = self._waiting[0]
                    if self._ahead_bytes + entry.nbytes > _MOST_AHEAD_BYTES:
                        break
                    if run and run_bytes + entry.nbytes > _RUN_BYTES:
                        break
                    self._waiting.popleft()
                    entry.state = "getting"
                    self._ahead_bytes += entry.nbytes
                    run_bytes += entry.nbytes
                    run.append(entry)
                if run:
                    return run
                if self._is_over and not self._waiting:
                    return []
                self._work.wait()
            return []

    def _fetch(self, run: list[_Entry]) -> None:
        """Set the tables of entries, or what went wrong; neither where the stream was stopped."""
        try:
            with self._meter.get([entry.ref for entry in run]):
                blocks = self._get([entry.ref for entry in run])
            if blocks is None:
                return
            for entry in run:
                block = blocks.pop(0)
                entry.block = sliced(block, entry.begin, entry.end)
                del block
        except BaseException as error:
            if len(run) > 1:  # One of them is to blame, and those before it are to be had.
                for entry in run:
                    if entry.block is None:
                        self._fetch([entry])
                return
            explain(error)
            run[0].error = error

    def _get(self, refs: list[Any]) -> list[Any] | None:
        import ray

        try:
            got: list[Any] = ray.get(refs, timeout=_STOP_CHECK_S)
            return got
        except ray.exceptions.GetTimeoutError:
            pass
        # In slices of time, so that who stops need not wait for what may never come. Their fetch goes on.
        pending = refs
        while pending and not self._stop.is_set():
            _, pending = ray.wait(refs, num_returns=len(refs), timeout=_STOP_CHECK_S, fetch_local=True)
        return None if self._stop.is_set() else ray.get(refs)

    def _forget(self, entry: _Entry) -> None:
        entry.ref = entry.block = None
        self._let_go(entry.nbytes)

    def _hold(self, nbytes: int) -> None:
        self._held_bytes += nbytes
        self._report(self._held_bytes)

    def _let_go(self, nbytes: int) -> None:
        with self._lock:
            self._hold(-nbytes)

    @property
    def is_at_end(self) -> bool:
        """Whether all blocks have been given."""
        return self._is_over and not self._entries

    def stop(self) -> None:
        """Make every thread return soon, and drop what has not been given. Idempotent."""
        with self._lock:
            self._stop.set()
            dropped, put_back = list(self._entries), self._put_back
            if self._peeked is not None:
                dropped.append(self._peeked)
            self._entries.clear()
            self._waiting.clear()
            self._peeked = self._put_back = None
            self._bundles = None
            self._hold(-sum(entry.nbytes for entry in dropped))
            self._notify_all()
        del dropped, put_back

    def join(self) -> None:
        """Wait for the threads, and let go of Ray's executor: a loader may be kept. After `stop`."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._report = _nothing
        self._meter = None


def _nothing(_: int) -> None:
    pass
