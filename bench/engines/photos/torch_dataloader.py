"""torch DataLoader: processes that decode with Pillow and send whole batches through shared memory."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .. import Engine
from . import PREFETCH_BATCHES, encoded_batches, pillow_batch


class Photos(IterableDataset):
    """Every n-th row group, where n is the number of workers: no row group is read twice."""

    def __init__(self, paths: list[str], batch_size: int) -> None:
        self._paths = paths
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[Any]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        assert worker is not None, "meant for worker processes only"
        random.seed(worker.seed)
        for images, labels in encoded_batches(self._paths, self._batch_size, worker.id, worker.num_workers):
            yield {"image": pillow_batch(images), "label": torch.tensor(labels)}


def _open(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return DataLoader(
        Photos(paths, batch_size),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=max(1, PREFETCH_BATCHES // workers),
        persistent_workers=True,
    )


ENGINES = [
    Engine(
        name="torch",
        package="torch",
        note="DataLoader: processes with Pillow make the batches; rows not in order",
        open=_open,
        processes=True,
    )
]
