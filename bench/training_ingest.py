"""Photos to a small network: Ray Data's training_ingest_regression_test cut down to one machine, with peers.

    bench/run training_ingest                        # all three variants, five rounds
    bench/run training_ingest --quick                # to see that all engines run
    bench/run training_ingest --variants ingest --engines penstock,dali,ceiling

JPEG in Parquet -> decode, random resized crop to 224, flip, normalise -> float32 batches, then

ingest       nothing: how fast the loader is by itself
throughput   a training step of the reference's small network, on one thread of the CPU
memory       the same step and a sleep: the loader has time, so what it holds is what it chooses to hold

Every engine runs in a process of its own, in turn, each round starting with another one. "first batch"
counts from opening the engine, after imports. A second epoch of the same engine is what is timed (with
`memory` the first one): rows/s from its beginning to its end. A wait runs from the end of a step to the
next batch in hand, including the release of the last one, without the epoch's first. "held" is the most
that the engine's own accounts saw (Penstock's ledger, Ray's object store every 50 ms); "peak MiB" is the
memory of all its processes, pages counted once, less what the first had imported, from an untimed run.
Labels are summed to check that every row arrives once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import harness
import photo_files
import photo_quality
import training_plot
from engines import PHOTO_MODULES, NotAvailableError, load
from tabular import ratio, run_rounds

VARIANTS = ("ingest", "throughput", "memory")
BOUNDS = {"ingest": ["ceiling"], "throughput": ["mock"], "memory": ["fresh"]}
TIMEOUT_S = 300


def make_step(variant: str, sleep_s: float) -> Callable[[Any], None]:
    """What is done with a batch: the reference's model and optimizer, on one thread."""
    import torch

    torch.set_num_threads(1)  # The loaders have the other cores; on an accelerator they would have all.
    if variant == "ingest":
        return lambda batch: None
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, stride=2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 1000),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    loss_fn = torch.nn.CrossEntropyLoss()

    def step(batch: Any) -> None:
        optimizer.zero_grad()
        loss_fn(model(batch["image"]), batch["label"]).backward()
        optimizer.step()
        if variant == "memory":
            time.sleep(sleep_s)

    return step


def measure(
    engine: str, variant: str, paths: list[str], batch_size: int, workers: int, sleep_s: float, batches: int
) -> dict[str, Any]:
    """One run of one engine; runs in a child process."""
    try:
        chosen = load(engine, PHOTO_MODULES)
        chosen.prepare(workers)
        step = make_step(variant, sleep_s)
        before_bytes = harness.rss_bytes()
        started = time.perf_counter()
        source = chosen.open(paths, ["image", "label"], batch_size, workers)
    except NotAvailableError as error:
        return {"not_available": str(error)}
    first = epoch(source, step, batches, started, chosen.does_all)
    last = (
        first if variant == "memory" else epoch(source, step, batches, time.perf_counter(), chosen.does_all)
    )
    held = getattr(source, "held_bytes", None)
    spilled = getattr(source, "spilled_bytes", None)
    result = figures(last, batches * batch_size) | {
        "first_batch_s": first.waits_s[0],
        "labels": first.labels,
        "held_mib": held() / harness.MIB if held else None,
        "spilled_mib": spilled() / harness.MIB if spilled else None,
        "before_mib": before_bytes / harness.MIB,
        "version": chosen.version(),
        "note": chosen.note,
        "does_all": chosen.does_all,
    }
    close = getattr(source, "close", None)
    if close:
        close()
    return result


@dataclass(frozen=True)
class Epoch:
    """What an epoch took."""

    waits_s: list[float]
    steps_s: list[float]
    seconds: float
    labels: int
    """All labels, summed."""


def epoch(source: Any, step: Callable[[Any], None], batches: int, started: float, does_all: bool) -> Epoch:
    """Takes one epoch of so many batches; the first wait counts from `started`."""
    waits_s: list[float] = []
    steps_s: list[float] = []
    labels = 0
    batch, ready = None, started
    source_iterator = iter(source)
    for index in range(batches):
        batch = next(source_iterator)  # The last batch dies in this assignment, within the wait.
        got = time.perf_counter()
        waits_s.append(got - ready)
        if index == 0 and does_all:
            check(batch)
        labels += int(batch["label"].sum())
        step(batch)
        ready = time.perf_counter()
        steps_s.append(ready - got)
    seconds = ready - started
    if next(source_iterator, None) is not None:
        raise AssertionError(f"there are more than {batches} batches")
    return Epoch(waits_s, steps_s, seconds, labels)


def figures(timed: Epoch, rows: int) -> dict[str, float]:
    """Rows per second over the whole epoch, waits without its first batch."""
    waits_ms = sorted(1e3 * wait for wait in timed.waits_s[1:])
    return {
        "rows_per_s": rows / timed.seconds,
        "wait_mean_ms": statistics.fmean(waits_ms),
        "wait_p50_ms": statistics.median(waits_ms),
        "wait_p99_ms": waits_ms[min(len(waits_ms) - 1, int(len(waits_ms) * 0.99))],
        "step_ms": 1e3 * statistics.fmean(timed.steps_s),
    }


def check(batch: Any) -> None:
    from engines.photos import SIZE

    images, labels = batch["image"], batch["label"]
    batch_size = len(labels)
    if tuple(images.shape) != (batch_size, 3, SIZE, SIZE) or str(images.dtype) != "torch.float32":
        raise AssertionError(f"images are {tuple(images.shape)} of {images.dtype}")
    if labels.dim() != 1 or str(labels.dtype) != "torch.int64":
        raise AssertionError(f"labels are {tuple(labels.shape)} of {labels.dtype}")
    if not -2.2 <= float(images.min()) < float(images.max()) <= 2.7:
        raise AssertionError(f"values from {float(images.min())} to {float(images.max())} are not normalised")


def expected_labels(paths: list[str]) -> int:
    import pyarrow.parquet as pq
    from engines.photos import LABELS

    tables = [pq.read_table(path, columns=["label"]) for path in paths]
    return sum(LABELS[name] for table in tables for name in table["label"].to_pylist())


def mean_and_stdev(runs: list[dict[str, Any]], key: str, digits: int) -> str:
    values = [run[key] for run in runs if run[key] is not None]
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):,.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):,.{digits}f}{spread}"


def report(results: dict[str, list[dict[str, Any]]], trees: dict[str, float], base: str) -> str:
    header = ["engine", "rows/s", f"{base} / it", "first batch s", "next ms", "p50", "p99"]
    header += ["step ms", "held MiB", "peak MiB"]
    rows = []
    for engine, runs in results.items():
        if not runs:
            rows.append([engine, "not available", *["-"] * (len(header) - 2)])
            continue
        rows.append([
            engine,
            mean_and_stdev(runs, "rows_per_s", 0),
            ratio(results.get(base, []), runs, "rows_per_s"),
            mean_and_stdev(runs, "first_batch_s", 2),
            mean_and_stdev(runs, "wait_mean_ms", 2),
            mean_and_stdev(runs, "wait_p50_ms", 3),
            mean_and_stdev(runs, "wait_p99_ms", 2),
            mean_and_stdev(runs, "step_ms", 0),
            mean_and_stdev(runs, "held_mib", 0),
            f"{trees[engine]:,.0f}" if engine in trees else "-",
        ])  # fmt: skip
    notes = [f"{engine} {runs[0]['version']}: {runs[0]['note']}" for engine, runs in results.items() if runs]
    spilled = [f"{engine} spilled" for engine, runs in results.items() if any(r["spilled_mib"] for r in runs)]
    return "\n".join([harness.table(header, rows), *notes, *spilled])


def run_variant(variant: str, args: argparse.Namespace) -> dict[str, Any]:
    """All engines in all rounds, and a sampled run of each for its memory."""
    engines = args.engines.split(",") if args.engines else []
    if not engines:
        bounds = [name for names in BOUNDS.values() for name in names]
        engines = [name for name in PHOTO_MODULES if name not in bounds] + BOUNDS[variant]
    photos = args.memory_photos if variant == "memory" else args.photos
    paths = [str(path) for path in photo_files.ensure(photos)]
    settings: dict[str, Any] = {
        "variant": variant,
        "paths": paths,
        "batch_size": args.batch_size,
        "workers": args.workers,
    }
    settings |= {"sleep_s": args.sleep, "batches": photos // args.batch_size}
    expected = harness.in_child("training_ingest", "expected_labels", paths=paths)

    def one(engine: str, sample_tree: bool = False) -> Any:
        run = harness.in_child(
            "training_ingest",
            "measure",
            sample_tree=sample_tree,
            timeout_s=TIMEOUT_S,
            engine=engine,
            **settings,
        )
        if run.get("labels", expected) != expected:
            return {
                "failed": f"labels sum to {run['labels']} instead of {expected}: rows are lost or repeated"
            }
        return run

    print(f"\n{variant}: {photos:,} photos, batch {args.batch_size}, {args.workers} workers")
    results = run_rounds(engines, args.repeats, one)
    trees = {}
    for engine, runs in results.items():
        if runs and runs[0]["does_all"]:
            try:
                sampled = one(engine, sample_tree=True)
                trees[engine] = sampled["tree_peak_mib"] - sampled["before_mib"]
            except harness.ChildFailedError as error:
                print(f"  {engine}, sampled: {error}", flush=True)
    print(report(results, trees, args.base))
    return {"runs": results, "tree_peak_mib": trees}


def check_names(what: str, asked: str | None, known: Collection[str]) -> None:
    """Ends the program where one of the names, with commas between them, is not known."""
    for name in asked.split(",") if asked else []:
        if name not in known:
            raise SystemExit(f"no {what} {name!r}; there are: {', '.join(known)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", default=",".join(VARIANTS), help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--engines", help=f"of {', '.join(PHOTO_MODULES)}; default: all that the variant has")
    parser.add_argument("--base", default="penstock", help="the engine that ratios are taken to")
    parser.add_argument("--photos", type=int, default=2048, help="a multiple of 256")
    parser.add_argument("--memory-photos", type=int, default=1536, help="of the variant memory")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sleep", type=float, default=0.4, metavar="S", help="a step of the variant memory")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="512 photos, a round, sleeps of 0.2 s")
    parser.add_argument("--png", default=str(photo_files.DATA / "training_ingest.png"), help="the plot")
    parser.add_argument("--json", metavar="PATH")
    args = parser.parse_args()
    if args.quick:
        args.photos = args.memory_photos = 512
        args.repeats, args.sleep = 1, 0.2
    check_names("engine", args.engines, PHOTO_MODULES)
    check_names("variant", args.variants, VARIANTS)
    if args.photos % 256 or args.memory_photos % 256 or 128 % args.batch_size:
        raise SystemExit(
            "photos come in multiples of 256 and batches divide 128: every engine has whole batches"
        )
    paths = photo_files.ensure(args.photos)
    print(f"{harness.machine()}\n{photo_files.describe(paths)}")
    everything: dict[str, Any] = {"machine": harness.machine(), "variants": {}}
    for variant in args.variants.split(","):
        everything["variants"][variant] = run_variant(variant, args)
    training_plot.plot(everything["variants"], args.png)
    print(f"\nplot: {args.png}")
    quality = harness.in_child("photo_quality", "difference", path=str(paths[0]), photos=128)
    everything["difference_from_pillow"] = quality
    harness.save_json(args.json, everything)
    print(
        f"over {quality['photos']} random crops Penstock differs from Pillow by {quality['mean']:.4f} "
        f"of 255 on average, by {quality['max']} at most"
    )
    if quality["mean"] > photo_quality.MOST_MEAN_DIFFERENCE:
        raise SystemExit(f"that is more than {photo_quality.MOST_MEAN_DIFFERENCE}: the speed does not count")


if __name__ == "__main__":
    main()
