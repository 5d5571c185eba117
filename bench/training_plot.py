"""The plot of training_ingest.py: what stands against what, at a glance."""

from __future__ import annotations

import statistics
from typing import Any

# (variant, figure, title, whether more is better)
PANELS = (
    ("ingest", "rows_per_s", "loader alone, rows/s", True),
    ("throughput", "rows_per_s", "with the network, rows/s", True),
    ("throughput", "first_batch_s", "first batch, s", False),
    ("memory", "wait_p50_ms", "next batch, p50 ms, slow step", False),
    ("memory", "tree_peak_mib", "peak memory, MiB, slow step", False),
    ("memory", "held_mib", "held by its own account, MiB", False),
)
OURS, OTHERS, BOUND = "#1f6f8b", "#b0b7bf", "#e0c068"


def plot(variants: dict[str, Any], png: str) -> None:
    """A panel of bars for each figure; the lines on them are the standard deviation of the runs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [panel for panel in PANELS if panel[0] in variants and any(variants[panel[0]]["runs"].values())]
    if not panels:
        return
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 2.9 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (variant, key, title, more_is_better) in zip(axes.flat, panels, strict=False):
        bars = _bars(variants[variant], key)
        if not bars:
            axis.set_visible(False)
            continue
        engines, means, stdevs, colours = zip(*bars[::-1], strict=True)
        axis.barh(engines, means, xerr=stdevs, color=colours, error_kw={"linewidth": 1})
        for y, (mean, stdev) in enumerate(zip(means, stdevs, strict=True)):
            text = f" {mean:,.3g}" if mean < 100 else f" {mean:,.0f}"
            axis.text(mean + stdev, y, text, va="center", fontsize=8)
        axis.set_title(f"{title} ({'more' if more_is_better else 'less'} is better)", fontsize=9)
        axis.margins(x=0.18)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(png, dpi=120)
    plt.close(figure)


def _bars(variant: dict[str, Any], key: str) -> list[tuple[str, float, float, str]]:
    bars = []
    for engine, runs in variant["runs"].items():
        if key == "tree_peak_mib":
            values = [variant[key][engine]] if engine in variant[key] else []
        else:
            values = [run[key] for run in runs if run[key] is not None]
        if not values or (not runs[0]["does_all"] and key != "rows_per_s"):
            continue
        colour = OURS if engine == "penstock" else OTHERS if runs[0]["does_all"] else BOUND
        stdev = statistics.stdev(values) if len(values) > 1 else 0.0
        bars.append((engine, statistics.fmean(values), stdev, colour))
    return bars
