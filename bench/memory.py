"""Does the ledger tell the truth? Peak against prediction, and ledger against process memory.

    bench/run memory                    # both tables
    bench/run memory --part predicted   # peak with prefetch_batches=1 against what explain() said before
    bench/run memory --part process     # the ledger's peak against the growth of the process, ten shapes

Predicted: 1, 2, 4 and 8 workers, times 1, 5 and 20 copies of lineitem (hard links: no copying, one page
cache). Memory must not grow with the workers beyond what was said, nor with the number of files. Process:
what the process grew by since before the loader was made, against what the ledger says it held at its peak;
the promise is 5 % + 64 MiB.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import harness
import lineitem
import shapes

WORKERS = (1, 2, 4, 8)
COPIES = (1, 5, 20)
PROMISE_SHARE = 0.05
PROMISE_BYTES = 64 * harness.MIB


def copies_of(path: Path, count: int) -> list[str]:
    """Names of the same file, by hard links."""
    folder = path.parent / f"{path.stem}-links"
    folder.mkdir(exist_ok=True)
    links = [folder / f"part-{index:03}.parquet" for index in range(count)]
    for link in links:
        if not link.exists() or not link.samefile(path):
            link.unlink(missing_ok=True)
            os.link(path, link)
    return [str(link) for link in links]


def peak_against_prediction(
    paths: list[str], columns: list[str], batch_size: int, workers: int
) -> dict[str, float]:
    """One epoch with one batch ahead; runs in a child process."""
    import penstock as ps
    from tabular import count_rows

    options = {"batch_size": batch_size, "columns": columns, "num_workers": workers, "prefetch_batches": 1}
    with ps.Loader(paths, **options) as loader:
        predicted = loader.explain().to_dict()["predicted_peak_bytes"]
        started = time.perf_counter()
        rows = count_rows(loader)
        seconds = time.perf_counter() - started
        peak = loader.memory()["total"]["peak_bytes"]
    return {"predicted_bytes": predicted, "peak_bytes": peak, "rows": rows, "rows_per_s": rows / seconds}


def ledger_against_process(shape: str, scale: float, workers: int) -> dict[str, float]:
    """One epoch over one shape; runs in a child process. Shapes are made before, by another."""
    import penstock as ps
    import torch  # noqa: F401  (imported now, so that its memory is not taken for the loader's)
    from tabular import rows_of

    spec = shapes.SHAPES[shape]
    transforms = {name: ps.ops.hash_bucket(1 << 20) for name in spec.hashed}
    paths = shapes.paths_of(shape, scale)
    ps.Loader(
        paths[:1], batch_size=1, transforms=transforms, nulls=spec.nulls
    ).close()  # Loads what is loaded once.
    harness.reset_peak_rss()
    before = harness.rss_bytes()
    options: dict[str, Any] = {"batch_size": spec.batch_size, "num_workers": workers, "nulls": spec.nulls}
    with ps.Loader(paths, transforms=transforms, **options) as loader:
        rows = 0
        for batch in loader:
            rows += rows_of(batch)
        ledger = loader.memory()["total"]["peak_bytes"]
    return {"ledger_bytes": ledger, "growth_bytes": harness.peak_rss_bytes() - before, "rows": rows}


def part_predicted(scale: float, batch_size: int, quick: bool) -> list[dict[str, Any]]:
    path = lineitem.ensure("tpchgen", scale)
    print(f"\nPeak of the ledger with prefetch_batches=1, against explain() ({path.name}, four columns)")
    found, rows = [], []
    for workers in WORKERS[:2] if quick else WORKERS:
        for count in COPIES[:2] if quick else COPIES:
            run: dict[str, Any] = {
                "paths": copies_of(path, count),
                "columns": lineitem.FOUR,
                "batch_size": batch_size,
                "workers": workers,
            }
            one = harness.in_child("memory", "peak_against_prediction", **run)
            found.append({"workers": workers, "copies": count} | one)
            rows.append([
                str(workers),
                str(count),
                f"{one['predicted_bytes'] / harness.MIB:.2f}",
                f"{one['peak_bytes'] / harness.MIB:.2f}",
                f"{one['peak_bytes'] / one['predicted_bytes']:.2f}",
                f"{one['rows_per_s'] / 1e6:.1f}",
            ])  # fmt: skip
    header = ["workers", "files", "predicted MiB", "peak MiB", "peak / predicted", "M rows/s"]
    print(harness.table(header, rows))
    return found


def part_process(scale: float, workers: int) -> list[dict[str, Any]]:
    print("\nThe ledger's peak against the growth of the process (promise: within 5 % + 64 MiB)")
    found, rows = [], []
    for name, spec in shapes.SHAPES.items():
        shapes.ensure(name, scale)
        one = harness.in_child("memory", "ledger_against_process", shape=name, scale=scale, workers=workers)
        apart = one["growth_bytes"] - one["ledger_bytes"]
        kept = abs(apart) <= PROMISE_SHARE * one["ledger_bytes"] + PROMISE_BYTES
        found.append({"shape": name, "kept": kept} | one)
        rows.append([
            name,
            spec.what,
            f"{one['ledger_bytes'] / harness.MIB:.1f}",
            f"{one['growth_bytes'] / harness.MIB:.1f}",
            f"{apart / harness.MIB:+.1f}",
            "yes" if kept else "NO",
        ])  # fmt: skip
    print(
        harness.table(["shape", "what", "ledger MiB", "process grew MiB", "apart MiB", "promise kept"], rows)
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=["predicted", "process", "both"], default="both")
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--workers", type=int, default=2, help="for the second table")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", metavar="PATH")
    args = parser.parse_args()
    if args.quick:
        args.scale = 0.1
    print(harness.machine())
    result: dict[str, Any] = {"machine": harness.machine()}
    try:
        if args.part != "process":
            result["predicted"] = part_predicted(args.scale, args.batch_size, args.quick)
        if args.part != "predicted":
            result["process"] = part_process(args.scale, args.workers)
    except harness.ChildFailedError as error:
        raise SystemExit(f"penstock is not available, or failed: {error}") from error
    harness.save_json(args.json, result)


if __name__ == "__main__":
    main()
