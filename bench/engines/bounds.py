"""What nobody can beat: a loader that loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow.parquet as pq
import torch

from . import Engine


class FreshEpochs:
    """New tensors for each batch, over memory that is always there: what torch takes for them."""

    def __init__(self, paths: list[str], columns: list[str], batch_size: int) -> None:
        self._rows = sum(pq.read_metadata(path).num_rows for path in paths)
        self._batch_size = batch_size
        self._columns = {name: torch.zeros(batch_size) for name in columns}

    def __iter__(self) -> Iterator[Any]:
        for begin in range(0, self._rows, self._batch_size):
            rows = min(self._batch_size, self._rows - begin)
            yield {name: column[:rows] for name, column in self._columns.items()}


def _fresh(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return FreshEpochs(paths, columns, batch_size)


ENGINES = [Engine("fresh", "torch", "a bound: new tensors over the same memory", _fresh, does_all=False)]
