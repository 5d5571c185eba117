"""SPDL: row groups decoded by pyarrow in SPDL's threads, cut to exact batches by the consumer.

At its best: one item is a whole row group (an item for every batch would cost a trip through the event
loop), the pipeline lives over all epochs (`continuous`: building one costs 0.1 s, as much as half an
epoch), and its output is the thread queue that SPDL 0.8 added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from spdl.pipeline import PipelineBuilder

from . import Engine
from .arrow_columns import RowGroupReader, Tensors, rebatch, row_groups, spread

FINISHED_ROW_GROUPS = 2
TIMEOUT_S = 300


class Epochs:
    """Each `iter()` is one epoch of one pipeline that keeps running."""

    def __init__(self, paths: list[str], columns: list[str], batch_size: int, workers: int) -> None:
        pa.set_cpu_count(workers)
        self._batch_size = batch_size
        builder: PipelineBuilder[Any, Any] = PipelineBuilder()
        builder.add_source(row_groups(paths), continuous=True)
        builder.pipe(RowGroupReader(columns), concurrency=workers, output_order="input")
        builder.add_sink(FINISHED_ROW_GROUPS)
        self._pipeline = builder.build(num_threads=workers, use_thread_output_queue=True)
        self._pipeline.start()

    def __iter__(self) -> Iterator[Tensors]:
        return map(spread, rebatch(self._pipeline.get_iterator(timeout=TIMEOUT_S), self._batch_size))

    def close(self) -> None:
        self._pipeline.stop()


def _open(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Epochs(paths, columns, batch_size, workers)


ENGINES = [Engine("spdl", "spdl", "threads, a row group an item, in order, pipeline kept over epochs", _open)]
