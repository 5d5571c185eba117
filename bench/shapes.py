"""Ten shapes of data for memory.py, and the small files and wide table for overhead.py. Made with a fixed
seed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from lineitem import DATA

Make = Callable[[int, np.random.Generator], pa.Table]


@dataclass(frozen=True)
class Shape:
    """One kind of data, and how it is read."""

    what: str
    make: Make
    rows: int
    batch_size: int
    files: int = 1
    row_group_rows: int = 1 << 18
    hashed: tuple[str, ...] = ()
    nulls: Any = "error"
    write: dict[str, Any] = field(default_factory=dict)


def ints(columns: int) -> Make:
    return lambda rows, rng: pa.table({f"i{c}": rng.integers(0, 1 << 40, rows) for c in range(columns)})


def floats(columns: int) -> Make:
    return lambda rows, rng: pa.table({f"f{c}": rng.random(rows, np.float32) for c in range(columns)})


def decimals(rows: int, rng: np.random.Generator) -> pa.Table:
    cents = pa.array(rng.integers(0, 10**7, rows)).cast(pa.decimal128(19, 0)).cast(pa.decimal128(21, 2))
    prices = pc.multiply(cents, pa.scalar(Decimal("0.01"))).cast(pa.decimal128(15, 2), safe=False)
    return pa.table({"price": prices, "cost": prices[::-1]})


def nullable(rows: int, rng: np.random.Generator) -> pa.Table:
    return pa.table(
        {f"n{c}": pa.array(rng.integers(0, 1000, rows), mask=rng.random(rows) < 0.3) for c in range(6)}
    )


def strings(rows: int, rng: np.random.Generator) -> pa.Table:
    return pa.table(
        {"user": np.char.add("user-", rng.integers(0, 1 << 30, rows).astype(str)), "y": rng.random(rows)}
    )


SHAPES = {
    "narrow-int": Shape("2 int64", ints(2), 4_000_000, 8192),
    "wide-int": Shape("100 int64", ints(100), 100_000, 4096, row_group_rows=1 << 14),
    "wide-float": Shape("500 float32", floats(500), 50_000, 1024, row_group_rows=1 << 13),
    "decimal": Shape("2 decimal(15,2)", decimals, 2_000_000, 8192),
    "nullable": Shape("6 int64, 30 % null", nullable, 1_000_000, 8192, nulls={f"n{c}": 0 for c in range(6)}),
    "string-hashed": Shape("string hashed, float64", strings, 1_000_000, 8192, hashed=("user",)),
    "small-batch": Shape("4 int64, batch 16", ints(4), 400_000, 16),
    "large-batch": Shape("4 int64, batch 1 M", ints(4), 6_000_000, 1_000_000),
    "many-files": Shape("4 int64, 500 files", ints(4), 2_000, 8192, files=500),
    "large-row-group": Shape("8 int64, one row group", ints(8), 4_000_000, 8192, row_group_rows=1 << 23),
}


def _folder(name: str, scale: float) -> Path:
    return DATA / "shapes" / f"{name}-{scale:g}"


def paths_of(name: str, scale: float = 1) -> list[str]:
    """The files of one shape, made before by `ensure`."""
    return sorted(str(path) for path in _folder(name, scale).glob("*.parquet"))


def ensure(name: str, scale: float = 1) -> list[str]:
    """The files of one shape, made now if they are not there. `scale` multiplies the rows, or the files."""
    shape = SHAPES[name]
    many = shape.files > 1
    rows = shape.rows if many else max(1000, int(shape.rows * scale))
    files = max(2, int(shape.files * scale)) if many else 1
    return write_files(_folder(name, scale), shape.make, rows, files, shape.row_group_rows)


def small_files(count: int) -> list[str]:
    """`count` files of 100 rows of ten columns."""
    return write_files(DATA / f"small-files-{count}", ints(10), 100, count, 1 << 18)


def wide_table(columns: int, rows: int = 20_000) -> list[str]:
    """One file of `columns` float32 columns."""
    return write_files(DATA / f"wide-{columns}", floats(columns), rows, 1, 1 << 13)


def write_files(folder: Path, make: Make, rows: int, files: int, row_group_rows: int) -> list[str]:
    """Writes the folder whole or not at all; leaves one that is there as it is."""
    if not folder.exists():
        unfinished = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        table = make(rows, np.random.default_rng(0))
        first = unfinished / "part-00000.parquet"
        pq.write_table(table, first, row_group_size=row_group_rows)
        for index in range(1, files):
            shutil.copyfile(first, unfinished / f"part-{index:05}.parquet")
        unfinished.rename(folder)
    return sorted(str(path) for path in folder.glob("*.parquet"))
