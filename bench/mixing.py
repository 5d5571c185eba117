"""How well a shuffle window mixes rows that lie sorted by label: a table and a picture for docs/order.md.

    bench/run mixing                          # prints the table, writes docs/mixing.svg
    bench/run mixing --svg elsewhere.svg

A million rows with ten labels, sorted, in 50 row groups. Orders follow from the seed, so the figures are the
same on every machine and in every run; nothing here is timed. They are means over ten epochs, beside NumPy's
permutation of all rows.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import harness
import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, ROW_GROUPS, LABELS, BATCH = 1_000_000, 50, 10, 256
EPOCHS = 10
SEED = 1
WINDOWS = [Fraction(1, 64 >> i) for i in range(7)]
DRAWN = [Fraction(1, 64), Fraction(1, 16), Fraction(1, 4), Fraction(1)]
SVG = harness.BENCH.parent / "docs" / "mixing.svg"

HEADER = [
    "window",
    "rows",
    "row groups",
    "mean run",
    "longest runs",
    "moved",
    "neighbours",
    "bits",
    "least bits",
]


def label_of(rows: np.ndarray) -> np.ndarray:
    """Rows are numbered as they lie in the file, sorted by label."""
    return rows // (ROWS // LABELS)


def open_loader(path: str, **options: Any) -> ps.Loader:
    return ps.Loader(path, batch_size=8192, format="numpy", seed=SEED, memory_budget="512MiB", **options)


def bytes_per_window_row(path: str) -> float:
    """What a row costs in the window, by the loader's own account."""
    window_bytes = 16 << 20
    with open_loader(path, shuffle=True, shuffle_window=window_bytes) as loader:
        return window_bytes / loader.explain().to_dict()["shuffle_window_rows"]


def orders(loader: ps.Loader) -> Iterator[np.ndarray]:
    """The order of each epoch: the rows by their numbers in the file."""
    for _ in range(EPOCHS):
        rows = np.concatenate([batch["row"] for batch in loader])
        assert np.array_equal(np.sort(rows), np.arange(ROWS)), "not a permutation"
        yield rows


def run_lengths(labels: np.ndarray) -> np.ndarray:
    """How many rows of the same label follow each other, run by run."""
    borders = np.flatnonzero(np.diff(labels)) + 1
    return np.diff(np.concatenate([[0], borders, [len(labels)]]))


def entropies(labels: np.ndarray) -> np.ndarray:
    """Bits of each whole batch; log2(10) = 3.32 if all labels were equally frequent in it."""
    batches = labels[: len(labels) // BATCH * BATCH].reshape(-1, BATCH)
    shares = np.stack([(batches == label).mean(axis=1) for label in range(LABELS)], axis=1)
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1)


def figures_of(rows: np.ndarray) -> dict[str, float]:
    labels = label_of(rows)
    runs, bits = run_lengths(labels), entropies(labels)
    return {
        "run_mean": float(runs.mean()),
        "run_p999": float(np.quantile(runs, 0.999)),
        "moved": float(np.abs(rows - np.arange(ROWS)).mean()) / ROWS,
        "neighbours": float(np.abs(np.diff(rows)).mean()) / ROWS,
        "entropy_mean": float(bits.mean()),
        "entropy_p1": float(np.quantile(bits, 0.01)),
    }


def mean_of(epochs: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([figures[key] for figures in epochs])) for key in epochs[0]}


def cells(name: str, rows: int | None, figures: dict[str, float]) -> list[str]:
    """A full shuffle moves a row by a third of the data on average, and its neighbours are as far apart."""
    return [
        name,
        f"{rows:,}" if rows else "",
        f"{rows * ROW_GROUPS / ROWS:.1f}" if rows else "",
        f"{figures['run_mean']:,.2f}",
        f"{figures['run_p999']:,.0f}",
        f"{3 * figures['moved']:.0%}",
        f"{3 * figures['neighbours']:.0%}",
        f"{figures['entropy_mean']:.2f}",
        f"{figures['entropy_p1']:.2f}",
    ]


def draw(pictures: dict[str, np.ndarray], path: Path) -> None:
    """For each order: how often each label comes (dark: often), from the start of an epoch to its end."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "mixing"  # The same bytes each time.
    from matplotlib import pyplot as plt

    bins = 200
    figure, all_axes = plt.subplots(
        len(pictures), 1, figsize=(8, 1.15 * len(pictures) + 0.5), sharex=True, layout="constrained"
    )
    for axes, (name, rows) in zip(all_axes, pictures.items(), strict=True):
        labels = label_of(rows).reshape(bins, -1)
        shares = np.stack([(labels == label).mean(axis=1) for label in range(LABELS)])
        axes.imshow(
            shares,
            aspect="auto",
            cmap="Greys",
            vmin=0,
            vmax=0.5,
            extent=(0, 1, LABELS, 0),
            interpolation="none",
        )
        axes.set_yticks([0.5, 9.5], ["label 0", "9"])
        axes.set_title(name, loc="left", fontsize="medium")
    all_axes[-1].set_xlabel("share of the epoch")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--svg", type=Path, default=SVG, help="where the picture goes")
    parser.add_argument("--json", metavar="PATH")
    args = parser.parse_args()
    rows_of_table: list[list[str]] = []
    pictures: dict[str, np.ndarray] = {}
    everything: dict[str, Any] = {}

    def add(name: str, title: str, rows: int | None, found: list[np.ndarray]) -> None:
        everything[name] = mean_of([figures_of(order) for order in found])
        rows_of_table.append(cells(name, rows, everything[name]))
        if title:
            pictures[title] = found[0]

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/sorted.parquet"
        pq.write_table(pa.table({"row": np.arange(ROWS)}), path, row_group_size=ROWS // ROW_GROUPS)
        row_bytes = bytes_per_window_row(path)
        add("none", "no shuffle", None, [np.arange(ROWS)])
        for share in WINDOWS:
            window_bytes = math.ceil(share * ROWS * row_bytes)
            with open_loader(path, shuffle=True, shuffle_window=window_bytes) as loader:
                rows = loader.explain().to_dict()["shuffle_window_rows"]
                title = "a window of all the data" if share == 1 else f"a window of {share} of the data"
                add(str(share), title if share in DRAWN else "", rows, list(orders(loader)))
    random = np.random.default_rng(SEED)
    add("full (NumPy)", "", None, [random.permutation(ROWS) for _ in range(EPOCHS)])
    print("| " + " | ".join(HEADER) + " |\n|" + "---|" * len(HEADER))
    print("\n".join("| " + " | ".join(row) + " |" for row in rows_of_table))
    draw(pictures, args.svg)
    print(f"picture: {args.svg}")
    harness.save_json(args.json, everything)


if __name__ == "__main__":
    main()
