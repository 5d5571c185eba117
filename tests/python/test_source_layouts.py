"""Files of one data set that differ in how they hold the same values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

TEXTS = ["a", None, "long enough to be no inline view", ""]
LAYOUTS = {
    "text": ([pa.string(), pa.large_string(), pa.string_view()], TEXTS),
    "binary": (
        [pa.binary(), pa.large_binary(), pa.binary_view()],
        [None if text is None else text.encode() for text in TEXTS],
    ),
    "numbers": ([pa.list_(pa.int64()), pa.large_list(pa.int64())], [[1, 2], None, [], [3]]),
    "texts": (
        [pa.list_(pa.string()), pa.large_list(pa.large_string())],
        [["a", "b"], None, [], ["c"]],
    ),
}


def tables(name: str) -> list[pa.Table]:
    types, values = LAYOUTS[name]
    return [
        pa.table({"x": pa.array(values, type), "row": range(4 * i, 4 * i + 4)})
        for i, type in enumerate(types)
    ]


def source_of(parts: list[pa.Table], kind: str, folder: Path) -> Any:
    """Files in that order, or an iterable of the tables."""
    if kind == "tables":
        return [*parts]
    paths = []
    for i, table in enumerate(parts):
        paths.append(str(folder / f"{i}.{kind}"))
        write = pq.write_table if kind == "parquet" else feather.write_feather
        write(table, paths[-1])
    return paths


@pytest.mark.parametrize("kind", ["parquet", "arrow", "tables"])
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_layouts_are_no_difference(tmp_path: Path, kind: str, name: str, is_reversed: bool) -> None:
    """Strings, binary and lists come as they are in any order of the files, also where rows are
    filtered out."""
    parts = tables(name)[:: -1 if is_reversed else 1]
    source = source_of(parts, kind, tmp_path)
    rows = [row for part in parts for row in part.to_pylist()]
    filters: list[tuple[Any, list[Any]]] = [
        (None, rows),
        (pc.field("row") > 1, [row for row in rows if row["row"] > 1]),
        (pc.field("x").is_valid(), [row for row in rows if row["x"] is not None]),
    ]
    for filter, expected in filters:
        loader = ps.Loader(source, filter=filter, batch_size=3, format="arrow")
        assert [row for batch in loader for row in batch.to_pylist()] == expected


@pytest.mark.parametrize("kind", ["parquet", "arrow", "tables"])
def test_ops_and_filters_take_any_layout(tmp_path: Path, kind: str) -> None:
    source = source_of(tables("text"), kind, tmp_path)
    op = ps.ops.lookup(["a"], missing=5) | ps.ops.fill_null(9)
    loader = ps.Loader(source, columns=["x"], transforms={"x": op}, format="numpy", batch_size=5)
    assert [code for batch in loader for code in batch["x"].tolist()] == [0, 9, 5, 5] * 3
    loader = ps.Loader(source, columns=["row"], filter=pc.field("x") == "a", format="numpy")
    assert [row for batch in loader for row in batch["row"].tolist()] == [0, 4, 8]


def test_other_differences_stay_errors(tmp_path: Path) -> None:
    zones = [pa.table({"x": pa.array([1], pa.timestamp("us", zone))}) for zone in ("UTC", "Europe/Berlin")]
    with pytest.raises(ValueError, match=r"1\.parquet': column 'x' is of type timestamp.*in the first file"):
        list(ps.Loader(source_of(zones, "parquet", tmp_path), format="numpy"))
    texts = [pa.table({"x": ["a"]}), pa.table({"x": [b"a"]})]
    with pytest.raises(ValueError, match=r"column 'x' is of type binary here and string in the first batch"):
        list(ps.Loader(texts, format="numpy"))
