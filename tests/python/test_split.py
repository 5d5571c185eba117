"""Row identity (ps.ROW_ID, ps.FILE) and ps.split: every row can be traced back, and is in one part alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support import quiet_loader, rows_of, write_row_groups

SIZES = [700, 1, 0, 1299]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three files of 2,000 rows; x counts through all of them."""
    paths = []
    for i in range(3):
        x = np.arange(2000 * i, 2000 * (i + 1))
        table = pa.table({"x": x, "text": [f"row {value}" for value in x]})
        paths.append(write_row_groups(tmp_path / f"{i}.parquet", table, SIZES))
    return paths


def traced(loader: ps.Loader) -> list[tuple[int, str, int]]:
    """(x, file, row in its file) of all rows."""
    paths = loader.schema[ps.FILE].vocabulary.to_pylist()
    rows = []
    for batch in loader:
        codes = [paths[code] for code in batch[ps.FILE].tolist()]
        rows += list(zip(batch["x"].tolist(), codes, batch[ps.ROW_ID].tolist(), strict=True))
    return rows


@pytest.mark.parametrize("options", [{}, {"_direct_decode": False}, {"num_workers": 0}, {"in_order": False}])
@pytest.mark.parametrize("rows", ["all", "filter", "sample"])
def test_every_row_can_be_traced_back(files: list[str], rows: str, options: dict[str, Any]) -> None:
    source: Any = ps.split(files, [0.3, 0.7], seed=3)[0] if rows == "sample" else files
    filter_ = pc.bit_wise_and(pc.field("x"), 7) == 3 if rows == "filter" else None
    columns = ["x", ps.ROW_ID, ps.FILE]
    found = traced(quiet_loader(source, batch_size=64, columns=columns, filter=filter_, **options))
    assert len(found) == {"all": 6000, "filter": 750}.get(rows, len(found))
    assert all(path == files[x // 2000] and row == x % 2000 for x, path, row in found)
    assert len({x for x, _, _ in found}) == len(found)


def test_identity_without_any_other_column(files: list[str]) -> None:
    batch = next(iter(quiet_loader(files, batch_size=6000, columns=[ps.ROW_ID])))
    assert batch[ps.ROW_ID].tolist() == [*range(2000)] * 3


def test_identity_as_arrow(files: list[str]) -> None:
    loader = quiet_loader(files, batch_size=6000, columns=[ps.FILE, ps.ROW_ID], format="arrow")
    batch = next(iter(loader))
    assert batch.schema.field(ps.FILE).type == pa.dictionary(pa.int32(), pa.string())
    assert batch[ps.FILE].to_pylist() == [path for path in files for _ in range(2000)]


def test_parts_are_disjoint_complete_and_of_the_size_asked_for(files: list[str]) -> None:
    parts = ps.split(files, [0.8, 0.15, 0.05], seed=1)
    rows = [rows_of(quiet_loader(part, columns=["x"], batch_size=100)) for part in parts]
    assert sorted(row for part in rows for row in part) == [*range(6000)]
    assert [pytest.approx(len(part) / 6000, abs=0.02) for part in rows] == [0.8, 0.15, 0.05]
    assert all(part == sorted(part) for part in rows)  # In the order of the source.


def test_a_part_is_the_same_whatever_else_changes(files: list[str]) -> None:
    part = ps.split(files, [0.5, 0.5], seed=9)[1]
    first = rows_of(quiet_loader(part, batch_size=7, columns=["x"]))
    loader = quiet_loader(part, batch_size=512, columns=["x"], num_workers=2, memory_budget="2MiB")
    assert rows_of(loader) == first == rows_of(loader)
    assert rows_of(pickle.loads(pickle.dumps(loader))) == first
    filtered = quiet_loader(part, columns=["x"], filter=pc.field("x") < 1000)
    assert rows_of(filtered) == [x for x in first if x < 1000]
    assert rows_of(quiet_loader(ps.split(files, [0.5, 0.5], seed=8)[1], columns=["x"])) != first


def test_the_length_of_a_part_is_known_ahead(files: list[str]) -> None:
    loader = quiet_loader(ps.split(files, [0.3])[0], batch_size=10, columns=["x"])
    assert len(loader) == sum(1 for _ in loader)
    assert loader.explain().to_dict()["rows"] == loader.stats().to_dict()["rows"]


@pytest.mark.parametrize(
    ("fractions", "message"),
    [([0.5, 0.6], "more than 1"), ([0.0], "above 0"), ([], "list of numbers"), ("ab", "list of numbers"),
     ([True], "no number"), ([1.5], "at most 1")],
)  # fmt: skip
def test_wrong_fractions(fractions: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        ps.split("x", fractions)


def numbered_batches() -> Iterator[pa.RecordBatch]:
    yield pa.record_batch({"x": range(10)})


@pytest.mark.parametrize(
    "make",
    [
        numbered_batches,
        lambda: iter([pa.table({"x": [1]})]),
        lambda: pa.RecordBatchReader.from_batches(pa.schema({"x": pa.int64()}), numbered_batches()),
    ],
    ids=["generator", "iterator", "reader"],
)
def test_what_can_be_read_once_is_not_split(make: Callable[[], Any]) -> None:
    """The loaders of its parts would take rows from each other."""
    with pytest.raises(TypeError, match=r"can be read once, .* write it to files, or read"):
        ps.split(make(), [0.9, 0.1])


def test_an_iterable_that_begins_anew_is_split() -> None:
    class Tables:
        def __iter__(self) -> Iterator[pa.RecordBatch]:
            return numbered_batches()

    parts = ps.split(Tables(), [0.5, 0.5])
    assert sorted(row for part in parts for row in rows_of(quiet_loader(part))) == [*range(10)]


def test_a_part_is_not_split_again() -> None:
    with pytest.raises(TypeError, match="all fractions"):
        ps.split(ps.split("x", [0.5])[0], [0.5])
