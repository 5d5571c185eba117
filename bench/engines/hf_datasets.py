"""Hugging Face datasets: a streamed Parquet file in torch format, batches of the size wanted.

It streams in the consumer's process; worker processes would be torch DataLoader's. Lists arrive as one
tensor a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from . import Engine, NotAvailableError

try:
    import datasets
except ImportError as error:
    raise NotAvailableError(f"pip install datasets: {error}") from error


class Epochs:
    """Each `iter()` streams the files once, shuffled where a buffer of so many rows is given."""

    def __init__(
        self, paths: list[str], columns: list[str], batch_size: int, buffer_rows: int | None = None
    ) -> None:
        stream = datasets.load_dataset(
            "parquet", data_files=paths, split="train", streaming=True, columns=columns
        )
        if buffer_rows is not None:
            stream = stream.shuffle(seed=1, buffer_size=buffer_rows)
        self._stream = stream.with_format("torch")
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[Any]:
        iterator: Iterator[Any] = self._stream.iter(batch_size=self._batch_size)
        return iterator


def _open(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Epochs(paths, columns, batch_size)


ENGINES = [
    Engine("datasets", "datasets", "streaming, torch format, in one process; a tensor for each list", _open)
]
