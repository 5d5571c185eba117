"""What a collate_fn of 1 ms that holds the GIL costs beside its own time.

    bench/run collate
    bench/run collate --quick

Each round times the bare function, as often as an epoch has batches, an epoch without and one with it. The
function holds the GIL for 1 ms of its thread's processor time. Wall-clock time is that of the whole epoch;
processor time is less what the epoch takes without the function. On a machine that does other work too only
the processor time says much.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq

COLLATE_S = 1e-3
BATCH_ROWS = 1024
COLUMNS = 4


def hold_gil(batch: Any) -> Any:
    end = time.thread_time() + COLLATE_S
    while time.thread_time() < end:
        pass
    return batch


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall-clock and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def epoch(path: str, collate_fn: Callable[[Any], Any] | None) -> Callable[[], None]:
    def work() -> None:
        with ps.Loader(path, BATCH_ROWS, format="numpy", collate_fn=collate_fn) as loader:
            for _ in loader:
                pass

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    batches, rounds = (200, 2) if args.quick else (args.batches, args.rounds)
    shares: dict[str, list[float]] = {"wall": [], "cpu": []}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "numbers.parquet")
        column = range(batches * BATCH_ROWS)
        pq.write_table(pa.table({f"x{i}": column for i in range(COLUMNS)}), path)
        for number in range(rounds):
            bare = timed(lambda: [hold_gil(None) for _ in range(batches)] and None)
            plain = timed(epoch(path, None))
            collated = timed(epoch(path, hold_gil))
            wall = collated[0] / bare[0] - 1
            cpu = (collated[1] - plain[1]) / bare[1] - 1
            shares["wall"].append(wall)
            shares["cpu"].append(cpu)
            print(
                f"round {number}: function {bare[0] / batches * 1e3:.3f} ms, epoch without it "
                f"{plain[0] / batches * 1e3:.3f} ms, with it {collated[0] / batches * 1e3:.3f} ms a batch: "
                f"{100 * wall:+.1f} % wall, {100 * cpu:+.1f} % processor"
            )
    print(
        f"median over {rounds} rounds of {batches} batches: {100 * statistics.median(shares['wall']):+.1f} % "
        f"wall, {100 * statistics.median(shares['cpu']):+.1f} % processor; "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
