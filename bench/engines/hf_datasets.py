"""Hugging Face datasets: a streamed Parquet file, batches of the size wanted, in the consumer's process.

``datasets`` has the format for torch, which makes tensors value by value: lists arrive as one tensor a row,
integers as int64, floats as float32. Decimals and dates it cannot convert; they are cast while reading, by
``features=``. ``datasets-arrow`` asks for Arrow tables instead and makes tensors of them by hand: the fastest
way we found. Both read pieces of 65,536 rows: whole row groups, the default, of a million rows take twice the
time in torch format, and save a few per cent with Arrow tables for twice the memory.

A torch DataLoader around it, with two workers and the row groups dealt out by ``reshard()``, came to a
fortieth of the speed for lists in torch format: every tensor is sent on its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from . import Engine, NotAvailableError
from .arrow_columns import spread, to_tensors

try:
    import datasets
except ImportError as error:
    raise NotAvailableError(f"pip install datasets: {error}") from error

PIECE_ROWS = 1 << 16


def _stream(paths: list[str], columns: list[str], **options: Any) -> Any:
    options |= {"columns": columns, "batch_size": PIECE_ROWS}
    return datasets.load_dataset("parquet", data_files=paths, split="train", streaming=True, **options)


class Epochs:
    """Each `iter()` streams the files once in torch format, shuffled where a buffer is given."""

    def __init__(
        self, paths: list[str], columns: list[str], batch_size: int, buffer_rows: int | None = None
    ) -> None:
        stream = _stream(paths, columns, features=_numbers(paths[0], columns))
        if buffer_rows is not None:
            stream = stream.shuffle(seed=1, buffer_size=buffer_rows)
        self._stream = stream.with_format("torch")
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[Any]:
        iterator: Iterator[Any] = self._stream.iter(batch_size=self._batch_size)
        return iterator


class ArrowEpochs:
    """Each `iter()` streams the files once as Arrow tables, each made tensors here."""

    def __init__(self, paths: list[str], columns: list[str], batch_size: int) -> None:
        self._stream = _stream(paths, columns).with_format("arrow")
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[Any]:
        return map(spread, map(to_tensors, self._stream.iter(batch_size=self._batch_size)))


def _numbers(path: str, columns: list[str]) -> datasets.Features:
    """The columns' own types, but decimals as float64 and dates as days."""
    schema = pq.read_schema(path)
    features = datasets.Features.from_arrow_schema(pa.schema([schema.field(name) for name in columns]))
    for name in columns:
        kind = schema.field(name).type
        if pa.types.is_decimal(kind):
            features[name] = datasets.Value("float64")
        elif pa.types.is_date32(kind):
            features[name] = datasets.Value("int32")
    return features


def _torch(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Epochs(paths, columns, batch_size)


def _arrow(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return ArrowEpochs(paths, columns, batch_size)


ENGINES = [
    Engine(
        "datasets",
        "datasets",
        "streaming, torch format, one process: int64 and float32, a tensor for each list",
        _torch,
        exact_types=False,
    ),
    Engine("datasets-arrow", "datasets", "streaming, arrow format, tables to torch by hand", _arrow),
]
