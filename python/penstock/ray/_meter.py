"""Ray's iteration statistics, filled as its own consumer fills them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

__all__ = ["TELL_EVERY_S", "Meter"]

TELL_EVERY_S = 5.0


class Meter:
    """Times of one iteration, for ``dataset.stats()`` and Ray's metrics.

    Parameters
    ----------
    stats : ray.data._internal.stats.DatasetStats or None
        To be filled.
    tags : dict
        Names the data set and the split in the metrics.
    began_s : float
        When the iteration began, by time.perf_counter().
    """

    def __init__(self, stats: Any, tags: dict[str, Any], began_s: float) -> None:
        self._stats = stats
        self._tags = tags
        self._began_s = began_s
        self._updated_s = began_s
        self._lock = threading.Lock()
        self._is_first = True
        self._located = [0, 0, 0]
        self._rows_told = 0
        self.num_rows: Callable[[], int] = lambda: 0  # Rows that have been given.

    def bundles(self) -> Any:
        """Time waiting for references."""
        return self._timer("iter_get_ref_bundles_s")

    @contextmanager
    def get(self, refs: list[Any]) -> Iterator[None]:
        """Time fetching blocks, and count where they lie."""
        begin = time.perf_counter()
        yield
        if self._stats is None:
            return
        from ray.data._internal.block_batching.util import _calculate_ref_hits

        found = _calculate_ref_hits(refs)
        with self._lock:
            self._stats.iter_get_s.add(time.perf_counter() - begin)
            self._located = [a + b for a, b in zip(self._located, found, strict=True)]

    def collate(self) -> Any:
        """Time the user's collate_fn."""
        return self._timer("iter_collate_batch_s")

    def form(self) -> Any:
        """Time bringing batches to their form."""
        return self._timer("iter_format_batch_s")

    def finalize(self) -> Any:
        """Time finalize_fn."""
        return self._timer("iter_finalize_batch_s")

    def _timer(self, name: str) -> Any:
        return nullcontext() if self._stats is None else getattr(self._stats, name).timer()

    def initialized(self) -> None:
        """Say that all is ready for the first batch."""
        if self._stats is not None:
            self._stats.iter_initialize_s.add(time.perf_counter() - self._began_s)

    # Not context managers: these are called for each batch.

    def waited(self, wait_s: float) -> None:
        """Take the seconds that the consumer waited for a batch."""
        if self._stats is None:
            return
        self._stats.iter_total_blocked_s.add(wait_s)
        if self._is_first:
            self._is_first = False
            self._stats.iter_time_to_first_batch_s.add(wait_s)

    def given(self) -> None:
        """Say that the consumer gets a batch."""
        if self._stats is not None:
            self._stats.iter_batches_total += 1

    def used(self, step_s: float) -> None:
        """Take the seconds of the consumer's step with it."""
        if self._stats is not None:
            self._stats.iter_user_s.add(step_s)

    def tell(self) -> None:
        """Bring Ray's metrics up to date, if that is due.

        It asks the cluster for an actor, which takes milliseconds: nothing for the consumer to wait for.
        """
        if self._stats is not None and time.perf_counter() - self._updated_s > TELL_EVERY_S:
            self._update()

    def finish(self, shaping_s: float) -> None:
        """Say that the iteration is over, however it ended, and what copying rows into batches took in it."""
        if self._stats is None:
            return
        if shaping_s > 0:
            self._stats.iter_next_batch_s.add(shaping_s)
        self._stats.iter_total_s.add(time.perf_counter() - self._began_s)
        local, remote, unknown = self._located
        self._stats.iter_blocks_local = local
        self._stats.iter_blocks_remote = remote
        self._stats.iter_unknown_location = unknown
        self._update()
        self.num_rows = int  # What it was asked of keeps the loader.

    def _update(self) -> None:
        from ray.data._internal.stats import _StatsManager

        self._updated_s = time.perf_counter()
        rows = self.num_rows()
        self._stats.iter_rows_total += rows - self._rows_told
        self._rows_told = rows
        _StatsManager.update_iteration_metrics(self._stats, self._tags["dataset"], self._tags["split_index"])
