"""Lists of numbers and text in Parquet, which Penstock decodes itself: equal to what pyarrow reads."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ITEMS = [
    pa.int8(),
    pa.uint8(),
    pa.int16(),
    pa.uint16(),
    pa.int32(),
    pa.uint32(),
    pa.int64(),
    pa.uint64(),
    pa.float32(),
    pa.float64(),
]


@st.composite
def lists(draw: st.DrawFn) -> pa.Array:
    """Lists of one type of number, some of them missing, empty, or with missing items; in runs, so that
    levels come as runs and as bits."""
    item = draw(st.sampled_from(ITEMS))
    value = st.integers(0, 9) | st.none() if draw(st.booleans()) else st.integers(0, 120)
    row = st.lists(value, max_size=5) | st.none() if draw(st.booleans()) else st.lists(value, max_size=5)
    runs = draw(st.lists(st.tuples(row, st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=8))
    rows = [None if row is None else row * longer for row, longer, times in runs for _ in range(times)]
    return pa.array(rows, draw(st.sampled_from([pa.list_, pa.large_list]))(item))


@st.composite
def texts(draw: st.DrawFn) -> pa.Array:
    """Strings or binary in any layout: some missing, empty or long; few of them, or many."""
    value = st.text(max_size=3) | st.sampled_from(["", "x" * 40, "\u00e9" * 17])
    rows = draw(st.lists(value | st.none() if draw(st.booleans()) else value, min_size=1, max_size=30))
    array = pa.array(rows * draw(st.integers(1, 20)), pa.string())
    kinds = ["string", "large_string", "string_view", "binary", "large_binary", "binary_view"]
    kind: str = draw(st.sampled_from(kinds))
    return array.cast(pa.binary()).cast(getattr(pa, kind)())


write_options = st.fixed_dictionaries(
    {
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "data_page_size": st.sampled_from([40, 300, 1 << 20]),
        "write_batch_size": st.sampled_from([7, 1024]),
        "use_dictionary": st.booleans(),
        "compression": st.sampled_from(["none", "snappy", "zstd"]),
        "row_group_size": st.sampled_from([13, 100, 1 << 20]),
        "store_schema": st.booleans(),
    }
)


def rows_of(loader: ps.Loader) -> list[Any]:
    return [row for batch in loader for row in batch.column("x").to_pylist()]


@settings(max_examples=250, deadline=None)
@given(array=lists() | texts(), options=write_options, batch_size=st.integers(1, 90), skip=st.integers(0, 5))
def test_rows_are_what_pyarrow_reads(
    tmp_path_factory: pytest.TempPathFactory,
    array: pa.Array,
    options: dict[str, Any],
    batch_size: int,
    skip: int,
) -> None:
    """All rows in order, both ways; also from a state on, and of rows that a filter leaves."""
    path = tmp_path_factory.mktemp("pieces") / "x.parquet"
    table = pa.table({"x": array, "n": pa.array([row % 3 for row in range(len(array))])})
    pq.write_table(table, path, **options)
    want = pq.read_table(path)["x"].to_pylist()
    for direct in (True, False):
        same: dict[str, Any] = {"batch_size": batch_size, "format": "arrow", "num_workers": 1}
        with ps.Loader(path, columns=["x"], _direct_decode=direct, **same) as loader:
            assert rows_of(loader) == want
        with ps.Loader(path, filter=pc.field("n") == 1, _direct_decode=direct, **same) as loader:
            assert rows_of(loader) == want[1::3]
        with ps.Loader(path, columns=["x"], _direct_decode=direct, **same) as loader:
            given_rows = sum(len(batch) for batch in itertools.islice(loader, skip))
            state = loader.state_dict()
        if given_rows < len(want):
            with ps.Loader(path, columns=["x"], _direct_decode=direct, **same) as loader:
                loader.load_state_dict(state)
                assert rows_of(loader) == want[given_rows:]


@pytest.mark.parametrize(
    ("more", "fewer"),
    [([[1, 2]] * 300, [[1, 2]] * 200), ([[0], [1] * 999], [[0], [1] * 599])],
    ids=["rows", "items"],
)
def test_a_cut_off_column_names_itself(tmp_path: Path, more: Any, fewer: Any) -> None:
    """A chunk with fewer rows, or values, than its footer says is an error that names file, row group and
    column; no row is cut short in silence."""
    long, short = tmp_path / "long.parquet", tmp_path / "short.parquet"
    options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table({"x": more}), long, **options)
    pq.write_table(pa.table({"x": fewer}), short, **options)
    # The longer file's footer over the shorter one's pages, which begin at the same place.
    footer = long.read_bytes()
    footer = footer[len(footer) - 8 - int.from_bytes(footer[-8:-4], "little") :]
    pages = short.read_bytes()
    pages = pages[: len(pages) - 8 - int.from_bytes(pages[-8:-4], "little")]
    whole = long.stat().st_size - len(footer)
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(pages + bytes(whole - len(pages)) + footer)
    with (
        ps.Loader(damaged, batch_size=64) as loader,
        pytest.raises(OSError, match=r"damaged\.parquet', row group 0, column 'x': "),
    ):
        list(loader)
