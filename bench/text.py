"""Documents per second from Parquet to ragged tensors: Penstock and its peers, in one run.

    bench/run text                # a million documents, five rounds
    bench/run text --quick        # a tenth of them, one round

The corpus is real text: the paragraphs of the text files on this machine (documentation, licences, source
code), as int32 tokens: each word's rank among the words of the corpus. Lists arrive as two tensors, values
and offsets. How it is measured: see tabular.py.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import lineitem
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tabular

SUFFIXES = (".py", ".rst", ".txt", ".md", ".h", ".html")
ROOTS = [
    "/usr/share/doc",
    "/usr/lib/python3.11",
    "/usr/lib/python3",
    "/usr/include",
    sys.prefix + "/lib",
    "/usr/share",
]
WORD = re.compile(r"\w+|[^\w\s]")
MOST_FILE_BYTES = 1 << 20
LEAST_WORDS = 8
ENGINES = ["penstock", "arrow-hand", "arrow-torch", "torch", "datasets-arrow", "datasets"]


def paragraphs() -> Iterator[list[str]]:
    """The words of each paragraph of the text files found, file by file in the order of their names."""
    seen: set[tuple[int, int]] = set()
    for root in ROOTS:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder) / name
                if not name.endswith(SUFFIXES) and "copyright" not in name:
                    continue
                try:
                    status = path.stat()
                    if status.st_size > MOST_FILE_BYTES or (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                    text = path.read_text(errors="replace")
                except OSError:
                    continue
                for paragraph in text.split("\n\n"):
                    words = WORD.findall(paragraph)
                    if len(words) >= LEAST_WORDS:
                        yield words


def ensure(documents: int) -> Path:
    """The corpus of that many documents, made now if it is not there."""
    path = lineitem.DATA / f"corpus-{documents}.parquet"
    if path.exists():
        return path
    lineitem.DATA.mkdir(parents=True, exist_ok=True)
    print(f"making {path.name} from the text files of this machine ...", flush=True)
    ids: dict[str, int] = {}
    counts: Counter[int] = Counter()
    tokens: list[np.ndarray] = []
    for words in paragraphs():
        tokens.append(np.array([ids.setdefault(word, len(ids)) for word in words], np.int32))
        counts.update(tokens[-1].tolist())
        if len(tokens) == documents:
            break
    found = len(tokens)
    if found < documents:
        print(f"only {found:,} paragraphs were found; they are taken again until there are enough")
        tokens = [tokens[i % found] for i in range(documents)]
    ranks = np.empty(len(ids), np.int32)
    ranks[[number for number, _ in counts.most_common()]] = np.arange(len(ids))
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in tokens])])
    values = ranks[np.concatenate(tokens)]
    lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values))
    table = pa.table({"tokens": lists.cast(pa.list_(pa.int32()))})
    unfinished = path.with_suffix(".tmp")
    pq.write_table(table, unfinished, row_group_size=1 << 17)
    unfinished.replace(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--base", default="penstock")
    tabular.limit_option(parser)
    parser.add_argument("--quick", action="store_true", help="one round on a tenth of the documents")
    parser.add_argument("--json", metavar="PATH", help="write every run's figures there")
    args = parser.parse_args()
    if args.quick:
        args.documents, args.repeats, args.epochs = 100_000, 1, 1
    print(harness.machine())
    path = ensure(args.documents)
    meta = pq.read_metadata(path)
    mib = path.stat().st_size / harness.MIB
    print(
        f"{path.name}: {meta.num_rows:,} documents, {mib:.0f} MiB, "
        f"batch {args.batch_size}, {args.workers} workers"
    )
    expected = harness.in_child("tabular", "expectation", path=str(path), columns=["tokens"])
    run: dict[str, Any] = {
        "paths": [str(path)],
        "columns": ["tokens"],
        "batch_size": args.batch_size,
        "workers": args.workers,
        "epochs": args.epochs,
        "expected": expected,
        "limit_s": args.limit_s,
    }

    def one(engine: str) -> Any:
        return harness.in_child("tabular", "measure", engine=engine, **run)

    results = tabular.run_rounds(args.engines.split(","), args.repeats, one)
    memory = {
        engine: harness.in_child("tabular", "measure", sample_tree=True, engine=engine, **run)[
            "tree_peak_mib"
        ]
        for engine, runs in results.items()
        if runs and runs[0]["processes"]
    }
    print(tabular.report(results, memory, args.base))
    harness.save_json(args.json, {"machine": harness.machine(), "arguments": vars(args), "runs": results})


if __name__ == "__main__":
    main()
