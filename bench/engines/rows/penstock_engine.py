"""Penstock: the rows are made by a Python op in its workers; each consumer is a rank."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import Engine, NotAvailableError
from . import ROW_BYTES, make_rows

try:
    import penstock as ps
    import torch  # noqa: F401 - or the first batch would pay for it.
except ImportError as error:
    raise NotAvailableError(f"penstock cannot be imported (bench/run installs it): {error}") from error


class Source:
    """A loader for each consumer."""

    def __init__(self, paths: list[str], columns: list[str], batch_size: int, workers: int) -> None:
        self._paths = paths
        self._batch_size = batch_size
        self._workers = workers
        self._loaders: list[Any] = []

    def split(self, n: int) -> list[Iterable[Any]]:
        self._loaders = [
            ps.Loader(
                self._paths,
                batch_size=self._batch_size,
                columns=["id"],
                transforms={"row": ps.col("id") | ps.ops.python(make_rows, "uint8", (ROW_BYTES,))},
                num_workers=max(1, self._workers // n),
                rank=rank,
                world_size=n,
            )
            for rank in range(n)
        ]
        return list(self._loaders)

    def held_bytes(self) -> int:
        return sum(int(loader.memory()["total"]["peak_bytes"]) for loader in self._loaders)

    def close(self) -> None:
        for loader in self._loaders:
            loader.close()


ENGINES = [
    Engine("penstock", "penstock", "ps.ops.python makes the rows; a rank for each consumer; in order", Source)
]
