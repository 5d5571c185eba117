"""What order costs where rows vary, and what a very slow row does: `bench/run ordering`.

vary    rows take a lognormal time (sigma 0.5, as decoding photos does). in_order=True against False, spent on
        the processor with 2 workers, alternating.
heavy   one row in 500 takes 100 times as long: Penstock in order (slots fixed and growing) and not, beside
        the designs with one batch per worker: B (queue + in-flight <= N, in order) and B2 (the same, not in
        order). Time is spent asleep, so that N workers are truly parallel.
crowd   the next-batch wait with 8 workers on the cores there are, against 2; time spent on the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq
from buffering import bounded_in_order, work
from penstock import iter_threaded

ROWS = 64
SIGMA = 0.5
SEED = 20240611


def rows_file(folder: str, num_batches: int) -> Path:
    path = Path(folder) / f"rows-{num_batches}.parquet"
    if not path.exists():
        pq.write_table(pa.table({"x": pa.array(range(ROWS * num_batches), pa.int64())}), path)
    return path


def loader_of(path: Path, spin: Any, **options: Any) -> ps.Loader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # More workers than cores, on purpose.
        return ps.Loader(path, batch_size=ROWS, transforms={"x": spin}, format="numpy", **options)


def run(path: Path, spin: Any, step_s: float = 0.0, **options: Any) -> dict[str, float]:
    with loader_of(path, spin, **options) as loader:
        begun = time.perf_counter()
        batches = 0
        waits_ms: list[float] = []
        stream = iter(loader)
        batch = next(stream, None)
        while batch is not None:
            batches += 1
            if step_s:
                time.sleep(step_s)
            end_of_step = time.perf_counter()
            batch = None
            batch = next(stream, None)
            waits_ms.append(1e3 * (time.perf_counter() - end_of_step))
        seconds = time.perf_counter() - begun
        stats = loader.stats().to_dict()
    waits_ms = sorted(waits_ms[:-1])
    return {
        "batches_per_s": batches / seconds,
        "wait_mean_ms": statistics.fmean(waits_ms),
        "wait_p99_ms": waits_ms[int(0.99 * (len(waits_ms) - 1))],
        "slots_grown": stats["slots_grown"],
    }


class Work:
    """One batch of a design in which a worker makes a batch alone."""

    def __init__(self, index: int, work_s: float) -> None:
        self.index = index
        self.work_s = work_s


def whole_batches(num_batches: int, row_us: float) -> Iterator[Any]:
    rng = random.Random(SEED)
    for index in range(num_batches):
        rows = (
            rng.lognormvariate(-SIGMA * SIGMA / 2, SIGMA) * (100 if rng.random() < 1 / 500 else 1)
            for _ in range(ROWS)
        )
        yield Work(index, 1e-6 * row_us * sum(rows))


def run_design(design: Callable[[Iterator[Any]], Iterator[Any]], num_batches: int, row_us: float) -> float:
    begun = time.perf_counter()
    count = sum(1 for _ in design(whole_batches(num_batches, row_us)))
    return count / (time.perf_counter() - begun)


def vary(folder: str, repeats: int, num_batches: int) -> dict[str, Any]:
    path = rows_file(folder, num_batches)
    spin = ps.testing.spin(200, sigma=SIGMA)
    ratios, speeds = [], []
    for _ in range(repeats):
        ordered = run(path, spin, num_workers=2, in_order=True)["batches_per_s"]
        free = run(path, spin, num_workers=2, in_order=False)["batches_per_s"]
        ratios.append(ordered / free)
        speeds.append((ordered, free))
    ratio = statistics.median(ratios)
    print(f"\nvary: in order / not, median of {repeats} rounds: {ratio:.3f}")
    print("  batches/s in order, not: " + "; ".join(f"{a:.1f}, {b:.1f}" for a, b in speeds))
    return {"ratio": ratio, "rounds": speeds}


def heavy(folder: str, repeats: int, num_batches: int) -> list[dict[str, Any]]:
    print(f"\nheavy: one row in 500 at 100 x; batches/s, median of {repeats} rounds (ideal: N / row time)")
    print(f"{'design':44}{'N = 2':>10}{'N = 8':>10}   slots grown")
    path = rows_file(folder, num_batches)
    report: list[dict[str, Any]] = []

    def spin_of(row_us: float) -> Any:
        return ps.testing.spin(row_us, sigma=SIGMA, heavy_every=500, heavy_factor=100, is_sleep=True)

    designs: dict[str, Callable[[int, float], dict[str, float]]] = {
        "penstock, in order, 3 slots": lambda n, us: run(
            path, spin_of(us), num_workers=n, prefetch_batches=1
        ),
        "penstock, in order, slots grow": lambda n, us: run(path, spin_of(us), num_workers=n),
        "penstock, not in order, N + 1 slots": lambda n, us: run(
            path, spin_of(us), num_workers=n, prefetch_batches=max(1, n - 1), in_order=False
        ),
        "B: queue + in-flight <= N, in order": lambda n, us: {
            "batches_per_s": run_design(lambda base: bounded_in_order(base, n), num_batches, us)
        },
        "B2: the same, not in order": lambda n, us: {
            "batches_per_s": run_design(lambda base: iter_threaded(base, work, n, n), num_batches, us)
        },
    }
    cells: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(repeats):
        for name, design in designs.items():
            for workers in (2, 8):
                cells.setdefault((name, workers), []).append(design(workers, 100.0 * workers))
    for name in designs:
        medians = [statistics.median(cell["batches_per_s"] for cell in cells[name, n]) for n in (2, 8)]
        grown = [cells[name, n][-1].get("slots_grown") for n in (2, 8)]
        text = "" if grown[0] is None else f"{grown[0]:.0f}, {grown[1]:.0f}"
        print(f"{name:44}{medians[0]:10.1f}{medians[1]:10.1f}   {text}")
        report.append({"design": name, "batches_per_s": medians, "slots_grown": grown})
    return report


def crowd(folder: str, repeats: int, num_batches: int) -> list[dict[str, Any]]:
    cores = len(os.sched_getaffinity(0))
    print(f"\ncrowd: next-batch wait on {cores} cores, step of 10 ms, rows on the processor (half load)")
    path = rows_file(folder, num_batches)
    spin = ps.testing.spin(100, sigma=SIGMA)
    report = []
    rounds: dict[int, list[dict[str, float]]] = {2: [], 8: []}
    for _ in range(repeats):
        for workers, results in rounds.items():
            results.append(run(path, spin, step_s=0.010, num_workers=workers))
    for workers, results in rounds.items():
        mean = statistics.median(r["wait_mean_ms"] for r in results)
        p99 = statistics.median(r["wait_p99_ms"] for r in results)
        print(f"  {workers} workers: mean {mean:.3f} ms, p99 {p99:.3f} ms")
        report.append({"workers": workers, "wait_mean_ms": mean, "wait_p99_ms": p99})
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description="What order costs where rows vary.")
    parser.add_argument("--quick", action="store_true", help="one round of fewer batches")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every figure there, too")
    options = parser.parse_args()
    repeats, num_batches = (1, 60) if options.quick else (5, 300)
    with tempfile.TemporaryDirectory() as folder:
        report = {
            "vary": vary(folder, repeats, num_batches),
            "heavy": heavy(folder, repeats, num_batches),
            "crowd": crowd(folder, repeats, num_batches),
        }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
