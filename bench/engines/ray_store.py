"""What Ray's object store holds, sampled."""

from __future__ import annotations

import threading
from typing import Any

import ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

SAMPLE_S = 0.05  # At 1 s the peaks are missed.


class StoreWatch:
    """Asks the node's object store until stopped; from ray.init() to before ray.shutdown()."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.unreferenced_bytes = 0  # Of the peak, what no reference keeps: mapped, or about to be deleted.
        self.spilled_bytes = 0
        self._state = get_state_from_address(ray.get_runtime_context().gcs_address)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def now_mib(self) -> float:
        """What the store holds now."""
        return self._stats().object_store_bytes_used / 2**20

    def _stats(self) -> Any:
        return get_memory_info_reply(self._state).store_stats

    def _run(self) -> None:
        while not self._done.wait(SAMPLE_S):
            try:
                stats = self._stats()
            except Exception:  # Ray has ended, with an error of its own that must stay the last word.
                return
            self.peak_bytes = max(self.peak_bytes, stats.object_store_bytes_used)
            unreferenced = stats.object_store_bytes_used - stats.object_store_bytes_primary_copy
            self.unreferenced_bytes = max(self.unreferenced_bytes, unreferenced)
            self.spilled_bytes = stats.spilled_bytes_total
