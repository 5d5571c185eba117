"""What the engines that decode with pyarrow share: Arrow columns to tensors, cut to exact batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

Tensors = dict[str, torch.Tensor]

# pyarrow's memory is read-only and torch has no such tensors; the benchmarks only read.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


def to_numpy(array: pa.Array) -> np.ndarray:
    """A column without nulls as numpy, without a copy except for decimals.

    A decimal becomes float64 from its low word, exactly as a cast does for 18 digits or fewer, and at twice
    the speed of a cast.
    """
    kind = array.type
    if pa.types.is_decimal128(kind) and kind.precision <= 18:
        words = np.frombuffer(array.buffers()[1], np.int64)
        low = words[2 * array.offset : 2 * (array.offset + len(array)) : 2]
        return low / 10.0**kind.scale
    if pa.types.is_date32(kind):
        array = array.view(pa.int32())
    return array.to_numpy(zero_copy_only=True)


def to_tensors(batch: pa.RecordBatch | pa.Table) -> Tensors:
    """The columns of one chunk as tensors."""
    tensors = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        arrays = [to_numpy(piece) for piece in pieces]
        tensors[name] = torch.from_numpy(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
    return tensors


def rebatch(chunks: Iterable[Tensors], batch_size: int) -> Iterator[Tensors]:
    """Cuts chunks into batches of exactly `batch_size` rows; only those over a seam are copied."""
    carried: list[Tensors] = []
    carried_rows = 0
    for chunk in chunks:
        names = list(chunk)
        rows = len(chunk[names[0]])
        start = 0
        if carried_rows:
            start = min(batch_size - carried_rows, rows)
            carried.append({name: column[:start] for name, column in chunk.items()})
            carried_rows += start
            if carried_rows < batch_size:
                continue
            yield _joined(carried)
            carried, carried_rows = [], 0
        end = rows - (rows - start) % batch_size
        if end > start:
            for parts in zip(
                *(column[start:end].split(batch_size) for column in chunk.values()), strict=True
            ):
                yield dict(zip(names, parts, strict=True))
        if end < rows:
            carried, carried_rows = [{name: column[end:] for name, column in chunk.items()}], rows - end
    if carried_rows:
        yield _joined(carried)


def _joined(chunks: list[Tensors]) -> Tensors:
    if len(chunks) == 1:
        return chunks[0]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def row_groups(paths: list[str]) -> list[tuple[str, int]]:
    """Every (file, row group) in order."""
    return [(path, index) for path in paths for index in range(pq.read_metadata(path).num_row_groups)]


class RowGroupReader:
    """Decodes whole row groups into tensors. Keeps each file's footer; each read opens the file anew."""

    def __init__(self, columns: list[str]) -> None:
        self._columns = columns
        self._footers: dict[str, pq.FileMetaData] = {}

    def __call__(self, where: tuple[str, int]) -> Tensors:
        path, index = where
        footer = self._footers.get(path)
        if footer is None:
            footer = self._footers[path] = pq.read_metadata(path)
        with pq.ParquetFile(path, metadata=footer, pre_buffer=False) as file:
            return to_tensors(file.read_row_group(index, columns=self._columns, use_threads=False))
