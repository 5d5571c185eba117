"""What Penstock costs when there is next to nothing to do.

    bench/run overhead
    bench/run overhead --quick

* `next()` for a batch of one row, in microseconds, by number of columns; the slope is the cost of a further
  column;
* time to the first batch of 10,000 small local files of ten columns, warm cache;
* time to the first batch of a table of 1,000 columns.

The time to the first batch runs from before the loader is made. pyarrow's dataset is measured beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import harness
import lineitem
import shapes
from engines import NotAvailableError, load
from tabular import run_rounds

COLUMNS = (1, 2, 4, 8, 16, 32)
ENGINES = ["penstock", "arrow"]


def next_us(engine: str, path: str, columns: int, workers: int, batches: int) -> dict[str, Any]:
    """Mean and median time of next() for batches of one row; runs in a child process."""
    try:
        chosen = load(engine)
        chosen.prepare(workers)
    except NotAvailableError as error:
        return {"not_available": str(error)}
    source = chosen.open([path], [f"i{c}" for c in range(columns)], 1, workers)
    batches_left = iter(source)
    for _ in range(batches // 10):
        batch = next(batches_left)
    waits_ns = []
    started = time.perf_counter_ns()
    for _ in range(batches):
        before = time.perf_counter_ns()
        batch = next(batches_left)  # noqa: F841  (held, so that the last batch dies within the measurement)
        waits_ns.append(time.perf_counter_ns() - before)
    mean_us = (time.perf_counter_ns() - started) / batches / 1e3
    return {"mean_us": mean_us, "p50_us": statistics.median(waits_ns) / 1e3}


def first_batch(
    engine: str, paths: list[str], columns: list[str], batch_size: int, workers: int
) -> dict[str, Any]:
    """Seconds from nothing to the first batch, when all imports are done; runs in a child process."""
    try:
        chosen = load(engine)
        chosen.prepare(workers)
    except NotAvailableError as error:
        return {"not_available": str(error)}
    next(iter(chosen.open(paths[:1], columns, batch_size, workers)))  # Loads what is loaded once.
    started = time.perf_counter()
    batches = iter(chosen.open(paths, columns, batch_size, workers))
    batch = next(batches)
    seconds = time.perf_counter() - started
    names = batch if isinstance(batch, dict) else batch.schema.names
    if len(names) != len(columns):
        raise AssertionError(f"{len(names)} columns instead of {len(columns)}")
    return {"first_batch_s": seconds}


def part_next(engines: list[str], repeats: int, batches: int, workers: int) -> dict[str, Any]:
    path = shapes.write_files(lineitem.DATA / "one-row", shapes.ints(max(COLUMNS)), 1 << 17, 1, 1 << 17)[0]
    print("\nnext() for a batch of one row, microseconds (mean; in brackets the median call)")
    medians: dict[str, dict[int, tuple[float, float]]] = {engine: {} for engine in engines}
    for columns in COLUMNS:

        def one(engine: str, columns: int = columns) -> Any:
            run: dict[str, Any] = {"path": path, "columns": columns, "workers": workers, "batches": batches}
            return harness.in_child("overhead", "next_us", engine=engine, **run)

        for engine, runs in run_rounds(engines, repeats, one, quiet=columns != COLUMNS[0]).items():
            if runs:
                keys = ("mean_us", "p50_us")
                mean, p50 = (statistics.median(run[key] for run in runs) for key in keys)
                medians[engine][columns] = (mean, p50)
    rows = []
    for engine, by_columns in medians.items():
        if len(by_columns) < len(COLUMNS):
            rows.append([engine, *["not available"] * len(COLUMNS), "-"])
            continue
        slope = statistics.linear_regression(COLUMNS, [by_columns[c][0] for c in COLUMNS]).slope
        rows.append(
            [engine, *(f"{by_columns[c][0]:.2f} ({by_columns[c][1]:.2f})" for c in COLUMNS), f"{slope:.2f}"]
        )
    print(harness.table(["engine", *(f"{c} col" for c in COLUMNS), "per further column"], rows))
    return medians


def part_first(title: str, engines: list[str], repeats: int, run: dict[str, Any]) -> dict[str, Any]:
    print(f"\nTime to the first batch: {title}")
    results = run_rounds(
        engines, repeats, lambda engine: harness.in_child("overhead", "first_batch", engine=engine, **run)
    )
    rows = []
    for engine, runs in results.items():
        times = [run["first_batch_s"] * 1e3 for run in runs]
        rows.append([engine, f"{statistics.median(times):.1f}" if times else "not available"])
    print(harness.table(["engine", "ms"], rows))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", metavar="PATH")
    args = parser.parse_args()
    files, batches = (500, 2_000) if args.quick else (10_000, 50_000)
    repeats = 1 if args.quick else args.repeats
    engines = args.engines.split(",")
    print(harness.machine())
    ten = [f"i{c}" for c in range(10)]
    small = {"paths": shapes.small_files(files), "columns": ten, "batch_size": 1024, "workers": args.workers}
    thousand = [f"f{c}" for c in range(1000)]
    wide = {
        "paths": shapes.wide_table(1000),
        "columns": thousand,
        "batch_size": 1024,
        "workers": args.workers,
    }
    result = {
        "machine": harness.machine(),
        "next_us": part_next(engines, repeats, batches, args.workers),
        "small_files": part_first(f"{files:,} files of ten columns, batch 1024", engines, repeats, small),
        "wide_table": part_first("a table of 1,000 columns, batch 1024", engines, repeats, wide),
    }
    harness.save_json(args.json, result)


if __name__ == "__main__":
    main()
