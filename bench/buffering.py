"""What a buffering design costs in memory, and what it buys in waiting.

Every design runs the same work: batches of 16 rows that take a lognormal time each (sigma 0.5, seeded), spent
asleep, so that N workers are truly parallel on any machine. All N together need one period for a batch, on
average. The classical designs give a whole batch to a worker; Penstock's workers share the oldest one.

held   the most batches alive at once, counted exactly: from the moment a batch is fetched, over every queue
       and hand, to its release by the consumer, whose own batch is included. For Penstock: the most slots in
       memory, by its ledger, looked at with each batch in hand.
wait   from the end of a step to the next batch in hand, including the release of the last batch; without the
       first batch.

A generator that is suspended at `yield` keeps its variables, and so a batch. Nothing here is allowed to, so
that the figures are those of the designs.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq
from make_async_gen import make_async_gen
from penstock import iter_threaded

WORKERS = (1, 2, 4, 8)
ROWS_PER_BATCH = 16
SIGMA = 0.5
SEED = 20240611


class Held:
    """Counts live batches and remembers the most."""

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._now = 0
        self.peak = 0

    def add(self, n: int) -> None:
        with self._mu:
            self._now += n
            self.peak = max(self.peak, self._now)


class Batch:
    """Stands for the memory of one batch, and is counted as long as it lives."""

    def __init__(self, index: int, work_s: float, held: Held) -> None:
        self.index = index
        self.work_s = work_s
        self._held = held
        held.add(1)

    def __del__(self) -> None:
        self._held.add(-1)


@dataclass(frozen=True)
class Scale:
    """How long a run is."""

    num_batches: int
    period_s: float


@dataclass(frozen=True)
class Row:
    """One cell of the table."""

    design: str
    workers: int
    consumer: str
    held: int
    wait_mean_ms: float
    wait_p99_ms: float


Fn = Callable[[Iterator[Batch]], Iterator[Batch]]
Design = Callable[[Iterator[Batch], int], Iterator[Batch]]


def make_batches(scale: Scale, workers: int, held: Held) -> Iterator[Batch]:
    rng = random.Random(SEED)
    # exp(-sigma^2 / 2) makes the mean 1; `workers` times the period, since that many are made at once.
    mu = -SIGMA * SIGMA / 2
    for index in range(scale.num_batches):
        rows = sum(rng.lognormvariate(mu, SIGMA) for _ in range(ROWS_PER_BATCH))
        yield Batch(index, scale.period_s * workers * rows / ROWS_PER_BATCH, held)


def make(batch: Batch) -> Batch:
    time.sleep(batch.work_s)
    return batch


def work(batches: Iterator[Batch]) -> Iterator[Batch]:
    return map(make, batches)


def reordered(batches: Iterator[Batch], delivered: Callable[[], object] = lambda: None) -> Iterator[Batch]:
    """Holds back what is early. Nothing bounds the heap but what the design in front of it lets through."""
    early: list[tuple[int, Batch]] = []
    wanted = 0
    for batch in batches:
        heapq.heappush(early, (batch.index, batch))
        del batch
        while early and early[0][0] == wanted:
            wanted += 1
            delivered()
            yield heapq.heappop(early)[1]


def one_queue(base: Iterator[Batch], workers: int, size: int) -> Iterator[Batch]:
    """One output queue whose bound does not count what the workers have in hand."""
    turn = threading.Lock()
    queue: Queue[Batch | None] = Queue(size)

    def fetch() -> Batch | None:
        with turn:
            return next(base, None)

    def run() -> None:
        for batch in work(iter(fetch, None)):
            queue.put(batch)
            del batch
        queue.put(None)

    for _ in range(workers):
        threading.Thread(target=run, daemon=True).start()
    while workers:
        batch = queue.get()
        if batch is None:
            workers -= 1
            continue
        yield batch
        del batch


def bounded_in_order(base: Iterator[Batch], workers: int) -> Iterator[Batch]:
    """iter_threaded, and a window of N in front of it: what waits for its turn in the heap counts, too."""
    window = threading.Semaphore(workers)

    def fetch() -> Batch | None:
        window.acquire()
        return next(base, None)

    return reordered(iter_threaded(iter(fetch, None), work, workers, workers), window.release)


DESIGNS: dict[str, Design] = {
    "old: input queue, N output queues": lambda base, n: make_async_gen(base, work, n),
    "old, in order": lambda base, n: make_async_gen(base, work, n, in_order=True),
    "one queue of 1": lambda base, n: one_queue(base, n, 1),
    "one queue of 1, reordered": lambda base, n: reordered(one_queue(base, n, 1)),
    "one queue of N": lambda base, n: one_queue(base, n, n),
    "one queue of N, reordered": lambda base, n: reordered(one_queue(base, n, n)),
    "queue + in-flight <= N": lambda base, n: iter_threaded(base, work, n, n),
    "queue + in-flight <= N, in order": lambda base, n: bounded_in_order(base, n),
}

# The step of the consumer, in periods. "even" leaves the workers 5 % to spare.
CONSUMERS = {"slow": 2.0, "even": 1 / 0.95, "fast": 0.0}


def consume(batches: Iterator[Any], step_s: float, look: Callable[[], object] = lambda: None) -> list[float]:
    """Seconds waited for each batch but the first; `look` is called with each batch in hand."""
    waits: list[float] = []
    batch: Any = next(batches)
    while batch is not None:
        look()
        time.sleep(step_s)
        end_of_step = time.perf_counter()
        batch = None  # Its release belongs to the wait.
        batch = next(batches, None)
        waits.append(time.perf_counter() - end_of_step)
    return waits[:-1]  # The last wait was for the end.


def measure(design: str, workers: int, consumer: str, scale: Scale) -> Row:
    held = Held()
    batches = DESIGNS[design](make_batches(scale, workers, held), workers)
    waits_ms = sorted(1e3 * wait for wait in consume(batches, CONSUMERS[consumer] * scale.period_s))
    p99 = waits_ms[min(len(waits_ms) - 1, int(0.99 * len(waits_ms)))]
    return Row(design, workers, consumer, held.peak, statistics.fmean(waits_ms), p99)


def makes_sense(design: str, workers: int) -> bool:
    """One worker keeps the order anyway."""
    return workers > 1 or "order" not in design


def penstock_slots(workers: int, consumer: str, scale: Scale, in_order: bool) -> Row:
    """Penstock's own way: all workers on the oldest slot, no queue."""
    row_us = 1e6 * scale.period_s * workers / ROWS_PER_BATCH
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # More workers than cores: they sleep.
        path = Path(folder) / "rows.parquet"
        pq.write_table(pa.table({"x": pa.array(range(ROWS_PER_BATCH * scale.num_batches), pa.int64())}), path)
        with ps.Loader(
            path,
            batch_size=ROWS_PER_BATCH,
            transforms={"x": ps.testing.spin(row_us, sigma=SIGMA, is_sleep=True)},
            format="numpy",
            num_workers=workers,
            prefetch_batches=1,
            in_order=in_order,
        ) as loader:
            slot_bytes = loader.explain().to_dict()["slot_bytes"]
            held = 0

            def slots_now() -> None:
                nonlocal held
                memory = loader.memory()
                slots = memory["slots"]["current_bytes"] + memory["user"]["current_bytes"]
                held = max(held, slots // slot_bytes)

            step_s = CONSUMERS[consumer] * scale.period_s
            waits_ms = sorted(1e3 * wait for wait in consume(iter(loader), step_s, slots_now))
    name = "Penstock's slots, in order" if in_order else "Penstock's slots"
    p99 = waits_ms[min(len(waits_ms) - 1, int(0.99 * len(waits_ms)))]
    return Row(name, workers, consumer, held, statistics.fmean(waits_ms), p99)


def print_table(rows: list[Row], scale: Scale) -> None:
    by_cell = {(row.design, row.workers, row.consumer): row for row in rows}
    print(f"\nheld / wait mean ms / wait p99 ms; {scale.num_batches} batches of {1e3 * scale.period_s:g} ms")
    print("step in periods: " + ", ".join(f"{name} {step:.2f}" for name, step in CONSUMERS.items()))
    head = f"{'design':34}{'consumer':10}" + "".join(f"{f'N = {n}':>22}" for n in WORKERS)
    print(head + "\n" + "-" * len(head))
    for design in dict.fromkeys(row.design for row in rows):
        for consumer in CONSUMERS:
            cells = [by_cell.get((design, n, consumer)) for n in WORKERS]
            if any(cells):
                texts = (
                    f"{c.held:6} /{c.wait_mean_ms:6.2f} /{c.wait_p99_ms:6.1f}" if c else "-" for c in cells
                )
                print(f"{design:34}{consumer:10}" + "".join(f"{text:>22}" for text in texts))


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Batches held and next-batch wait of several buffering designs."
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter batches")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the cells there, too")
    options = parser.parse_args()
    scale = Scale(40, 0.002) if options.quick else Scale(300, 0.004)
    rows = [
        measure(design, workers, consumer, scale)
        for design in DESIGNS
        for workers in WORKERS
        if makes_sense(design, workers)
        for consumer in CONSUMERS
    ]
    rows += [
        penstock_slots(workers, consumer, scale, in_order)
        for in_order in (False, True)
        for workers in WORKERS
        for consumer in CONSUMERS
    ]
    print_table(rows, scale)
    if options.json:
        cells = [asdict(row) for row in rows]
        report = {"seed": SEED, "sigma": SIGMA, "scale": asdict(scale), "cells": cells}
        options.json.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
