"""What Ray's object store holds, and what of it some processes keep there, sampled."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import node_manager_pb2, node_manager_pb2_grpc

SAMPLE_S = 0.05  # At 1 s the peaks are missed.


@dataclass
class Kept:
    """Bytes of the store that processes keep there, each object once.

    Attributes
    ----------
    mapped : int
        Some value of theirs lies in it, so that it can be neither spilled nor evicted.
    held : int
        Mapped, or they have a reference to it.
    uncounted : int
        Mapped, and no process of the node has a reference to it: deleted for Ray, and yet there.
    """

    mapped: int = 0
    held: int = 0
    uncounted: int = 0

    def peak(self, other: Kept) -> Kept:
        """The larger of each."""
        return Kept(*(max(pair) for pair in zip(vars(self).values(), vars(other).values(), strict=True)))


def kept_by(pids: set[int], workers: Iterable[Any]) -> Kept:
    """What the processes `pids` keep, out of what all workers of a node say of their objects."""
    mapped: set[bytes] = set()
    held: set[bytes] = set()
    counted: set[bytes] = set()
    sizes: dict[bytes, int] = {}
    for worker in workers:
        for each in worker.object_refs:
            # Who borrows a reference may not know the size; its owner does.
            sizes[each.object_id] = max(sizes.get(each.object_id, 0), each.object_size)
            is_referenced = each.local_ref_count > 0 or each.submitted_task_ref_count > 0
            if is_referenced:
                counted.add(each.object_id)
            if worker.pid in pids:
                if each.pinned_in_memory:
                    mapped.add(each.object_id)
                if each.pinned_in_memory or is_referenced:
                    held.add(each.object_id)
    return Kept(*(sum(sizes[each] for each in some) for some in (mapped, held, mapped - counted)))


class StoreWatch:
    """Asks the node's raylet until stopped; from ray.init() to before ray.shutdown().

    Parameters
    ----------
    pids : iterable of int
        The processes of which `kept` tells; each is a worker or the driver of this node.
    """

    def __init__(self, pids: Iterable[int] = ()) -> None:
        self.peak_bytes = 0
        self.spilled_bytes = 0
        self.kept = Kept()  # The most of each.
        self._pids = set(pids)
        (node,) = ray.nodes()
        self._channel = init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}")
        self._raylet = node_manager_pb2_grpc.NodeManagerServiceStub(self._channel)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
        self._channel.close()

    def now_mib(self) -> float:
        """What the store holds now."""
        return self._ask().store_stats.object_store_bytes_used / 2**20

    def _ask(self) -> Any:
        request = node_manager_pb2.GetNodeStatsRequest(include_memory_info=bool(self._pids))
        return self._raylet.GetNodeStats(request, timeout=30)

    def _run(self) -> None:
        # Ray may have ended, with an error of its own that must stay the last word.
        with contextlib.suppress(Exception):
            while not self._done.wait(SAMPLE_S):
                reply = self._ask()
                stats = reply.store_stats
                self.peak_bytes = max(self.peak_bytes, stats.object_store_bytes_used)
                self.spilled_bytes = stats.spilled_bytes_total
                self.kept = self.kept.peak(kept_by(self._pids, reply.core_workers_stats))
