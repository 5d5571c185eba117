"""Rows of 1 MiB to slow consumers: Ray Data's backpressure_benchmark cut down to one machine, with peers.

    bench/run backpressure
    bench/run backpressure --quick

16 inputs become 8 outputs of 16 rows each, 2,048 rows of 1 MiB: 2 GiB in all, made as they are needed.

training-prefetch             two consumers that get half of the rows each, 8 batches prefetched where an
                              engine has such a setting
fast-producer-slow-consumer   one consumer

A consumer takes batches of 16 rows and sleeps `--step` seconds for each. Making a batch takes
milliseconds, so every engine keeps up; the question is how far ahead of the consumers it runs. "held" is
the most that the engine's own accounts saw (Penstock's ledgers, Ray's object store every 50 ms); "peak
MiB" the memory of all its processes, pages counted once, less what the first of them had imported, from a
run that is not timed. Every row's id is checked: each comes once.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from typing import Any

import harness
from engines import ROW_MODULES, NotAvailableError, load
from lineitem import DATA
from tabular import run_rounds
from training_ingest import check_names, mean_and_stdev

CASES = {"training-prefetch": 2, "fast-producer-slow-consumer": 1}
OUTPUTS_PER_INPUT = 8
TIMEOUT_S = 300


def ensure(inputs: int, batch_size: int) -> list[str]:
    """A file of ids for each input; a row group is a batch."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = DATA / f"row-ids-{inputs}-{batch_size}"
    rows = OUTPUTS_PER_INPUT * batch_size
    if not folder.exists():
        unfinished = folder.with_suffix(".tmp")
        unfinished.mkdir(parents=True, exist_ok=True)
        for i in range(inputs):
            table = pa.table({"id": np.arange(i * rows, (i + 1) * rows)})
            pq.write_table(table, unfinished / f"part-{i:03}.parquet", row_group_size=batch_size)
        unfinished.rename(folder)
    return [str(path) for path in sorted(folder.glob("*.parquet"))]


class Consumer(threading.Thread):
    """Takes all batches of its part, slowly."""

    def __init__(self, part: Any, step_s: float) -> None:
        super().__init__()
        self._part = part
        self._step_s = step_s
        self.waits_s: list[float] = []
        self.ids: list[int] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._take()
        except BaseException as error:
            self.error = error

    def _take(self) -> None:
        batches = iter(self._part)
        batch = None
        while True:
            asked = time.perf_counter()
            try:
                batch = next(batches)  # The last batch dies in this assignment, within the wait.
            except StopIteration:
                return
            self.waits_s.append(time.perf_counter() - asked)
            rows = batch["row"]
            self.ids += [int.from_bytes(bytes(row[:8].tolist()), "little") for row in rows]
            time.sleep(self._step_s)


def measure(
    engine: str, paths: list[str], batch_size: int, workers: int, consumers: int, step_s: float, rows: int
) -> dict[str, Any]:
    """One run of one engine; runs in a child process."""
    try:
        chosen = load(engine, ROW_MODULES)
        chosen.prepare(workers)
        before_bytes = harness.rss_bytes()
        started = time.perf_counter()
        source: Any = chosen.open(paths, ["id"], batch_size, workers)
    except NotAvailableError as error:
        return {"not_available": str(error)}
    threads = [Consumer(part, step_s) for part in source.split(consumers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    for thread in threads:
        if thread.error:
            raise thread.error
    ids = sorted(number for thread in threads for number in thread.ids)
    if ids != list(range(rows)):
        raise AssertionError(f"{engine} gave {len(ids)} rows, {len(set(ids))} distinct, instead of {rows}")
    waits_ms = sorted(1e3 * wait for thread in threads for wait in thread.waits_s[1:])
    held = getattr(source, "held_bytes", None)
    spilled = getattr(source, "spilled_bytes", None)
    result = {
        "seconds": seconds,
        "first_batch_s": max(thread.waits_s[0] for thread in threads),
        "wait_p50_ms": statistics.median(waits_ms),
        "wait_p99_ms": waits_ms[min(len(waits_ms) - 1, int(len(waits_ms) * 0.99))],
        "held_mib": held() / harness.MIB if held else None,
        "spilled_mib": spilled() / harness.MIB if spilled else None,
        "before_mib": before_bytes / harness.MIB,
        "version": chosen.version(),
        "note": chosen.note,
    }
    close = getattr(source, "close", None)
    if close:
        close()
    return result


def report(results: dict[str, list[dict[str, Any]]], trees: dict[str, float]) -> str:
    header = [
        "engine",
        "seconds",
        "first batch s",
        "next p50 ms",
        "p99 ms",
        "held MiB",
        "spilled MiB",
        "peak MiB",
    ]
    rows = []
    for engine, runs in results.items():
        if not runs:
            rows.append([engine, "not available", *["-"] * (len(header) - 2)])
            continue
        rows.append([
            engine,
            mean_and_stdev(runs, "seconds", 1),
            mean_and_stdev(runs, "first_batch_s", 2),
            mean_and_stdev(runs, "wait_p50_ms", 3),
            mean_and_stdev(runs, "wait_p99_ms", 2),
            mean_and_stdev(runs, "held_mib", 0),
            mean_and_stdev(runs, "spilled_mib", 0),
            f"{trees[engine]:,.0f}" if engine in trees else "-",
        ])  # fmt: skip
    notes = [f"{engine} {runs[0]['version']}: {runs[0]['note']}" for engine, runs in results.items() if runs]
    return "\n".join([harness.table(header, rows), *notes])


def plot(cases: dict[str, Any], png: str) -> None:
    """Peak memory, case by case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(cases), figsize=(4.6 * len(cases), 2.4), squeeze=False)
    for axis, (case, found) in zip(axes.flat, cases.items(), strict=True):
        engines = list(found["tree_peak_mib"])[::-1]
        values = [found["tree_peak_mib"][engine] for engine in engines]
        axis.barh(engines, values, color=["#1f6f8b" if name == "penstock" else "#b0b7bf" for name in engines])
        for y, value in enumerate(values):
            axis.text(value, y, f" {value:,.0f}", va="center", fontsize=8)
        axis.set_title(f"{case}: peak MiB (less is better)", fontsize=9)
        axis.margins(x=0.18)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(png, dpi=120)
    plt.close(figure)


def run_case(case: str, args: argparse.Namespace) -> dict[str, Any]:
    """All engines in all rounds, and a sampled run of each for its memory."""
    settings: dict[str, Any] = {"paths": ensure(args.inputs, args.batch_size), "batch_size": args.batch_size}
    settings |= {"workers": args.workers, "consumers": CASES[case], "step_s": args.step}
    settings["rows"] = args.inputs * OUTPUTS_PER_INPUT * args.batch_size

    def one(engine: str, sample_tree: bool = False) -> Any:
        return harness.in_child(
            "backpressure", "measure", sample_tree=sample_tree, timeout_s=TIMEOUT_S, engine=engine, **settings
        )

    print(f"\n{case}: {CASES[case]} consumers, {settings['rows']:,} rows of 1 MiB, steps of {args.step} s")
    results = run_rounds(args.engines.split(","), args.repeats, one)
    trees = {}
    for engine, runs in results.items():
        if runs:
            try:
                sampled = one(engine, sample_tree=True)
                trees[engine] = sampled["tree_peak_mib"] - sampled["before_mib"]
            except harness.ChildFailedError as error:
                print(f"  {engine}, sampled: {error}", flush=True)
    print(report(results, trees))
    return {"runs": results, "tree_peak_mib": trees}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--engines", default=",".join(ROW_MODULES))
    parser.add_argument("--inputs", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--step", type=float, default=0.15, metavar="S", help="what a consumer sleeps for a batch"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="4 inputs, a round, steps of 0.05 s")
    parser.add_argument("--png", default=str(DATA / "backpressure.png"), help="the plot")
    parser.add_argument("--json", metavar="PATH")
    args = parser.parse_args()
    if args.quick:
        args.inputs, args.repeats, args.step = 4, 1, 0.05
    check_names("engine", args.engines, ROW_MODULES)
    check_names("case", args.cases, CASES)
    print(harness.machine())
    everything: dict[str, Any] = {"machine": harness.machine(), "cases": {}}
    for case in args.cases.split(","):
        everything["cases"][case] = run_case(case, args)
    plot(everything["cases"], args.png)
    print(f"\nplot: {args.png}")
    harness.save_json(args.json, everything)


if __name__ == "__main__":
    main()
