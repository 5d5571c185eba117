"""Text files that do not fit into blocks of a megabyte, or are not what their names say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

MIB = 1 << 20


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(source: str, **options: Any) -> list[dict[str, Any]]:
    loader = ps.Loader(source, format="arrow", batch_size=100, **options)
    return [row for batch in loader for row in batch.to_pylist()]


def filler(size: int) -> list[dict[str, Any]]:
    """Rows that take `size` bytes of JSON lines, at least."""
    return [{"x": i, "text": "t" * 1000} for i in range(size // 1000)]


def test_named_columns_are_all_that_json_must_have(tmp_path: Path) -> None:
    """Other keys may come up behind the first block, and others still change their type."""
    rows = [{**row, "other": None} for row in filler(2 * MIB)]
    path = write_lines(tmp_path / "a.jsonl", [*rows, {"x": -1, "other": "text", "new": {"deep": [1]}}])
    assert [row["x"] for row in read(path, columns=["x"])] == [*range(len(rows)), -1]
    with pytest.raises(ValueError, match=r"b\.jsonl', record batch \d+: .*columns="):
        read(write_lines(tmp_path / "b.jsonl", [*filler(2 * MIB), {"x": 1, "new": 2}]))


@pytest.mark.parametrize("place", ["first", "last", "middle"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_rows_longer_than_a_block(tmp_path: Path, kind: str, place: str) -> None:
    """Each row comes once and in order, wherever the long one is."""
    rows = filler(3 * MIB)
    at = {"first": 0, "middle": len(rows) // 2, "last": len(rows)}[place]
    rows.insert(at, {"x": -1, "text": "y" * (3 * MIB)})
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        csv.write_csv(pa.Table.from_pylist(rows), path)
    else:
        write_lines(path, rows)
    assert read(str(path)) == rows


def test_rows_longer_than_the_budget_are_an_error(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [*filler(2 * MIB), {"x": -1, "text": "y" * (40 * MIB)}])
    with pytest.raises((ValueError, MemoryError), match=r"a\.jsonl.*memory budget"):
        read(path, memory_budget="48MB")


def test_quoted_newlines_at_the_end_of_a_block(tmp_path: Path) -> None:
    """A quoted text with line breaks may lie across two blocks."""
    rows = [{"x": i, "text": f'line one of {i}\n\n2,3\n"quoted"\n' * 5} for i in range(30_000)]
    path = tmp_path / "a.csv"
    csv.write_csv(pa.Table.from_pylist(rows), path)
    assert path.stat().st_size > 3 * MIB
    assert read(str(path)) == rows


def test_files_that_are_not_what_their_names_say(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"x": 1}, {"x": 2}]\n')
    with pytest.raises(ValueError, match=r"a\.json': this is not JSON lines, of which each is an object"):
        ps.Loader(str(tmp_path / "a.json"), format="numpy")
    pq.write_table(pa.table({"x": range(1000)}), tmp_path / "a.csv")
    with pytest.raises(
        ValueError, match=r"a\.csv' is a Parquet file, but its name is that of a CSV file; rename it"
    ):
        list(ps.Loader(str(tmp_path / "a.csv"), format="numpy"))


def test_text_files_have_no_state(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"x": 1}])
    with pytest.raises(ValueError, match="text files and Arrow streams have no state"):
        ps.Loader(path, format="numpy").state_dict()
