"""What the engines that decode with pyarrow share: Arrow columns to tensors, cut to exact batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch


class Ragged:
    """A list column: the values of all its rows, and where each row begins, as numpy or torch has them."""

    def __init__(self, values: Any, offsets: Any) -> None:
        self.values = values
        self.offsets = offsets

    @classmethod
    def of(cls, array: pa.ListArray | pa.LargeListArray) -> Ragged:
        """Nothing is copied but the offsets, where they do not begin at 0 or are narrow."""
        offsets = torch.from_numpy(array.offsets.to_numpy()).to(torch.int64)
        first, last = int(offsets[0]), int(offsets[-1])
        values = torch.from_numpy(array.values.slice(first, last - first).to_numpy())
        return cls(values, offsets - first if first else offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice) -> Ragged:
        begin, end, _ = rows.indices(len(self))
        offsets = self.offsets[begin : end + 1]
        return Ragged(self.values[int(offsets[0]) : int(offsets[-1])], offsets - offsets[0])

    @staticmethod
    def join(parts: list[Ragged]) -> Ragged:
        starts = np.cumsum([0, *(len(part.values) for part in parts)])
        offsets = [part.offsets[1:] + int(start) for part, start in zip(parts, starts[:-1], strict=True)]
        values = torch.cat([part.values for part in parts])
        return Ragged(values, torch.cat([parts[0].offsets[:1], *offsets]))


#: Name -> torch.Tensor; text is a pyarrow array; lists are `Ragged`.
Tensors = dict[str, Any]

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


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def to_tensors(batch: pa.RecordBatch | pa.Table) -> Tensors:
    """The columns of one chunk as tensors."""
    tensors: Tensors = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        if is_text(column.type):
            tensors[name] = pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)
            continue
        if is_list(column.type):
            tensors[name] = _join([Ragged.of(piece) for piece in pieces])
            continue
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
                *(_cut(column[start:end], batch_size) for column in chunk.values()), strict=True
            ):
                yield dict(zip(names, parts, strict=True))
        if end < rows:
            carried, carried_rows = [{name: column[end:] for name, column in chunk.items()}], rows - end
    if carried_rows:
        yield _joined(carried)


def _joined(chunks: list[Tensors]) -> Tensors:
    if len(chunks) == 1:
        return chunks[0]
    return {name: _join([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _cut(column: Any, rows: int) -> Any:
    if isinstance(column, torch.Tensor):
        return column.split(rows)
    return [column[begin : begin + rows] for begin in range(0, len(column), rows)]


def _join(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Ragged):
        return Ragged.join(parts)
    return pa.concat_arrays(parts) if isinstance(parts[0], pa.Array) else torch.cat(parts)


def spread(batch: Tensors) -> Tensors:
    """Lists as two tensors: ``name`` has the values, ``name_offsets`` where rows begin."""
    out: Tensors = {}
    for name, column in batch.items():
        if isinstance(column, Ragged):
            out[name], out[name + "_offsets"] = column.values, column.offsets
        else:
            out[name] = column
    return out


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
