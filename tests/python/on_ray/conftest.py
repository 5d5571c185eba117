"""One node of Ray for all tests of this folder; without Ray they are skipped, and say so."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import loader_threads, own_threads

from on_ray.ray_support import MIB, Numbers, wait_until

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Tests tell nobody, and no thread asks for figures to tell.


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave Ray its own warnings, and run all of these tests in one process: one node of Ray is enough."""
    for item in items:
        if item.path.parent.name == "on_ray":
            item.add_marker(pytest.mark.xdist_group("ray"))
            item.add_marker(pytest.mark.filterwarnings("ignore:::ray"))
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))


@pytest.fixture(autouse=True)
def no_thread_is_left(watchdog: None) -> Iterator[None]:
    """Hold the promise for Penstock's own threads: Ray's come and go as they like."""
    yield
    assert own_threads() == set()
    wait_until(lambda: loader_threads() == [])
    wait_until(lambda: not any(each.name.startswith("penstock") for each in threading.enumerate()))


@pytest.fixture(scope="package")
def node() -> Iterator[Any]:
    """Ray on two cores with a small store, its workers warm: gives the module."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'penstock[ray]'")
    pytest.importorskip("ray.data")
    ray.init(
        address="local",  # Not another one that runs on this machine.
        num_cpus=2,
        object_store_memory=256 * MIB,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    ray.data.range(4, override_num_blocks=4).map_batches(lambda batch: batch).materialize()
    yield ray
    ray.shutdown()
    gc.collect()  # What it warns of when it is collected is to be its own here, and no error in later tests.


@pytest.fixture
def numbers(node: Any) -> Numbers:
    """Makes a data set of so many blocks by tasks: x = 0, 1, 2, ..., and y, float32, of `width` numbers."""

    def make(blocks: int, rows: int, width: int = 1) -> Any:
        def widen(batch: dict[str, Any]) -> dict[str, Any]:
            return {"x": batch["id"], "y": np.repeat(batch["id"][:, None], width, axis=1).astype(np.float32)}

        return node.data.range(blocks * rows, override_num_blocks=blocks).map_batches(widen, batch_size=None)

    return make


@pytest.fixture
def store_bytes(node: Any) -> Callable[[], int]:
    """Tells what Ray's store on this node holds."""

    def read() -> int:
        from ray._private.internal_api import memory_summary

        lines = memory_summary(node.get_runtime_context().gcs_address, stats_only=True).splitlines()
        used = next(line for line in lines if line.startswith("Plasma memory usage"))
        return round(float(used.split()[3]) * MIB)

    return read
