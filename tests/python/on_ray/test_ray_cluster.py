"""Three nodes on one machine: blocks come from other nodes, and a node can go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import penstock as ps
import pytest

MIB = 1 << 20
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'penstock[ray]'")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 96 * MIB, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    del node["include_dashboard"]
    for _ in range(2):
        made.add_node(**node)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.range(6, override_num_blocks=6).map_batches(lambda batch: batch).materialize()
    yield ray
    ray.shutdown()
    made.shutdown()


def made_on_all_nodes(ray: Any, blocks: int, rows: int) -> Any:
    import numpy as np

    def widen(batch: dict[str, Any]) -> dict[str, Any]:
        return {"x": batch["id"], "y": np.repeat(batch["id"][:, None], 4096, axis=1).astype("float32")}

    return ray.data.range(blocks * rows, override_num_blocks=blocks).map_batches(widen, batch_size=None)


def test_blocks_come_from_all_nodes(cluster: Any) -> None:
    data = made_on_all_nodes(cluster, 12, 64).materialize()
    refs = [entry.ref for bundle in data.iter_internal_ref_bundles() for entry in bundle.blocks]
    places = cluster.experimental.get_object_locations(refs).values()
    assert len({node for place in places for node in place["node_ids"]}) > 1
    loader = ps.ray.Loader(data, batch_size=32)
    rows = 0
    for batch in loader:
        assert (batch["y"] == batch["x"][:, None]).all()
        rows += len(batch["x"])
    assert rows == 12 * 64
    assert loader.memory()["store"]["current_bytes"] == 0


def test_a_shard_in_a_process_on_each_node(cluster: Any) -> None:
    @cluster.remote(num_cpus=0, scheduling_strategy="SPREAD")
    def consume(loader: ps.ray.Loader) -> tuple[list[int], list[int], int]:
        rows: list[int] = []
        sizes = []
        for batch in loader:
            rows += batch["x"].tolist()
            sizes.append(len(batch["x"]))
        others = [each.name for each in threading.enumerate() if each.name == "penstock-ray"]
        return rows, sizes, len(others)

    shards = made_on_all_nodes(cluster, 12, 64).streaming_split(3, equal=True)
    got = cluster.get([consume.remote(ps.ray.Loader(shard, batch_size=32)) for shard in shards])
    assert sorted(row for rows, _, _ in got for row in rows) == list(range(12 * 64))
    assert [(sizes, threads) for _, sizes, threads in got] == [([32] * 8, 0)] * 3
