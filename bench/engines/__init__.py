"""The engines that the tabular benchmarks compare, one file each.

An engine is a module here with a list ``ENGINES`` of `Engine`. Its `open` gets ready and returns an
iterable; each ``iter()`` of that is one epoch, in file order, of batches ``{column: torch.Tensor}`` of
exactly `batch_size` rows with one short batch at the end. Decimals arrive as float64, dates as int32 days,
text as pyarrow arrays, lists as two tensors, ``name`` (the values) and ``name_offsets``.
Benchmarks run an epoch to warm up, check every value's sum in it, and time the next one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

# Name of the engine -> module; a module is imported only in the child process that runs its engine.
MODULES = {
    "penstock": "penstock_engine",
    "arrow": "arrow_to_batches",
    "arrow-hand": "arrow_to_batches",
    "arrow-large": "arrow_to_batches",
    "arrow-torch": "arrow_to_batches",
    "spdl": "spdl_engine",
    "torch": "torch_dataloader",
    "torch-chunks": "torch_dataloader",
    "ray": "ray_data",
    "datasets": "hf_datasets",
    "datasets-arrow": "hf_datasets",
    "penstock-shuffled": "shuffled",
    "torch-map": "shuffled",
    "torch-map-rows": "shuffled",
    "ray-shuffled": "shuffled",
    "datasets-shuffled": "shuffled",
    "fresh": "bounds",
}
# Those that read in file order, or as it comes.
UNSHUFFLED = [name for name, module in MODULES.items() if module not in ("shuffled", "bounds")]

# Photos to float32 tensors (training_ingest.py); what they share is in photos/__init__.py.
PHOTO_MODULES = {
    "penstock": "photos.penstock_engine",
    "penstock+async_gen": "photos.async_gen",
    "dali": "photos.dali",
    "spdl": "photos.spdl_engine",
    "torch": "photos.torch_dataloader",
    "ray": "photos.ray_data",
    "mock": "photos.bounds",
    "fresh": "photos.bounds",
    "ceiling": "photos.bounds",
}

# Rows of 1 MiB (backpressure.py).
ROW_MODULES = {
    "penstock": "rows.penstock_engine",
    "ray": "rows.ray_data",
    "torch": "rows.torch_dataloader",
}


class NotAvailableError(RuntimeError):
    """The engine cannot run here; the message says what is missing."""


@dataclass(frozen=True)
class Engine:
    """How to run one engine, and what to print about it."""

    name: str
    package: str
    note: str
    """The settings used and, where it applies, what the engine does not do."""
    open: Callable[[list[str], list[str], int, int], Iterable[Any]]
    """`open(paths, columns, batch_size, workers)`."""
    exact: bool = True
    """Whether batches have exactly the size asked for."""
    processes: bool = False
    """Whether it works in further processes, whose memory must be added."""
    exact_types: bool = True
    """Whether numbers keep their width; else integers may come as int64 and floats as float32."""
    does_all: bool = True
    """Whether it does the whole work that is measured; a bound does not."""
    prepare: Callable[[int], None] = lambda workers: None
    """`prepare(workers)`: what stands before training begins, such as a cluster; it is not timed."""

    def version(self) -> str:
        return importlib.metadata.version(self.package)


def load(name: str, modules: dict[str, str] = MODULES) -> Engine:
    """The engine of that name, or `NotAvailableError`."""
    try:
        module = importlib.import_module(f"{__name__}.{modules[name]}")
    except ImportError as error:
        raise NotAvailableError(str(error)) from error
    return next(engine for engine in module.ENGINES if engine.name == name)
