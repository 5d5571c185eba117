"""pyarrow.dataset.to_batches: the fastest way that pyarrow documents to stream a table.

Four engines. ``arrow`` asks for batches of the size wanted and stops there: no tensors, and sizes that are
inexact, since a batch never spans two row groups. ``arrow-hand`` turns these into tensors. ``arrow-large``
asks for its fastest size instead
(131,072 rows), so it shows what scanning alone costs. ``arrow-torch`` is the strongest loader we could make
of it: large scans, columns to tensors without a copy, cut to exact batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from . import Engine
from .arrow_columns import rebatch, spread, to_tensors

LARGE_BATCH_ROWS = 131_072
# Reading ahead wins where row groups are small, and loses where they are large (measured on both files).
PRE_BUFFER_UP_TO_ROWS = 500_000


class Scan:
    """Each `iter()` is one scan of all files, in order."""

    def __init__(self, paths: list[str], columns: list[str], batch_rows: int, workers: int) -> None:
        pa.set_cpu_count(workers)
        pre_buffer = pq.read_metadata(paths[0]).row_group(0).num_rows <= PRE_BUFFER_UP_TO_ROWS
        options = pads.ParquetFragmentScanOptions(pre_buffer=pre_buffer)
        self._dataset = pads.dataset(
            paths, format=pads.ParquetFileFormat(default_fragment_scan_options=options)
        )
        self._columns = columns
        self._batch_rows = batch_rows

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        batches = self._dataset.to_batches(columns=self._columns, batch_size=self._batch_rows)
        return (batch for batch in batches if batch.num_rows)


class Converted:
    """The scan at the batch size, each batch to tensors: what most people write by hand."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan

    def __iter__(self) -> Iterator[Any]:
        return map(spread, map(to_tensors, self._scan))


class ExactTensors:
    """The scan as tensors in exact batches."""

    def __init__(self, scan: Scan, batch_size: int) -> None:
        self._scan = scan
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[Any]:
        return map(spread, rebatch(map(to_tensors, self._scan), self._batch_size))


Open = Callable[[list[str], list[str], int, int], Iterable[Any]]


def _plain(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Scan(paths, columns, batch_size, workers)


def _by_hand(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Converted(Scan(paths, columns, batch_size, workers))


def _large(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Scan(paths, columns, LARGE_BATCH_ROWS, workers)


def _tensors(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    scan_rows = max(batch_size, LARGE_BATCH_ROWS)
    return ExactTensors(Scan(paths, columns, scan_rows, workers), batch_size)


ENGINES = [
    Engine(
        "arrow",
        "pyarrow",
        "to_batches at the batch size: no tensors, inexact sizes, decimals stay",
        _plain,
        exact=False,
    ),
    Engine(
        "arrow-hand",
        "pyarrow",
        "to_batches at the batch size, each to torch by hand: inexact sizes",
        _by_hand,
        exact=False,
    ),
    Engine(
        "arrow-large", "pyarrow", "to_batches of 131,072 rows: no tensors, no batches", _large, exact=False
    ),
    Engine("arrow-torch", "pyarrow", "to_batches of 131,072 rows, to torch, cut to exact batches", _tensors),
]
