"""torch DataLoader: an IterableDataset over row groups, in `workers` processes that stay.

``torch`` makes exact batches in the workers, as is usual. They travel as pickled numpy arrays: at this size
that is three times as fast as shared memory, where each column of each batch costs a file descriptor.
``torch-chunks`` is the fastest we found, though few would write it: workers send whole row groups, the
consumer cuts them. Neither keeps the order of rows (workers take turns); with ``torch`` each worker ends on
a short batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from . import Engine
from .arrow_columns import RowGroupReader, Tensors, rebatch, row_groups, spread


class RowGroups(IterableDataset):
    """Every n-th row group, where n is the number of workers."""

    def __init__(self, paths: list[str], columns: list[str], batch_size: int | None) -> None:
        self._row_groups = row_groups(paths)
        self._columns = columns
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[Any]:
        torch.set_num_threads(1)
        pa.set_cpu_count(1)
        worker = get_worker_info()
        assert worker is not None, "meant for worker processes only"
        reader = RowGroupReader(self._columns)
        chunks = map(reader, self._row_groups[worker.id :: worker.num_workers])
        if self._batch_size is None:
            yield from chunks
            return
        for batch in rebatch(chunks, self._batch_size):
            yield {name: _to_send(column) for name, column in spread(batch).items()}


class Epochs:
    """Each `iter()` is one epoch of the same worker processes."""

    def __init__(self, dataset: RowGroups, workers: int, prefetch: int, cut_to: int | None) -> None:
        self._cut_to = cut_to
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=prefetch,
            persistent_workers=True,
            collate_fn=_as_it_is,
        )

    def __iter__(self) -> Iterator[Tensors]:
        if self._cut_to is not None:
            return map(spread, rebatch(self._loader, self._cut_to))
        return ({name: _received(column) for name, column in batch.items()} for batch in self._loader)


def _to_send(column: Any) -> Any:
    if isinstance(column, torch.Tensor):
        return column.numpy()
    # A slice of views would take all the text of its row group along.
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def _received(column: Any) -> Any:
    return torch.from_numpy(column) if isinstance(column, np.ndarray) else column


def _as_it_is(item: Any) -> Any:
    return item


def _batches(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Epochs(RowGroups(paths, columns, batch_size), workers, prefetch=8, cut_to=None)


def _chunks(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Epochs(RowGroups(paths, columns, None), workers, prefetch=1, cut_to=batch_size)


ENGINES = [
    Engine(
        "torch",
        "torch",
        "processes make the batches, sent as numpy; rows not in order",
        _batches,
        exact=False,
        processes=True,
    ),
    Engine(
        "torch-chunks",
        "torch",
        "processes send row groups, the consumer cuts; rows not in order",
        _chunks,
        processes=True,
    ),
]
