"""Rows per second from Parquet to tensors: Penstock and its peers, in one run.

    bench/run tabular                                     # both files, four integer columns, five rounds
    bench/run tabular --files pyarrow --columns eleven    # decimals and dates too
    bench/run tabular --quick                             # a minute, to see that all engines run

In each round every engine runs once, in a process of its own, and each round starts with another engine. A
run opens the engine, checks an epoch (every value's sum, the rows, the batch sizes), lets a second one
settle, and times the next ones; imports and start-up are outside, the files lie in the page cache. Ratios
are taken within a round; what is printed is their median. An engine too slow for that is stopped and measured
on the part that it read (`--limit-s`).
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import harness
import lineitem
from engines import MODULES, UNSHUFFLED, Engine, NotAvailableError, load

LIMIT_S = 30.0
_LEAST_S = 0.2


def rows_of(batch: Any) -> int:
    """Rows of a batch: a dict of tensors (of lists: one of offsets), or an Arrow batch."""
    if not isinstance(batch, dict):
        return int(batch.num_rows)
    for name, column in batch.items():
        if name.endswith("_offsets"):
            return len(column) - 1
    return len(next(iter(batch.values())))


def measure(
    engine: str,
    paths: list[str],
    columns: list[str],
    batch_size: int,
    workers: int,
    epochs: int,
    expected: dict[str, Any],
    limit_s: float,
) -> dict[str, Any]:
    """One run of one engine; runs in a child process.

    Where checking an epoch takes longer than `limit_s`, the rest of that epoch is timed, for as long at most.
    """
    try:
        chosen = load(engine)
        chosen.prepare(workers)
    except NotAvailableError as error:
        return {"not_available": str(error)}
    harness.reset_peak_rss()
    before_bytes = harness.rss_bytes()
    started = time.perf_counter()
    source = chosen.open(paths, columns, batch_size, workers)
    batches = iter(source)
    first_s, is_checked = check_epoch(batches, started, batch_size, expected, chosen, limit_s)
    if is_checked:
        count_rows(source)
        batches = itertools.chain.from_iterable(itertools.repeat(source, epochs))
    started = time.perf_counter()
    rows, is_whole = read_for(batches, limit_s)
    seconds = time.perf_counter() - started
    peak_bytes = harness.peak_rss_bytes()
    if not is_checked and seconds < _LEAST_S:
        raise AssertionError(f"{engine}: checking left too little to time; raise --limit-s")
    if is_checked and is_whole and rows != epochs * expected["rows"]:
        raise AssertionError(f"{engine} gave {rows:,} rows in {epochs} epochs of {expected['rows']:,}")
    close = getattr(source, "close", None)
    if close:
        close()
    return {
        "rows_per_s": rows / seconds,
        "first_batch_s": first_s,
        "peak_mib": peak_bytes / harness.MIB,
        "growth_mib": (peak_bytes - before_bytes) / harness.MIB,
        "version": chosen.version(),
        "note": chosen.note,
        "processes": chosen.processes,
        "stopped_after_rows": None if is_checked and is_whole else rows,
    }


def count_rows(source: Any) -> int:
    """Takes one epoch; the last batch is held while the next is fetched, as in a training loop."""
    rows = 0
    for batch in source:
        rows += rows_of(batch)
    return rows


def read_for(batches: Iterable[Any], limit_s: float) -> tuple[int, bool]:
    """Takes batches as `count_rows` does, until the limit. Returns the rows and whether those were all."""
    rows = 0
    end = time.perf_counter() + limit_s
    for batch in batches:
        if time.perf_counter() > end:
            return rows, False
        rows += rows_of(batch)
    return rows, True


def check_epoch(
    batches: Iterable[Any],
    started: float,
    batch_size: int,
    expected: dict[str, Any],
    engine: Engine,
    limit_s: float,
) -> tuple[float, bool]:
    """Takes one epoch and checks rows, sizes, types and sums.

    Returns the seconds to the first batch, and whether the epoch ended before the limit. Where it did not,
    sizes and types were checked.
    """
    first_s = 0.0
    sums = dict.fromkeys(expected["sums"], 0.0)
    sizes: list[int] = []
    is_whole = True
    for batch in batches:
        if sizes and time.perf_counter() - started > limit_s:
            is_whole = False
            break
        first_s = first_s or time.perf_counter() - started
        sizes.append(rows_of(batch))
        for name, value in _sums(batch, expected["types"], engine.exact_types).items():
            sums[name] += value
    if engine.exact and any(size != batch_size for size in sizes[:-1]):
        raise AssertionError(f"batches of {sorted(set(sizes[:-1]))} rows instead of {batch_size}")
    if is_whole and sum(sizes) != expected["rows"]:
        raise AssertionError(f"{sum(sizes):,} rows instead of {expected['rows']:,}")
    for name, value in expected["sums"].items() if is_whole else ():
        if not math.isclose(sums[name], value, rel_tol=1e-9 if engine.exact_types else 1e-6):
            raise AssertionError(f"column {name} sums to {sums[name]} instead of {value}")
    return first_s, is_whole


def _sums(batch: Any, types: dict[str, str], exact_types: bool) -> dict[str, float]:
    from engines.arrow_columns import spread, to_tensors

    if not isinstance(batch, dict):
        batch = spread(to_tensors(batch))
    for name, kind in types.items():
        found = kind_of(batch[name])
        if found != kind and (exact_types or _family(found) != _family(kind)):
            raise AssertionError(f"column {name} is {found} instead of {kind}")
    return {name: sum_of(batch[name]) for name in types}


def _family(kind: str) -> str:
    """ "int" of "int32", and so on."""
    return kind.rstrip("0123456789")


def kind_of(column: Any) -> str:
    """What a column holds: a number type, "text", or for lists that came one by one "lists"."""
    if isinstance(column, list):
        return "text" if isinstance(column[0], str) else str(column[0].dtype).removeprefix("torch.")
    return str(column.dtype).removeprefix("torch.") if hasattr(column, "dtype") else "text"


def sum_of(column: Any) -> float:
    """A number that changes with any value: the sum of numbers, the bytes of text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, list) and not isinstance(column[0], str):
        return float(sum(part.sum().item() for part in column))
    if isinstance(column, (list, pa.Array)):
        text = pa.array(column) if isinstance(column, list) else column
        if pa.types.is_string_view(text.type):  # Which binary_length does not take.
            text = text.cast(pa.large_string())
        return float(pc.sum(pc.binary_length(text)).as_py())
    return float(column.sum().item())


def expectation(path: str, columns: list[str]) -> dict[str, Any]:
    """What every engine must deliver from that file, by pyarrow; runs in a child process."""
    import pyarrow.parquet as pq
    from engines.arrow_columns import spread, to_tensors

    table = pq.read_table(path, columns=columns)
    # Offsets count from each batch's own first value: their sum depends on how rows are cut.
    tensors = {
        name: column
        for name, column in spread(to_tensors(table.combine_chunks())).items()
        if not name.endswith("_offsets")
    }
    return {
        "rows": table.num_rows,
        "sums": {name: sum_of(column) for name, column in tensors.items()},
        "types": {name: kind_of(column) for name, column in tensors.items()},
    }


def run_rounds(
    engines: list[str], repeats: int, one: Callable[[str], dict[str, Any]], quiet: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """Runs every engine once a round, each round starting with another one. A failed engine is left out."""
    results: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    failed: set[str] = set()
    for round_index in range(repeats):
        shift = round_index % len(engines)
        for engine in engines[shift:] + engines[:shift]:
            if engine in failed:
                continue
            try:
                result = one(engine)
            except harness.ChildFailedError as error:
                result = {"failed": str(error)}
            reason = result.get("not_available") or result.get("failed")
            if reason:
                failed.add(engine)
                results[engine] = []
                if not quiet:
                    print(f"  {engine} is not available: {reason}", flush=True)
                continue
            results[engine].append(result)
        if not quiet:
            print(f"  round {round_index + 1} of {repeats} done", flush=True)
    return results


def ratio(base: list[dict[str, Any]], other: list[dict[str, Any]], key: str) -> str:
    """The median over the rounds of base / other, with the least and the most."""
    pairs = [b[key] / o[key] for b, o in zip(base, other, strict=False) if o[key] > 0]
    if not pairs:
        return "-"
    spread = f" ({min(pairs):.2f}-{max(pairs):.2f})" if len(pairs) > 1 else ""
    return f"{statistics.median(pairs):.2f}{spread}"


def report(results: dict[str, list[dict[str, Any]]], memory: dict[str, float], base: str) -> str:
    header = ["engine", "version", "M rows/s", f"{base} / it", "first batch ms", "peak MiB", "of it grown"]
    rows = []
    for engine, runs in results.items():
        if not runs:
            rows.append([engine, "-", "not available", "-", "-", "-", "-"])
            continue
        median = {
            key: statistics.median(run[key] for run in runs)
            for key in ("rows_per_s", "first_batch_s", "growth_mib")
        }
        tree = engine in memory
        rows.append([
            engine,
            runs[0]["version"],
            f"{median['rows_per_s'] / 1e6:.2f}",
            ratio(results.get(base, []), runs, "rows_per_s"),
            f"{median['first_batch_s'] * 1e3:.0f}",
            f"{memory[engine]:.0f}*" if tree else f"{statistics.median(run['peak_mib'] for run in runs):.0f}",
            "-" if tree else f"{median['growth_mib']:.0f}",
        ])  # fmt: skip
    lines = [harness.table(header, rows)]
    if memory:
        lines.append("* all processes together, shared pages once, from a run that is not timed")
    lines += [f"{engine}: {runs[0]['note']}" for engine, runs in results.items() if runs]
    return "\n".join(lines + stops(results))


def stops(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A sentence for each engine that was stopped."""
    lines = []
    for engine, runs in results.items():
        rows = [run["stopped_after_rows"] for run in runs if run["stopped_after_rows"] is not None]
        if rows:
            lines.append(
                f"{engine} was stopped by --limit-s in {len(rows)} of {len(runs)} rounds: "
                f"its figures are of the rows that it read until then, {min(rows):,} at least"
            )
    return lines


def limit_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit-s",
        type=float,
        default=LIMIT_S,
        help="in each run an engine is stopped after that many seconds of checking, and again of timing",
    )


def options(parser: argparse.ArgumentParser, repeats: int) -> None:
    """The options that this benchmark shares with next_batch.py and shuffle.py."""
    limit_option(parser)
    parser.add_argument("--files", choices=["tpchgen", "pyarrow", "both"], default="both")
    parser.add_argument("--columns", choices=list(lineitem.COLUMNS), default="four")
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds; every engine runs once in each")
    parser.add_argument("--engines", default=",".join(UNSHUFFLED), help=f"of {', '.join(MODULES)}")
    parser.add_argument("--base", default="penstock", help="the engine that the others are compared with")
    parser.add_argument("--scale", type=float, default=1, help="TPC-H scale factor")
    parser.add_argument(
        "--quick", action="store_true", help="one round on a tenth of the rows: shows that it runs"
    )
    parser.add_argument("--json", metavar="PATH", help="write every run's figures there")


def parse(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    args = parser.parse_args()
    if args.quick:
        args.scale, args.repeats = 0.1, 1
    engines = args.engines.split(",")
    for engine in engines:
        if engine not in MODULES:
            parser.error(f"no engine '{engine}'; there are {', '.join(MODULES)}")
    return args, engines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options(parser, repeats=5)
    parser.add_argument("--epochs", type=int, default=3, help="epochs timed in each run")
    args, engines = parse(parser)
    print(harness.machine())
    everything: dict[str, Any] = {"machine": harness.machine(), "arguments": vars(args), "files": {}}
    for kind in ["tpchgen", "pyarrow"] if args.files == "both" else [args.files]:
        path = lineitem.ensure(kind, args.scale)
        columns = lineitem.COLUMNS[args.columns]
        print(
            f"\n{lineitem.describe(path)}\n"
            f"{len(columns)} columns, batch {args.batch_size}, {args.workers} workers"
        )
        expected = harness.in_child("tabular", "expectation", path=str(path), columns=columns)
        run = {
            "paths": [str(path)],
            "columns": columns,
            "batch_size": args.batch_size,
            "workers": args.workers,
        }
        run |= {"epochs": args.epochs, "expected": expected, "limit_s": args.limit_s}

        def one(engine: str, run: dict[str, Any] = run) -> Any:
            return harness.in_child("tabular", "measure", engine=engine, **run)

        results = run_rounds(engines, args.repeats, one)
        memory = {
            engine: harness.in_child("tabular", "measure", sample_tree=True, engine=engine, **run)[
                "tree_peak_mib"
            ]
            for engine, runs in results.items()
            if runs and runs[0]["processes"]
        }
        print(report(results, memory, args.base))
        everything["files"][path.name] = {"runs": results, "tree_peak_mib": memory}
    harness.save_json(args.json, everything)


if __name__ == "__main__":
    main()
