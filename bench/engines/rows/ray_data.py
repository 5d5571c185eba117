"""Ray Data as its benchmark has it: an input becomes 8 outputs, streaming_split for the consumers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import Engine
from . import PREFETCH_BATCHES, make_rows

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray's workers import this module.
os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
import ray  # The variables must be set first.

from ..ray_data import start as start_ray
from ..ray_store import StoreWatch

STORE_BYTES = 4 << 30


def _outputs(batch: Any) -> Iterator[Any]:
    """One output after the other, a batch each."""
    for start in range(0, len(batch["id"]), 16):
        yield {"row": make_rows(batch["id"][start : start + 16])}


class Source:
    """A pipeline whose output is split."""

    def __init__(self, paths: list[str], columns: list[str], batch_size: int, workers: int) -> None:
        self._store = StoreWatch()
        self._batch_size = batch_size
        self._dataset = ray.data.read_parquet(paths, columns=["id"]).map_batches(_outputs, batch_size=8 * 16)

    def split(self, n: int) -> list[Iterable[Any]]:
        parts = self._dataset.streaming_split(n, equal=True) if n > 1 else [self._dataset.iterator()]
        return [
            part.iter_torch_batches(batch_size=self._batch_size, prefetch_batches=PREFETCH_BATCHES)
            for part in parts
        ]

    def held_bytes(self) -> int:
        return self._store.peak_bytes

    def spilled_bytes(self) -> int:
        return self._store.spilled_bytes

    def close(self) -> None:
        self._store.stop()
        ray.shutdown()


ENGINES = [
    Engine(
        name="ray",
        package="ray",
        note="map_batches makes the rows, streaming_split(equal=True), prefetch 8; old reader; not in order",
        open=Source,
        processes=True,
        prepare=lambda workers: start_ray(workers, STORE_BYTES),
    )
]
