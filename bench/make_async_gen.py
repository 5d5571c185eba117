"""The design that `iter_threaded` replaced, rebuilt from its description as the baseline of an A/B.

One thread moves the base iterator into a shared input queue of (buffer + 1) * N items, N workers take from
there, each fills an output queue of its own, and the consumer goes round these queues in turn. Leaving early
is not supported: the threads then stay behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import TypeVar, cast

T = TypeVar("T")
U = TypeVar("U")

_END = object()


def _fill(base: Iterator[T], inputs: list[Queue[object]], num_workers: int) -> None:
    for i, item in enumerate(base):
        inputs[i % len(inputs)].put(item)
        del item
    for i in range(num_workers):
        inputs[i % len(inputs)].put(_END)


def _work(fn: Callable[[Iterator[T]], Iterator[U]], inputs: Queue[object], outputs: Queue[object]) -> None:
    for item in fn(cast("Iterator[T]", iter(inputs.get, _END))):
        outputs.put(item)
        del item
    outputs.put(_END)


def make_async_gen(
    base: Iterator[T],
    fn: Callable[[Iterator[T]], Iterator[U]],
    num_workers: int = 1,
    buffer_size: int = 1,
    *,
    in_order: bool = False,
) -> Iterator[U]:
    """Run `fn` over `base` on `num_workers` threads, the old way.

    Parameters
    ----------
    base, fn, num_workers
        As in `penstock.iter_threaded`.
    buffer_size : int, default 1
        Length of each output queue; the inputs are buffer_size + 1 per worker.
    in_order : bool, default False
        Give each worker an input queue of its own, served in turn, so that the order is that of `base`.
        Needs an `fn` that yields one item per input.

    Yields
    ------
    U
        What `fn` yields.
    """
    size = buffer_size + 1
    inputs: list[Queue[object]] = (
        [Queue(size) for _ in range(num_workers)] if in_order else [Queue(size * num_workers)]
    )
    outputs: list[Queue[object]] = [Queue(buffer_size) for _ in range(num_workers)]
    threading.Thread(target=_fill, args=(base, inputs, num_workers), daemon=True).start()
    for i in range(num_workers):
        args = (fn, inputs[i % len(inputs)], outputs[i])
        threading.Thread(target=_work, args=args, daemon=True).start()
    while outputs:
        for queue in list(outputs):
            item = queue.get()
            if item is _END:
                outputs.remove(queue)
                continue
            yield cast("U", item)
            del item
