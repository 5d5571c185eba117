"""Penstock itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import Engine, NotAvailableError

try:
    import penstock
    import torch  # noqa: F401 - or the first batch would pay for it.
except ImportError as error:
    raise NotAvailableError(f"penstock cannot be imported (bench/run installs it): {error}") from error
if not hasattr(penstock, "Loader"):
    raise NotAvailableError("this penstock has no Loader: build and install it (bench/run does)")


def _open(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return penstock.Loader(paths, batch_size=batch_size, columns=columns, format="torch", num_workers=workers)


ENGINES = [Engine("penstock", "penstock", "defaults: in order, budget 1 GiB, prefetch auto", _open)]
