"""Invariant 7 and clauses 8, 9 and 16 over random files and options: exactly the rows that pyarrow reads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support import assert_within_budget, current_bytes, quiet_loader, write_row_groups

FILES = st.lists(st.lists(st.integers(0, 40), max_size=4), min_size=1, max_size=4)
OPTIONS = st.fixed_dictionaries(
    {
        "batch_size": st.sampled_from([1, 2, 3, 7, 16, 33, 64, 1000]),
        "drop_last": st.booleans(),
        "limit": st.none() | st.integers(0, 200),
        "num_workers": st.integers(0, 4),
        "prefetch_batches": st.sampled_from(["auto", 0, 1, 5]),
        "in_order": st.booleans(),
        "_direct_decode": st.booleans(),
        "columns": st.sampled_from([None, ["x"], ["s", "x"], ["b", "f", "d"]]),
    }
)
WRITING = st.fixed_dictionaries(
    {
        "use_dictionary": st.booleans(),
        "compression": st.sampled_from(["none", "snappy", "zstd"]),
        "data_page_size": st.sampled_from([64, 1 << 20]),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "write_statistics": st.booleans(),
    }
)


def make_table(first: int, rows: int, nulls_every: int) -> pa.Table:
    """Five columns, of which all but x and d have a null in every `nulls_every` rows (0: none)."""
    numbers = range(first, first + rows)

    def column(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(
            [v if not nulls_every or i % nulls_every else None for i, v in zip(numbers, values, strict=True)],
            kind,
        )

    return pa.table(
        {
            "x": pa.array(numbers, pa.int64()),
            "f": column([i / 4 for i in numbers], pa.float32()),
            "b": column([i % 3 == 0 for i in numbers], pa.bool_()),
            "s": column([f"text {i % 11}" for i in numbers], pa.string()),
            "d": pa.array([[i, -i] for i in numbers], pa.list_(pa.int16(), 2)),
        }
    )


def expected_table(folder: Path, options: dict[str, Any], low: int | None) -> pa.Table:
    """What pyarrow reads, with text looked up."""
    table = pa.concat_tables(pq.read_table(path) for path in sorted(folder.iterdir()))
    if low is not None:
        table = table.filter(pc.field("x") >= low)
    table = table.slice(0, options["limit"])
    codes = pc.index_in(table["s"], value_set=pa.array([f"text {i}" for i in range(11)]))
    table = table.set_column(table.column_names.index("s"), "s", pc.cast(codes, pa.int64()))
    return table.select(options["columns"]) if options["columns"] else table


# The same examples in each run; what fails is printed. It is not made smaller: that outlasts the watchdog.
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    files=FILES,
    writing=WRITING,
    options=OPTIONS,
    nulls_every=st.integers(0, 3),
    low=st.none() | st.integers(-1, 150),
    spare=st.sampled_from([0, 1, 50_000, 1 << 30]),
)
def test_exactly_the_rows_that_pyarrow_reads(
    files: list[list[int]],
    writing: dict[str, Any],
    options: dict[str, Any],
    nulls_every: int,
    low: int | None,
    spare: int,
) -> None:
    """Invariant 7, clauses 8, 9, 16: any files, any options, any budget that is enough: each row once,
    batches exact."""
    with tempfile.TemporaryDirectory() as name:
        folder, first = Path(name), 0
        for number, sizes in enumerate(files):
            write_row_groups(
                folder / f"{number}.parquet", make_table(first, sum(sizes), nulls_every), sizes, **writing
            )
            first += sum(sizes)
        arguments = {
            **options,
            "format": "arrow",
            "filter": None if low is None else pc.field("x") >= low,
            "transforms": {"s": ps.ops.lookup([f"text {i}" for i in range(11)])},
        }
        if options["columns"] is not None and "s" not in options["columns"]:
            arguments["transforms"] = None
        least = quiet_loader(name, **arguments).explain().to_dict()["least_budget_bytes"]
        loader = quiet_loader(name, memory_budget=least + spare, **arguments)
        expected = expected_table(folder, options, low)
        batch_size, rows = options["batch_size"], len(expected)
        sizes_expected = [batch_size] * (rows // batch_size)
        if rows % batch_size and not options["drop_last"]:
            sizes_expected.append(rows % batch_size)
        for _ in range(2):
            sizes_got: list[int] = []
            got: list[dict[str, Any]] = []
            for batch in loader:
                batch.validate(full=True)
                sizes_got.append(len(batch))
                got += batch.to_pylist()  # A copy.
            batch = None
            assert sizes_got == sizes_expected
            if options["in_order"]:
                assert got == expected.slice(0, sum(sizes_expected)).to_pylist()
            elif not options["drop_last"]:
                assert sorted(map(repr, got)) == sorted(map(repr, expected.to_pylist()))
        if low is None:
            assert len(loader) == len(sizes_expected)
        if sizes_expected:
            assert_within_budget(loader)
        loader.close()
        assert current_bytes(loader) == {}
