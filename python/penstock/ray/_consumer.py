"""One iteration over a Ray stream: what runs, in which order it ends, and what Ray is told of it."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from penstock._iter_threaded import iter_threaded
from penstock._loader import MOST_WINDOW_ROWS, Loader
from penstock.ray._blocks import BlockStream
from penstock.ray._errors import explain
from penstock.ray._meter import Meter
from penstock.ray._shuffle import ShuffledBlocks
from penstock.ray._steps import NOTHING
from penstock.ray._stream import open_stream
from penstock.ray._version import require_running

__all__ = ["Recipe", "iterate"]

_AUTO_BATCHES = 2


@dataclass
class Recipe:
    """What an iteration is to give.

    Attributes
    ----------
    options : callable
        Returns the arguments of `penstock.Loader` for blocks of a schema, given the meter and what tells
        whether any block so far had nulls.
    batch_size : int or None
        None: each block is a batch, made by `make`.
    make : callable, optional
        Returns what makes a batch of rows as Ray has them, given the meter.
    finalize : callable, optional
        Returns the last that is done to it, given the meter.
    why_not_arrow : callable, optional
        Returns why batches are to be made by `make` and `finalize`, given the first block; None: they need
        not be.
    warned : set of str
        Of these reasons, the ones that were told of.
    drop_last : bool
        As in `penstock.Loader`.
    prefetch_batches : "auto" or int
        Batches ahead; of references, at least one block.
    shuffle_rows, seed, epoch : int
        The window of the local shuffle (0: none), and what its order is made from.
    shuffles_blocks : bool
        Whether rows are mixed as they are in blocks, since what transforms make of them is larger.
    may_exceed : bool
        Whether windows that have no room in the budget are mixed as blocks beside it, with a warning. Else
        they are an error.
    looks_for_nulls : bool
        Whether `options` wants to know of nulls.
    opened : callable, optional
        Told the loader that runs.
    """

    options: Callable[[pa.Schema, Meter, Callable[[], bool]], dict[str, Any]]
    batch_size: int | None
    prefetch_batches: Any = "auto"
    shuffle_rows: int = 0
    shuffles_blocks: bool = False
    may_exceed: bool = False
    looks_for_nulls: bool = False
    seed: int = 0
    epoch: int = 0
    make: Callable[[Meter], Callable[[Any], Any]] | None = None
    finalize: Callable[[Meter], Callable[[Any], Any]] | None = None
    why_not_arrow: Callable[[Any], str | None] | None = None
    warned: set[str] = field(default_factory=set)
    drop_last: bool = False
    opened: Callable[[Loader], None] | None = None

    @property
    def rows_ahead(self) -> int | None:
        """Rows ahead of the consumer, in batches and as references."""
        if self.batch_size is None:
            return None
        batches = _AUTO_BATCHES if self.prefetch_batches == "auto" else self.prefetch_batches
        return max(1, int(batches)) * self.batch_size


def iterate(iterator: Any, recipe: Recipe) -> Iterator[Any]:
    """Yield the batches of the next epoch of a DataIterator.

    However it ends, the executor is shut down (a split is reported as finished), threads are joined, and no
    block is held.
    """
    require_running()
    began_s = time.perf_counter()
    stop = threading.Event()
    try:
        opened = open_stream(iterator, stop)  # Waits for the first block.
    except BaseException as error:
        explain(error)
        raise
    try:
        meter = Meter(opened.stats, iterator._get_dataset_tag(), began_s)
        blocks = BlockStream(opened.bundles, stop, recipe.rows_ahead, meter, opened.report)
        blocks.looks_for_nulls = recipe.looks_for_nulls
    except BaseException:
        opened.end(True)
        raise
    # The generator of the references belongs to the stream's thread alone.
    opened.bundles = iter(())
    source = _Closing(iter(()))
    try:
        first = blocks.peek()
        meter.initialized()
        if first is None:
            return
        is_by_ray = _is_by_ray(first, recipe)
        del first
        source = _open_by_ray(blocks, recipe, meter) if is_by_ray else _open(blocks, recipe, meter)
        meter.num_rows = source.num_rows
        returned_s = time.perf_counter()
        while True:
            batch = next(source.batches, _END)
            given_s = time.perf_counter()
            meter.waited(given_s - returned_s)
            if batch is _END:
                break
            meter.given()
            blocks.use(recipe.batch_size or 0)
            yield None if batch is NOTHING else batch
            del batch
            returned_s = time.perf_counter()
            meter.used(returned_s - given_s)
    finally:
        is_early = not blocks.is_at_end
        # First what others wait for, then those who wait.
        blocks.stop()
        try:
            opened.end(is_early)
        finally:
            source.close()
            blocks.join()
            with suppress(
                Exception
            ):  # Ray may be gone; and what is counted matters less than what went wrong.
                opened.report(blocks.held_bytes)
                meter.finish(source.shaping_s())
            if is_early:
                del opened
                gc.collect()  # An executor that was shut down is a cycle of Ray's, with blocks in it.


_END = object()


class _Closing:
    """Where batches come from, until it is closed."""

    def __init__(
        self, batches: Iterator[Any], loader: Loader | None = None, mixed: ShuffledBlocks | None = None
    ) -> None:
        self.batches = batches
        self._loader = loader
        self._mixed = mixed
        self._num_given = 0

    def num_rows(self) -> int:
        """Rows that have been given."""
        return self._num_given if self._loader is None else int(self._loader.stats().to_dict()["rows"])

    def count(self, rows: int) -> None:
        """Say that so many rows have been given, where there is no loader that counts them."""
        self._num_given += rows

    def shaping_s(self) -> float:
        """Seconds that copying into batches took, over all workers."""
        if self._loader is None:
            return 0.0
        stages = self._loader.stats().to_dict()["stages"]
        return float(sum(stage["busy_s"] for stage in stages.values()))

    def close(self) -> None:
        """End everything that runs for it."""
        if self._loader is not None:
            self._loader.close()
        if self._mixed is not None:
            self._mixed.close()  # The loader keeps it, and the user the loader.
        close = getattr(self.batches, "close", None)
        self.batches = iter(())
        if close is not None:
            close()


def _is_by_ray(first: Any, recipe: Recipe) -> bool:
    if recipe.batch_size is None:
        return True
    reason = None if recipe.why_not_arrow is None else recipe.why_not_arrow(first)
    if reason is not None and reason not in recipe.warned:
        recipe.warned.add(reason)
        warnings.warn(
            f"penstock.ray: {reason}: these batches are made by Ray's own code, outside the memory budget",
            RuntimeWarning,
            stacklevel=3,
        )
    return reason is not None


def _open(blocks: BlockStream, recipe: Recipe, meter: Meter) -> _Closing:
    options = recipe.options(blocks.first().table.schema, meter, lambda: blocks.has_nulls)
    options = {**options, "batch_size": recipe.batch_size, "rank": 0, "world_size": 1}
    blocks.counts_unused = options.get("filter") is None
    loader, mixed = _make_loader(blocks, options, recipe)
    try:
        loader.set_epoch(recipe.epoch)
        if recipe.opened is not None:
            recipe.opened(loader)
        return _Closing(iter(loader), loader, mixed)
    except BaseException:
        loader.close()
        raise


def _make_loader(
    blocks: BlockStream, options: dict[str, Any], recipe: Recipe
) -> tuple[Loader, ShuffledBlocks | None]:
    if recipe.shuffle_rows == 0:
        return Loader(blocks, **options), None
    if not recipe.shuffles_blocks:
        window = {"seed": recipe.seed, "_shuffle_window_rows": min(recipe.shuffle_rows, MOST_WINDOW_ROWS)}
        first = blocks.first()
        try:
            return Loader(blocks, shuffle=True, **{**options, **window}), None
        except ValueError as error:
            if not recipe.may_exceed or "shuffle windows of" not in str(error):
                raise
            blocks.put_back(first)  # The loader has looked at it.
            warnings.warn(
                f"penstock.ray.enabled: {error} Until then rows are mixed outside the budget, and slower.",
                RuntimeWarning,
                stacklevel=2,
            )
    mixed = ShuffledBlocks(blocks, recipe.shuffle_rows, (recipe.seed, recipe.epoch))
    loader = Loader(mixed, **options)
    mixed.charge = lambda nbytes: loader._core.charge("shuffle", nbytes)
    return loader, mixed


def _open_by_ray(blocks: BlockStream, recipe: Recipe, meter: Meter) -> _Closing:
    """Make batches of the blocks as Ray has them, by Ray's own code."""
    assert recipe.make is not None
    make = recipe.make(meter)
    finalize = None if recipe.finalize is None else recipe.finalize(meter)

    def batches(each: Iterator[Any]) -> Iterator[Any]:
        for rows in _cut(each, recipe):
            yield len(rows), make(rows)

    ahead = 1 if recipe.prefetch_batches == "auto" else recipe.prefetch_batches
    if ahead == 0:
        made: Any = batches(blocks.as_they_are())
    else:
        made = iter_threaded(blocks.as_they_are(), batches, num_workers=1, output_buffer_size=ahead)

    def finalized() -> Iterator[Any]:
        with closing(made):
            for rows, batch in made:
                opened.count(rows)
                yield batch if finalize is None else finalize(batch)

    opened = _Closing(finalized())
    return opened


def _cut(blocks: Iterator[Any], recipe: Recipe) -> Iterator[Any]:
    """Yield blocks of `batch_size` rows, put together as Ray does it."""
    from ray.data._internal.batcher import Batcher, ShufflingBatcher

    size = recipe.batch_size
    if recipe.shuffle_rows > 0:
        batcher: Any = ShufflingBatcher(size, recipe.shuffle_rows, (recipe.seed + recipe.epoch) % 2**32)
    else:
        batcher = Batcher(size)
    for block in blocks:
        batcher.add(block)
        del block
        while batcher.has_batch():
            yield batcher.next_batch()
    batcher.done_adding()
    while batcher.has_batch() or (batcher.has_any() and not recipe.drop_last):
        yield batcher.next_batch()
