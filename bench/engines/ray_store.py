"""What Ray's object store holds, sampled."""

from __future__ import annotations

import threading

import ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

SAMPLE_S = 0.05  # At 1 s the peaks are missed.


class StoreWatch:
    """Asks the node's object store until stopped; from ray.init() to before ray.shutdown()."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.spilled_bytes = 0
        self._state = get_state_from_address(ray.get_runtime_context().gcs_address)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(SAMPLE_S):
            try:
                stats = get_memory_info_reply(self._state).store_stats
            except Exception:  # Ray has ended, with an error of its own that must stay the last word.
                return
            self.peak_bytes = max(self.peak_bytes, stats.object_store_bytes_used)
            self.spilled_bytes = stats.spilled_bytes_total
