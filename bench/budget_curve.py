"""Penstock's speed against its memory budget, as a curve.

    bench/run budget_curve                         # table, and bench/data/budget_curve.png
    bench/run budget_curve --columns eleven --files pyarrow

Starts from the least budget that `loader.explain()` gives, and ends with the least one that keeps 95 % of
full speed, full speed being the best median on the curve.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import harness
import lineitem

FACTORS = (1, 1.1, 1.25, 1.5, 2, 2.5, 3, 4, 6, 8, 12, 16, 24, 32, 64)
QUICK_FACTORS = (1, 1.5, 2, 4, 16)
KEEPS = 0.95


def least_budget(path: str, columns: list[str], batch_size: int, workers: int) -> int:
    """The least budget that can work, in bytes; runs in a child process."""
    import penstock as ps

    with ps.Loader(path, batch_size=batch_size, columns=columns, num_workers=workers) as loader:
        return int(loader.explain().to_dict()["least_budget_bytes"])


def measure(
    path: str, columns: list[str], batch_size: int, workers: int, epochs: int, budget_bytes: int
) -> dict[str, float]:
    """Speed and peak under one budget; runs in a child process."""
    import penstock as ps
    from tabular import count_rows

    options = {
        "batch_size": batch_size,
        "columns": columns,
        "num_workers": workers,
        "memory_budget": budget_bytes,
    }
    with ps.Loader(path, **options) as loader:
        count_rows(loader)
        started = time.perf_counter()
        rows = sum(count_rows(loader) for _ in range(epochs))
        seconds = time.perf_counter() - started
        peak_bytes = loader.memory()["total"]["peak_bytes"]
    if peak_bytes > budget_bytes:
        raise AssertionError(
            f"the ledger's peak of {peak_bytes:,} bytes exceeds the budget of {budget_bytes:,}"
        )
    return {"rows_per_s": rows / seconds, "peak_bytes": peak_bytes}


def points(least_bytes: int, factors: tuple[float, ...]) -> list[int]:
    """The budgets to try, smallest first, up to 1 GiB at the least."""
    budgets = {int(least_bytes * factor) for factor in factors} | {1 << 30}
    return sorted(budget for budget in budgets if budget <= max(1 << 30, least_bytes * 2))


def plot(curve: list[dict[str, float]], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    full = max(point["rows_per_s"] for point in curve)
    budgets = [point["budget_bytes"] / harness.MIB for point in curve]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(budgets, [point["rows_per_s"] / 1e6 for point in curve], marker="o", label="Penstock, median")
    axes.axhline(
        full * KEEPS / 1e6, linestyle="--", linewidth=1, color="grey", label=f"{KEEPS:.0%} of full speed"
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("memory budget (MiB)")
    axes.set_ylabel("million rows per second")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", choices=["tpchgen", "pyarrow"], default="tpchgen")
    parser.add_argument("--columns", choices=list(lineitem.COLUMNS), default="four")
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--png", default=str(lineitem.DATA / "budget_curve.png"), help="where the plot goes")
    parser.add_argument("--json", metavar="PATH")
    args = parser.parse_args()
    if args.quick:
        args.scale, args.repeats, args.epochs = 0.1, 1, 1
    path = lineitem.ensure(args.files, args.scale)
    print(f"{harness.machine()}\n{lineitem.describe(path)}")
    run: dict[str, Any] = {"path": str(path), "columns": lineitem.COLUMNS[args.columns]}
    run |= {"batch_size": args.batch_size, "workers": args.workers}
    try:
        least_bytes = harness.in_child("budget_curve", "least_budget", **run)
    except harness.ChildFailedError as error:
        raise SystemExit(f"penstock is not available: {error}") from error
    budgets = points(least_bytes, QUICK_FACTORS if args.quick else FACTORS)
    runs: dict[int, list[dict[str, float]]] = {budget: [] for budget in budgets}
    for repeat in range(args.repeats):
        for budget in budgets if repeat % 2 == 0 else reversed(budgets):
            one = harness.in_child("budget_curve", "measure", budget_bytes=budget, epochs=args.epochs, **run)
            runs[budget].append(one)
    curve = [
        {
            "budget_bytes": budget,
            "rows_per_s": statistics.median(run["rows_per_s"] for run in found),
            "peak_bytes": max(run["peak_bytes"] for run in found),
        }
        for budget, found in runs.items()
    ]
    full = max(point["rows_per_s"] for point in curve)
    rows = [
        [
            f"{point['budget_bytes'] / harness.MIB:.1f}",
            f"{point['budget_bytes'] / least_bytes:.2f}",
            f"{point['rows_per_s'] / 1e6:.2f}",
            f"{point['rows_per_s'] / full:.0%}",
            f"{point['peak_bytes'] / harness.MIB:.1f}",
        ]
        for point in curve
    ]
    print(harness.table(["budget MiB", "of the least", "M rows/s", "of full speed", "ledger peak MiB"], rows))
    enough = next(point for point in curve if point["rows_per_s"] >= KEEPS * full)
    print(
        f"least budget that works: {least_bytes / harness.MIB:.1f} MiB; "
        f"least that keeps {KEEPS:.0%} of full speed: "
        f"{enough['budget_bytes'] / harness.MIB:.1f} MiB"
    )
    title = (
        f"Penstock: speed against memory budget\n{path.name}, {args.columns} columns, {args.workers} workers"
    )
    plot(curve, title, Path(args.png))
    harness.save_json(
        args.json, {"machine": harness.machine(), "least_budget_bytes": least_bytes, "curve": curve}
    )


if __name__ == "__main__":
    main()
