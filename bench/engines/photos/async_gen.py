"""Penstock's batches behind the consumer that Ray Data had up to 2.55: two make_async_gen, one in the other.

The inner one has four threads that make torch tensors of the arrays, the outer one fetches ahead. Both
engines of this A/B do the same work; what differs is how many batches the threads and queues between hold,
and who wakes whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from make_async_gen import make_async_gen

from .. import Engine
from . import PREFETCH_BATCHES
from .penstock_engine import Epochs

NUM_THREADS = min(4, PREFETCH_BATCHES)
# What the queues can hold beside the loader's own slots: 4 x threads + 2 x prefetch + 2 batches.
BUDGET = "4GiB"


def _to_torch(batches: Iterator[Any]) -> Iterator[Any]:
    return ({name: torch.from_numpy(column) for name, column in batch.items()} for batch in batches)


def _inner(batches: Iterator[Any]) -> Iterator[Any]:
    return make_async_gen(batches, _to_torch, num_workers=NUM_THREADS, buffer_size=1)


class AsyncGenEpochs(Epochs):
    def __iter__(self) -> Iterator[Any]:
        return make_async_gen(super().__iter__(), _inner, num_workers=1, buffer_size=PREFETCH_BATCHES)


def _open(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return AsyncGenEpochs(paths, columns, batch_size, workers, memory_budget=BUDGET, format="numpy")


ENGINES = [
    Engine(
        name="penstock+async_gen",
        package="penstock",
        note="the same batches through Ray Data 2.55's two make_async_gen; budget 4 GiB; not in order",
        open=_open,
    )
]
