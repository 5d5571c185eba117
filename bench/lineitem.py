"""Make the TPC-H lineitem table that the tabular benchmarks read.

    bench/run lineitem              # scale factor 1: 6 million rows
    bench/run lineitem --scale 10

Two files of the same rows land in bench/data (not under version control), because writers differ and so
do readers' fast paths:

* ``lineitem-sf1-tpchgen.parquet``: as tpchgen-cli writes it. Required columns (no null can occur), ZSTD,
  row groups of 16 MB.
* ``lineitem-sf1-pyarrow.parquet``: the same table rewritten by pyarrow with its defaults. Optional columns
  (none is null, but the reader must look), Snappy, dictionaries, a million rows to the row group.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DATA = Path(__file__).resolve().parent / "data"

FOUR = ["l_orderkey", "l_partkey", "l_suppkey", "l_linenumber"]
DECIMALS = ["l_quantity", "l_extendedprice", "l_discount", "l_tax"]
DATES = ["l_shipdate", "l_commitdate", "l_receiptdate"]
TEXT = ["l_returnflag", "l_linestatus", "l_shipinstruct", "l_shipmode", "l_comment"]
COLUMNS = {"four": FOUR, "eleven": FOUR + DECIMALS + DATES, "sixteen": FOUR + DECIMALS + DATES + TEXT}

ROW_GROUP_BYTES = "16MB"
COMPRESSION = "ZSTD(1)"


def path_of(kind: str, scale: float = 1) -> Path:
    """The file of one kind, ``tpchgen`` or ``pyarrow``; it need not exist yet."""
    return DATA / f"lineitem-sf{scale:g}-{kind}.parquet"


def ensure(kind: str, scale: float = 1) -> Path:
    """The file of one kind, made now if it is not there."""
    path = path_of(kind, scale)
    if not path.exists():
        DATA.mkdir(parents=True, exist_ok=True)
        print(f"making {path.name} ...", flush=True)
        _generate(path, scale) if kind == "tpchgen" else _rewrite(ensure("tpchgen", scale), path)
    return path


def _generate(path: Path, scale: float) -> None:
    tool = shutil.which("tpchgen-cli", path=sysconfig.get_path("scripts")) or shutil.which("tpchgen-cli")
    if tool is None:
        raise SystemExit("tpchgen-cli is not installed: pip install -r bench/requirements.txt")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [tool, "parquet", "--scale-factor", f"{scale:g}", "--tables", "lineitem"]
        command += [
            "--compression",
            COMPRESSION,
            "--row-group-bytes",
            ROW_GROUP_BYTES,
            "--output-dir",
            folder,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (Path(folder) / "lineitem.parquet").replace(path)


def _rewrite(source: Path, path: Path) -> None:
    """Writes `source` again with pyarrow's defaults, a few row groups at a time."""
    file = pq.ParquetFile(source)
    schema = pa.schema([field.with_nullable(True) for field in file.schema_arrow])
    unfinished = path.with_suffix(".tmp")
    rows_at_once = 1 << 20  # What pq.write_table puts into a row group by default.
    with pq.ParquetWriter(unfinished, schema) as writer:
        pending: list[pa.RecordBatch] = []
        for batch in file.iter_batches(batch_size=rows_at_once):
            pending.append(batch)
            if sum(b.num_rows for b in pending) < rows_at_once:
                continue
            table = pa.Table.from_batches(pending).cast(schema)
            writer.write_table(table.slice(0, rows_at_once))
            pending = table.slice(rows_at_once).to_batches()
        if pending:
            writer.write_table(pa.Table.from_batches(pending).cast(schema))
    unfinished.replace(path)


def describe(path: Path) -> str:
    """One line for people: rows, row groups, bytes, how it is written."""
    meta = pq.ParquetFile(path).metadata
    column = meta.row_group(0).column(0)
    optional = pq.ParquetFile(path).schema.column(0).max_definition_level > 0
    return (
        f"{path.name}: {meta.num_rows:,} rows, {meta.num_row_groups} row groups, "
        f"{path.stat().st_size / 2**20:.0f} MiB, {column.compression}, "
        f"{'optional' if optional else 'required'} columns, {'/'.join(column.encodings)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1, help="TPC-H scale factor; 1 is 6 million rows")
    parser.add_argument("--force", action="store_true", help="make the files again")
    args = parser.parse_args()
    for kind in ("tpchgen", "pyarrow"):
        if args.force:
            path_of(kind, args.scale).unlink(missing_ok=True)
        print(describe(ensure(kind, args.scale)))


if __name__ == "__main__":
    main()
