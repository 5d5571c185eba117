"""How long a training loop waits for its next batch, with a step of 5 ms: Penstock and its peers.

    bench/run next_batch
    bench/run next_batch --quick

Once the step sleeps (an accelerator is at work, the cores are free) and once it spins (the step itself
fills a core, in torch, without the GIL). The wait runs from the end of one step to the next batch in hand
*including the release of the last batch*, which is where some loaders do their work. The first batch of the
epoch is reported by `tabular.py` and left out here.

`fresh` is a bound: it reads nothing, and makes new tensors over memory that is always there. A core that
slept has torch's code in none of its caches, so even that takes a while.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import harness
import lineitem
from engines import UNSHUFFLED, NotAvailableError, load
from tabular import options, parse, ratio, read_for, rows_of, run_rounds, stops

FIGURES = ("p50", "p99", "mean", "max")


def measure(
    engine: str,
    paths: list[str],
    columns: list[str],
    batch_size: int,
    workers: int,
    rows: int,
    step_ms: float,
    step: str,
    limit_s: float,
) -> dict[str, Any]:
    """The waits of one epoch of one engine, or of as much as fits the limit; runs in a child process."""
    try:
        chosen = load(engine)
        chosen.prepare(workers)
    except NotAvailableError as error:
        return {"not_available": str(error)}
    source = chosen.open(paths, columns, batch_size, workers)
    batches = iter(source)
    _, is_settled = read_for(batches, limit_s)
    if is_settled:
        batches = iter(source)
    waits_ms, seen, is_whole = _waits(
        batches, _sleep if step == "sleep" else _spinner(), step_ms / 1e3, limit_s
    )
    if is_settled and is_whole and seen != rows:
        raise AssertionError(f"{engine} gave {seen:,} rows instead of {rows:,}")
    close = getattr(source, "close", None)
    if close:
        close()
    return {
        **harness.summary_of(waits_ms),
        "version": chosen.version(),
        "stopped_after_rows": None if is_settled and is_whole else seen,
    }


def _waits(
    batches: Iterator[Any], step: Callable[[float], None], step_s: float, limit_s: float
) -> tuple[list[float], int, bool]:
    """The waits, the rows, and whether the epoch ended before the limit."""
    end = time.perf_counter() + limit_s
    batch = next(batches)
    rows = rows_of(batch)
    waits_ms: list[float] = []
    while True:
        if time.perf_counter() > end:
            return waits_ms, rows, False
        step(step_s)
        step_ended = time.perf_counter_ns()
        try:
            batch = next(batches)  # The last batch dies in this assignment, within the wait.
        except StopIteration:
            return waits_ms, rows, True
        waits_ms.append((time.perf_counter_ns() - step_ended) / 1e6)
        rows += rows_of(batch)


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def _spinner() -> Callable[[float], None]:
    """A step that fills one core with small matrix products, as a model on the CPU would."""
    import torch

    torch.set_num_threads(1)
    matrix = torch.ones(192, 192)
    out = torch.empty(192, 192)

    def spin(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            torch.mm(matrix, matrix, out=out)

    return spin


def report(results: dict[str, list[dict[str, Any]]], base: str) -> str:
    header = ["engine", "version", *(f"{name} ms" for name in FIGURES), f"{base} / it, mean"]
    rows = []
    for engine, runs in results.items():
        if not runs:
            rows.append([engine, "-", "not available", "-", "-", "-", "-"])
            continue
        cells = [f"{statistics.median(run[name] for run in runs):.3f}" for name in FIGURES]
        rows.append([engine, runs[0]["version"], *cells, ratio(results.get(base, []), runs, "mean")])
    return "\n".join([harness.table(header, rows), *stops(results)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options(parser, repeats=5)
    parser.set_defaults(files="tpchgen", engines=",".join([*UNSHUFFLED, "fresh"]))
    parser.add_argument("--step-ms", type=float, default=5)
    parser.add_argument("--step", choices=["sleep", "spin", "both"], default="both")
    args, engines = parse(parser)
    print(harness.machine())
    everything: dict[str, Any] = {"machine": harness.machine(), "arguments": vars(args), "files": {}}
    for kind in ["tpchgen", "pyarrow"] if args.files == "both" else [args.files]:
        path = lineitem.ensure(kind, args.scale)
        columns = lineitem.COLUMNS[args.columns]
        rows = harness.in_child("tabular", "expectation", path=str(path), columns=columns[:1])["rows"]
        run = {
            "paths": [str(path)],
            "columns": columns,
            "batch_size": args.batch_size,
            "workers": args.workers,
        }
        run |= {"rows": rows, "step_ms": args.step_ms, "limit_s": args.limit_s}
        for step in ["sleep", "spin"] if args.step == "both" else [args.step]:

            def one(engine: str, run: dict[str, Any] = run | {"step": step}) -> Any:
                return harness.in_child("next_batch", "measure", engine=engine, **run)

            print(
                f"\n{path.name}, {len(columns)} columns, "
                f"batch {args.batch_size}, step {step} {args.step_ms:g} ms"
            )
            results = run_rounds(engines, args.repeats, one)
            print(report(results, args.base))
            everything["files"].setdefault(path.name, {})[step] = results
    harness.save_json(args.json, everything)


if __name__ == "__main__":
    main()
