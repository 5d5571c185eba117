"""SPDL: batches of encoded photos through threads that decode with Pillow, which releases the GIL meanwhile.

One item is a whole batch: one photo an item costs a trip through the event loop and a copy each. SPDL's own
decoder takes FFmpeg libraries that its wheels do not bring, so Pillow is what its documentation uses as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from spdl.pipeline import PipelineBuilder

from .. import Engine
from . import PREFETCH_BATCHES, encoded_batches, pillow_batch

TIMEOUT_S = 300


class _Batches:
    """A source that can be iterated over again, for each epoch."""

    def __init__(self, paths: list[str], batch_size: int) -> None:
        self._paths = paths
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[Any]:
        return encoded_batches(self._paths, self._batch_size)


def _make(batch: Any) -> Any:
    images, labels = batch
    return {"image": pillow_batch(images), "label": torch.tensor(labels)}


class Epochs:
    """Each `iter()` is one epoch of one pipeline that keeps running."""

    def __init__(self, paths: list[str], columns: list[str], batch_size: int, workers: int) -> None:
        builder: PipelineBuilder[Any, Any] = PipelineBuilder()
        builder.add_source(_Batches(paths, batch_size), continuous=True)
        builder.pipe(_make, concurrency=workers, output_order="input")
        builder.add_sink(PREFETCH_BATCHES - workers)
        self._pipeline = builder.build(num_threads=workers, use_thread_output_queue=True)
        self._pipeline.start()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pipeline.get_iterator(timeout=TIMEOUT_S))

    def close(self) -> None:
        self._pipeline.stop()


def _open(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Epochs(paths, columns, batch_size, workers)


ENGINES = [Engine("spdl", "spdl", "threads with Pillow, a batch an item, in order", _open)]
