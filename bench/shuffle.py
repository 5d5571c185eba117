"""What shuffling costs, and going on from a state: lineitem, four integer columns, a window of 64 MiB.

    bench/run shuffle
    bench/run shuffle --quick

First rows per second: unshuffled `pyarrow.dataset.to_batches` and Penstock, Penstock shuffled, and the
peers' shuffles at equal mixing or better (`engines/shuffled.py`), measured as `tabular.py` does. Then, in
processes of their own, what `state_dict()` takes, and the first batch of a fresh epoch beside the first after
a resume at 90 % of it, with the bytes that the rest reads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import harness
import lineitem
from engines.shuffled import SEED, WINDOW_BYTES
from tabular import options, parse, report, rows_of, run_rounds

ENGINES = "penstock-shuffled,arrow,penstock,torch-map,torch-map-rows,ray-shuffled,datasets-shuffled"
RESUMED_AT = 0.9
STATES = 1000


def first_batches(path: str, columns: list[str], batch_size: int, workers: int) -> dict[str, float]:
    """One epoch up to 90 %, its state, and the rest of it by another loader; runs in a child process."""
    import penstock

    def open_loader() -> penstock.Loader:
        return penstock.Loader(
            path,
            batch_size=batch_size,
            columns=columns,
            num_workers=workers,
            shuffle=True,
            seed=SEED,
            shuffle_window=WINDOW_BYTES,
        )

    with open_loader() as loader:
        total = len(loader)
    with open_loader() as loader:
        started = time.perf_counter()
        batches = iter(loader)
        rows = rows_of(next(batches))
        fresh_s = time.perf_counter() - started
        for _ in range(int(RESUMED_AT * total) - 1):
            rows += rows_of(next(batches))
        started = time.perf_counter()
        for _ in range(STATES):
            state = loader.state_dict()
        state_s = (time.perf_counter() - started) / STATES
    state_text = json.dumps(state)
    with open_loader() as loader:
        loader.load_state_dict(json.loads(state_text))
        started = time.perf_counter()
        batches = iter(loader)
        rest = rows_of(next(batches))
        resumed_s = time.perf_counter() - started
        rest += sum(rows_of(batch) for batch in batches)
        read_bytes = loader.stats().to_dict()["stages"]["read"]["bytes"]
    with open_loader() as loader:
        expected = sum(rows_of(batch) for batch in loader)
        whole_bytes = loader.stats().to_dict()["stages"]["read"]["bytes"]
    if rows + rest != expected:
        raise AssertionError(f"{rows:,} rows and {rest:,} after the resume instead of {expected:,}")
    return {
        "state_us": state_s * 1e6,
        "state_bytes": len(state_text),
        "fresh_ms": fresh_s * 1e3,
        "resumed_ms": resumed_s * 1e3,
        "read_share": read_bytes / whole_bytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options(parser, repeats=5)
    parser.set_defaults(engines=ENGINES, base="penstock-shuffled", files="tpchgen")
    parser.add_argument("--epochs", type=int, default=2, help="epochs timed in each run")
    args, engines = parse(parser)
    print(harness.machine())
    everything: dict[str, object] = {"machine": harness.machine(), "arguments": vars(args)}
    columns = lineitem.COLUMNS[args.columns]
    for kind in ["tpchgen", "pyarrow"] if args.files == "both" else [args.files]:
        path = lineitem.ensure(kind, args.scale)
        print(f"\n{lineitem.describe(path)}\n{len(columns)} columns, batch {args.batch_size}")
        expected = harness.in_child("tabular", "expectation", path=str(path), columns=columns)
        run = {"columns": columns, "batch_size": args.batch_size, "workers": args.workers}
        results = run_rounds(
            engines,
            args.repeats,
            lambda engine, run=run, path=path, expected=expected: harness.in_child(
                "tabular",
                "measure",
                engine=engine,
                paths=[str(path)],
                epochs=args.epochs,
                limit_s=args.limit_s,
                expected=expected,
                **run,
            ),
        )
        print(report(results, {}, args.base))
        resumes = [
            harness.in_child("shuffle", "first_batches", path=str(path), **run) for _ in range(args.repeats)
        ]
        median = {key: statistics.median(one[key] for one in resumes) for key in resumes[0]}
        print(
            f"state_dict(): {median['state_us']:.1f} microseconds, {median['state_bytes']:.0f} bytes. "
            f"First batch: {median['fresh_ms']:.0f} ms in a fresh epoch, {median['resumed_ms']:.0f} ms "
            f"after a resume at {RESUMED_AT:.0%}; the rest reads {median['read_share']:.0%} of the bytes."
        )
        everything[kind] = {"runs": results, "resumes": resumes}
    harness.save_json(args.json, everything)


if __name__ == "__main__":
    main()
