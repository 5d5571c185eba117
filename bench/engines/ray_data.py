"""Ray Data (optional): read_parquet and iter_torch_batches on a local cluster of `workers` CPUs.

Install it with ``pip install "ray[data]==2.60.0" pydantic``. Rows come in no certain order, which is its
fastest mode, through its older reader of Parquet.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from . import Engine
from .arrow_columns import to_numpy

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
import ray  # The variable must be set first: it silences a warning.

PREFETCH_BATCHES = 4
STORE_BYTES = 2 << 30


class Epochs:
    """Each `iter()` is one run of the Ray Data pipeline; `options` go to iter_torch_batches."""

    def __init__(
        self, paths: list[str], columns: list[str], batch_size: int, workers: int, **options: Any
    ) -> None:
        self._options = {"batch_size": batch_size, "prefetch_batches": PREFETCH_BATCHES} | options
        self._dataset = ray.data.read_parquet(paths, columns=columns)
        types = pq.read_schema(paths[0])
        if any(not pa.types.is_integer(types.field(name).type) for name in columns):
            self._dataset = self._dataset.map_batches(_numbers, batch_format="pyarrow")

    def __iter__(self) -> Iterator[Any]:
        return iter(self._dataset.iter_torch_batches(**self._options))

    def close(self) -> None:
        ray.shutdown()


def start(workers: int, store_bytes: int, imports: tuple[str, ...] = ("ray.data",)) -> None:
    """A local cluster, whose worker processes have imported what they will need.

    It keeps quiet, also towards Ray's makers: telling them takes a thread.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",  # Not another one that runs on this machine.
        num_cpus=workers,
        object_store_memory=store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # The newer reader of Parquet starts actors of its own for each epoch, which takes seconds.
    context.use_datasource_v2 = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    def import_all() -> None:
        for name in imports:
            importlib.import_module(name)

    ray.get([ray.remote(num_cpus=1)(import_all).remote() for _ in range(workers)])


def prepare(workers: int) -> None:
    """`Engine.prepare` of this engine."""
    start(workers, STORE_BYTES)


def _numbers(table: pa.Table) -> pa.Table:
    """Decimals to float64, dates to days, in Ray's workers."""
    columns = [
        pa.chunked_array([pa.array(to_numpy(piece)) for piece in column.chunks]) for column in table.columns
    ]
    return pa.table(columns, names=table.schema.names)


def _open(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Epochs(paths, columns, batch_size, workers)


ENGINES = [
    Engine(
        name="ray",
        package="ray",
        note="iter_torch_batches, prefetch 4; older reader; not in order: the short batch can be anywhere",
        open=_open,
        exact=False,
        processes=True,
        prepare=prepare,
    )
]
