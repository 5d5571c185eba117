"""torch DataLoader: a process for each worker makes whole batches; the consumers' loaders share the row
groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .. import Engine
from . import PREFETCH_BATCHES, make_rows


class Rows(IterableDataset):
    """Every n-th row group, where n is the number of consumers times their workers."""

    def __init__(self, paths: list[str], batch_size: int, part: int, parts: int) -> None:
        self._paths = paths
        self._batch_size = batch_size
        self._part = part
        self._parts = parts

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        assert worker is not None, "meant for worker processes only"
        part, parts = self._part * worker.num_workers + worker.id, self._parts * worker.num_workers
        index = 0
        for path in self._paths:
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                if index % parts == part:
                    ids = file.read_row_group(group)["id"].to_numpy()
                    for start in range(0, len(ids), self._batch_size):
                        yield {"row": torch.from_numpy(make_rows(ids[start : start + self._batch_size]))}
                index += 1


class Source:
    """A DataLoader for each consumer."""

    def __init__(self, paths: list[str], columns: list[str], batch_size: int, workers: int) -> None:
        self._paths = paths
        self._batch_size = batch_size
        self._workers = workers

    def split(self, n: int) -> list[Iterable[Any]]:
        workers = max(1, self._workers // n)
        return [
            DataLoader(
                Rows(self._paths, self._batch_size, part, n),
                batch_size=None,
                num_workers=workers,
                prefetch_factor=PREFETCH_BATCHES // workers,
            )
            for part in range(n)
        ]


ENGINES = [
    Engine(
        name="torch",
        package="torch",
        note="DataLoader: processes make whole batches, prefetch 8; not in order",
        open=Source,
        processes=True,
    )
]
