"""The command line: ``penstock run`` and ``penstock inspect``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import penstock as ps
from penstock import _core

__all__ = ["main"]

_DONE, _FAILED, _INTERRUPTED = 0, 1, 130
# What the library says of its own arguments, at the end of a line.
_ADVICE_ON_NULLS = re.compile(r"; (use|pass) [^\n]*\bnulls=[^\n]*")
_RUN_FORMATS = ("numpy", "torch", "arrow")


class _NoColumnError(ValueError):
    """There is nothing that a batch could be made of."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default those of the process.

    Returns
    -------
    int
        0 done, 1 failed, 130 interrupted. Wrong usage ends in SystemExit(2).
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if getattr(args, "max_errors", None) is not None and args.on_error != "skip":
        parser.error("--max-errors is for --on-error skip")
    command: Callable[[argparse.Namespace], None] = args.command
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = _show_warning
            command(args)
            sys.stdout.flush()
    except KeyboardInterrupt:
        _say("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:  # Whoever read our output has had enough; the interpreter is not to try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except (ArithmeticError, ImportError, LookupError, MemoryError, OSError, RuntimeError) as error:
        return _fail(error)
    except (TypeError, ValueError) as error:
        return _fail(error)
    return _DONE


def _fail(error: Exception) -> int:
    text = error.strerror if isinstance(error, OSError) and error.strerror else None
    if text is None:
        text = str(error.args[0]) if len(error.args) == 1 else str(error)
    _say(f"error: {_ADVICE_ON_NULLS.sub('; pass --nulls mask', text) or type(error).__name__}")
    return _FAILED


def _say(text: str) -> None:
    """Print one line to stderr, whatever `text` has in it."""
    print("penstock:", " ".join(text.split()), file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")


def _run(args: argparse.Namespace) -> None:
    transforms = _hash_transforms(args)
    advice = " (see --hash-strings, --columns)"
    columns = args.columns or _columns_with_a_form(args, args.format, transforms, advice)
    loader = ps.Loader(
        args.paths,
        batch_size=args.batch_size,
        columns=columns,
        transforms=transforms,
        nulls=args.nulls,
        format=args.format,
        num_workers=args.workers,
        prefetch_batches="auto" if args.prefetch is None else args.prefetch,
        memory_budget=args.memory_budget,
        shuffle=args.shuffle,
        seed=args.seed,
        shuffle_window=args.shuffle_window,
        on_error=args.on_error,
        max_errors=args.max_errors,
        limit=args.limit,
    )
    with loader:
        for epoch in range(args.epochs):
            _run_epoch(loader, args, epoch)
        stats = loader.stats()
    print(json.dumps(stats.to_dict()) if args.json else str(stats))


def _run_epoch(loader: ps.Loader, args: argparse.Namespace, epoch: int) -> None:
    with _progress(loader, f"epoch {epoch + 1}/{args.epochs}") as show_rows:
        for batch in loader:
            if args.step_ms > 0:
                time.sleep(args.step_ms / 1000)
            show_rows(batch.num_rows if args.format == "arrow" else len(next(iter(batch.values()))))


@contextlib.contextmanager
def _progress(loader: ps.Loader, name: str) -> Iterator[Callable[[int], object]]:
    """Yield what is to be called with each batch's rows. In a pipe nothing is shown."""
    if not sys.stderr.isatty():
        yield lambda _rows: None
        return
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # No thread of its own.
    rows = loader.explain().to_dict()["rows"]
    with tqdm(total=rows, desc=name, unit=" rows", unit_scale=True) as bar:
        yield bar.update


def _hash_transforms(args: argparse.Namespace) -> dict[str, ps.ops.Op] | None:
    if args.hash_strings is None:
        return None
    columns = _core.summarize(args.paths, None)["columns"]
    wanted = [
        column["name"]
        for column in columns
        if "." not in column["name"] and column["type"].startswith(("string", "large_string", "binary"))
    ]
    if args.columns is not None:
        wanted = [name for name in wanted if name in args.columns]
    return {name: ps.ops.hash_bucket(args.hash_strings) for name in wanted} or None


def _columns_with_a_form(
    args: argparse.Namespace, format: Any, transforms: dict[str, ps.ops.Op] | None, advice: str = ""
) -> list[str] | None:
    """Return the columns that batches can have, None for all; say which were left out, with the advice."""

    def has_form(columns: list[str] | None) -> bool:
        chosen = {name: op for name, op in (transforms or {}).items() if columns is None or name in columns}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ps.Loader(
                    args.paths, columns=columns, transforms=chosen, format=format, num_workers=0
                ).close()
        except (TypeError, NotImplementedError):
            return False
        return True

    if has_form(None):
        return None
    names = list(dict.fromkeys(c["name"].split(".")[0] for c in _core.summarize(args.paths, None)["columns"]))
    kept = [name for name in names if has_form([name])]
    left_out = [name for name in names if name not in kept]
    if not kept:
        raise _NoColumnError(f"no column has a tensor form; `run` takes --hash-strings N: {', '.join(names)}")

    _say(f"left out, since they have no tensor form: {', '.join(left_out)}{advice}")
    return kept


def _inspect(args: argparse.Namespace) -> None:
    summary = _core.summarize(args.paths, None)
    explanation = _explain(args)
    if args.json:
        print(json.dumps({"files": summary, "explanation": explanation and explanation.to_dict()}))
    else:
        print(_summary_text(summary))
        if explanation is not None:
            print()
            print(explanation)


def _explain(args: argparse.Namespace) -> ps.Explanation | None:
    try:
        columns = _columns_with_a_form(args, "numpy", None)
    except _NoColumnError as error:  # The files can be shown all the same.
        _say(str(error))
        return None
    with ps.Loader(args.paths, batch_size=args.batch_size, columns=columns, format="numpy") as loader:
        return loader.explain()


def _summary_text(summary: dict[str, Any]) -> str:
    size = _core.format_bytes
    most_bytes = summary["largest_row_group_bytes"]
    lines = [
        f"{summary['files']} files, {summary['row_groups']} row groups, {summary['rows']} rows, "
        f"{size(summary['size_bytes'])}",
        f"row groups of {summary['smallest_row_group_rows']} to {summary['largest_row_group_rows']} rows"
        + (f", up to {size(most_bytes)} decoded" if most_bytes > 0 else ""),
        "",
    ]
    if summary["rows"] < 0:  # Text and streams tell only when they are read.
        lines = [f"{summary['files']} files, {size(summary['size_bytes'])}, rows not known ahead", ""]
    header = ("column", "type", "stored as", "nulls", "on disk", "decoded", "codec", "encodings")
    rows = [
        (
            column["name"],
            column["type"],
            column["physical_type"],
            "may" if column["is_nullable"] else "never",
            *_sizes_of(column),
            column["codecs"],
            column["encodings"],
        )
        for column in summary["columns"]
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        cells = zip(row, widths, strict=True)
        lines.append("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
    return "\n".join(lines)


def _sizes_of(column: dict[str, Any]) -> tuple[str, str]:
    """Return the bytes of a column on disk and decoded, which only the footers of Parquet tell."""
    if column["physical_type"] in ("", "partition"):
        return "-", "-"
    return _core.format_bytes(column["compressed_bytes"]), _core.format_bytes(column["uncompressed_bytes"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock", description="Training-data ingest with every byte counted."
    )
    parser.add_argument("--version", action="version", version=f"penstock {ps.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_inspect(commands)
    return parser


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder, a pattern or a URI")
    parser.add_argument("--json", action="store_true", help="the report as JSON")


def _add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="stream an epoch and report", description=_run_help)
    run.set_defaults(command=_run)
    _add_shared(run)
    run.add_argument("--batch-size", type=_at_least(1), default=1024, metavar="N", help="rows (1024)")
    run.add_argument("--columns", type=_names, metavar="A,B", help="by default all that have a tensor form")
    run.add_argument(
        "--hash-strings", type=_at_least(1), metavar="N", help="turn strings into numbers below N"
    )
    run.add_argument("--nulls", choices=("error", "mask"), default="error", help="missing values (error)")
    run.add_argument("--memory-budget", type=_size, default="1GiB", metavar="SIZE", help="(1GiB)")
    run.add_argument("--workers", type=_at_least(0), metavar="N", help="threads (as many as cores)")
    run.add_argument("--prefetch", type=_at_least(0), metavar="N", help="finished batches ahead (auto)")
    run.add_argument(
        "--on-error",
        choices=["raise", "skip"],
        default="raise",
        help="skip: leave out what is bad, and say so",
    )
    run.add_argument("--max-errors", type=int, metavar="N", help="with --on-error skip: the most per epoch")
    run.add_argument("--shuffle", action="store_true", help="another order in each epoch")
    run.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="of that order (0)")
    run.add_argument(
        "--shuffle-window",
        type=_size,
        default="256MiB",
        metavar="SIZE",
        help="memory in which rows are mixed (256MiB)",
    )
    run.add_argument("--limit", type=_at_least(0), metavar="N", help="rows of an epoch")
    run.add_argument(
        "--step-ms",
        type=_milliseconds,
        default=0.0,
        metavar="MS",
        help="sleep that long after each batch (0)",
    )
    run.add_argument("--epochs", type=_at_least(1), default=1, metavar="N", help="(1)")
    run.add_argument("--format", choices=_RUN_FORMATS, default="numpy", help="(numpy)")


_run_help = (
    "Stream PATHs in batches, as a training loop would, and report where the time and the memory went."
)


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="show files and what a batch costs",
        description="Show files, row groups and column sizes, what one batch costs and the least budget.",
    )
    inspect.set_defaults(command=_inspect)
    _add_shared(inspect)
    inspect.add_argument("--batch-size", type=_at_least(1), default=1024, metavar="N", help="rows (1024)")


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        return number

    return parse


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {text}")
    return value


def _size(text: str) -> int:
    try:
        return _core.parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of names such as a,b")
    return names


if __name__ == "__main__":
    sys.exit(main())
