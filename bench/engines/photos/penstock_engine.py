"""Penstock itself: everything native, two workers, defaults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .. import Engine, NotAvailableError
from . import LABELS, MEAN, RATIO, SCALE, SIZE, STD

try:
    import penstock as ps
    import torch  # noqa: F401 - or the first batch would pay for it.
except ImportError as error:
    raise NotAvailableError(f"penstock cannot be imported (bench/run installs it): {error}") from error


class Epochs:
    """Each `iter()` is an epoch of the same loader."""

    def __init__(
        self,
        paths: list[str],
        columns: list[str],
        batch_size: int,
        workers: int,
        memory_budget: str = "1GiB",
        format: str = "torch",
    ) -> None:
        steps = [
            ps.image.decode(),
            ps.image.random_resized_crop(SIZE, scale=SCALE, ratio=RATIO),
            ps.image.random_horizontal_flip(),
            ps.image.to_float(),
            ps.image.normalize(MEAN, STD),
        ]
        self._loader = ps.Loader(
            paths,
            batch_size=batch_size,
            columns=columns,
            drop_last=True,
            transforms={"image": steps, "label": ps.ops.lookup(list(LABELS)) | ps.ops.cast("int64")},
            num_workers=workers,
            memory_budget=memory_budget,
            format=format,
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)

    def held_bytes(self) -> int:
        return int(self._loader.memory()["total"]["peak_bytes"])

    def close(self) -> None:
        self._loader.close()


def _open(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Epochs(paths, columns, batch_size, workers)


ENGINES = [Engine("penstock", "penstock", "ps.image in the workers, defaults: in order, budget 1 GiB", _open)]
