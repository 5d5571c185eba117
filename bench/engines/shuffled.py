"""Engines that shuffle, at equal mixing: a window of 64 MiB, and peers with as many rows in their buffers.

``torch-map`` and ``torch-map-rows`` have the whole table in memory as tensors, read before the clock starts,
and torch's own sampler: a full shuffle, which is better than a window and needs memory for all rows.
``torch-map`` takes a batch as one gather a column (``__getitems__``), ``torch-map-rows`` row by row, as most
data sets are written. Worker processes make both slower: there is nothing to do in them but to gather.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import penstock
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from . import Engine, NotAvailableError
from .arrow_columns import to_tensors

WINDOW_BYTES = 64 << 20
SEED = 1


class InMemory(Dataset):
    """A table of tensors; gives one row, or many at once."""

    def __init__(self, paths: list[str], columns: list[str]) -> None:
        self._columns = to_tensors(pq.ParquetDataset(paths).read(columns=columns).combine_chunks())

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: column[row] for name, column in self._columns.items()}


class InMemoryByBatch(InMemory):
    def __getitems__(self, rows: list[int]) -> dict[str, Any]:
        wanted = torch.tensor(rows)
        return {name: column[wanted] for name, column in self._columns.items()}


def _as_it_is(batch: Any) -> Any:
    return batch


def _penstock(paths: list[str], columns: list[str], batch_size: int, workers: int) -> penstock.Loader:
    return penstock.Loader(
        paths,
        batch_size=batch_size,
        columns=columns,
        num_workers=workers,
        shuffle=True,
        seed=SEED,
        shuffle_window=WINDOW_BYTES,
    )


def window_rows(paths: list[str], columns: list[str]) -> int:
    with _penstock(paths, columns, 8192, 1) as loader:
        return int(loader.explain().to_dict()["shuffle_window_rows"])


def _torch_map(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    dataset = InMemoryByBatch(paths, columns)
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, collate_fn=_as_it_is)


def _torch_rows(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return DataLoader(InMemory(paths, columns), batch_size=batch_size, shuffle=True)


def _ray(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    from . import ray_data

    rows = window_rows(paths, columns)
    return ray_data.Epochs(
        paths, columns, batch_size, workers, local_shuffle_buffer_size=rows, local_shuffle_seed=SEED
    )


def _prepare_ray(workers: int) -> None:
    try:
        from . import ray_data
    except ImportError as error:
        raise NotAvailableError(str(error)) from error
    ray_data.prepare(workers)


class _Datasets:
    """Imports the package only where it is wanted."""

    def __init__(self, paths: list[str], columns: list[str], batch_size: int, workers: int) -> None:
        from . import hf_datasets

        self._epochs = hf_datasets.Epochs(paths, columns, batch_size, window_rows(paths, columns))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._epochs)


_BUFFER = "a buffer of as many rows as Penstock's window has"
ENGINES = [
    Engine("penstock-shuffled", "penstock", "shuffle=True, shuffle_window=64 MiB, else defaults", _penstock),
    Engine(
        "torch-map", "torch", "table in memory, full shuffle, a gather a column (__getitems__)", _torch_map
    ),
    Engine("torch-map-rows", "torch", "table in memory, full shuffle, row by row and collated", _torch_rows),
    Engine(
        name="ray-shuffled",
        package="ray",
        note=f"local_shuffle_buffer_size: {_BUFFER}; older reader",
        open=_ray,
        exact=False,
        processes=True,
        prepare=_prepare_ray,
    ),
    Engine(
        "datasets-shuffled", "datasets", f"streaming, .shuffle(): {_BUFFER}", _Datasets, exact_types=False
    ),
]
