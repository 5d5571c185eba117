"""Ray Data: read_parquet, map_batches with Pillow, iter_torch_batches; a local cluster of `workers` CPUs."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import Engine
from . import LABELS, PREFETCH_BATCHES, pillow_batch

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray's workers import this module.
os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
import ray  # The variable must be set first: it silences a warning.

from ..ray_data import start as start_ray
from ..ray_store import StoreWatch

STORE_BYTES = 4 << 30


def _make(batch: Any) -> Any:
    import numpy as np
    import torch

    torch.set_num_threads(1)
    if not hasattr(threading.current_thread(), "seeded"):  # Once for each worker process.
        random.seed(os.getpid())
        threading.current_thread().seeded = True  # type: ignore[attr-defined]
    labels = np.array([LABELS[name] for name in batch["label"]])
    return {"image": pillow_batch(batch["image"]).numpy(), "label": labels}


class Epochs:
    """Each `iter()` is one run of the Ray Data pipeline."""

    def __init__(self, paths: list[str], columns: list[str], batch_size: int, workers: int) -> None:
        self._store = StoreWatch()
        self._batch_size = batch_size
        self._dataset = ray.data.read_parquet(paths, columns=columns).map_batches(
            _make, batch_size=batch_size
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(
            self._dataset.iter_torch_batches(
                batch_size=self._batch_size, prefetch_batches=PREFETCH_BATCHES, drop_last=True
            )
        )

    def held_bytes(self) -> int:
        return self._store.peak_bytes

    def spilled_bytes(self) -> int:
        return self._store.spilled_bytes

    def close(self) -> None:
        self._store.stop()
        ray.shutdown()


def _open(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Epochs(paths, columns, batch_size, workers)


ENGINES = [
    Engine(
        name="ray",
        package="ray",
        note="map_batches with Pillow, iter_torch_batches, prefetch 4; older reader; rows not in order",
        open=_open,
        processes=True,
        prepare=lambda workers: start_ray(workers, STORE_BYTES, ("ray.data", "torch", "PIL.Image")),
    )
]
