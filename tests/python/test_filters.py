"""Filters and hive partitions: the rows of pyarrow.dataset, in the same order.

Of a data set in memory: over files pyarrow 26 leaves out row groups by bounds that say nothing of NaN.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import data_makers as make
import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.dataset as ds
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from conftest import rows_of
from support import assert_within_budget

ROWS = 3000


def write_random(folder: Path, seed: int) -> tuple[list[str], pa.Table]:
    """Three files of many small row groups, partly sorted so that statistics prune some; with nulls and
    NaN."""
    random = make.seeded("filter", seed)
    floats = random.normal(0, 10, ROWS)
    floats[random.random(ROWS) < 0.05] = np.nan
    table = pa.table(
        {
            "row": np.arange(ROWS),
            "sorted": np.arange(ROWS) // 7,
            "i": pa.array(random.integers(-50, 50, ROWS), pa.int16(), mask=random.random(ROWS) < 0.1),
            "f": pa.array(floats, mask=random.random(ROWS) < 0.1),
            "s": pa.array(random.choice(["ant", "bee", "cat", "dog"], ROWS), mask=random.random(ROWS) < 0.1),
            "b": pa.array(random.random(ROWS) < 0.5, mask=random.random(ROWS) < 0.1),
            "t": pa.array(np.sort(random.integers(0, 10**6, ROWS)), pa.timestamp("s")),
            "d": pa.array(random.integers(0, 300, ROWS)).cast(pa.decimal128(24, 2)),
        }
    )
    paths = []
    for i, (start, end) in enumerate(make.cut(ROWS, 1000)):
        paths.append(str(folder / f"{i}.parquet"))
        size = int(random.integers(20, 300))
        pq.write_table(table.slice(start, end - start), paths[-1], row_group_size=size)
    return paths, table


def random_filter(random: np.random.Generator, depth: int = 0) -> pc.Expression:
    """A condition over the columns of write_random()."""
    i, f, s, b = pc.field("i"), pc.field("f"), pc.field("s"), pc.field("b")
    low = int(random.integers(-60, 60))
    leaves = [
        i > low,
        i == low,
        i.isin([low, low + 1, 40]),
        i + 3 <= low,
        f < float(low) / 3,
        (f != 0.5) | f.is_nan(),
        s == str(random.choice(["ant", "bee", "elk"])),
        s.is_null(),
        ~s.isin(["ant", "cat"]),
        b,
        ~b,
        b.is_valid(),
        (pc.field("sorted") >= 50 + low) & (pc.field("sorted") < 250 + low),
        pc.field("t") < pa.scalar(int(random.integers(0, 10**6)), pa.timestamp("s")),
        pc.field("d") >= pa.scalar(low + 60).cast(pa.decimal128(24, 2)),
        pc.match_substring(s, "a"),
    ]
    if depth < 2 and random.random() < 0.5:
        one, other = random_filter(random, depth + 1), random_filter(random, depth + 1)
        return one & other if random.random() < 0.5 else one | other
    return leaves[int(random.integers(len(leaves)))]


@pytest.mark.parametrize("seed", range(6))
def test_random_filters_keep_the_rows_of_pyarrow_dataset(tmp_path: Path, seed: int) -> None:
    """7: with a filter each row for which it is true comes exactly once, in order, whatever statistics
    prune."""
    paths, table = write_random(tmp_path, seed)
    dataset = ds.dataset(table)
    random = make.seeded("expressions", seed)
    for _ in range(12):
        condition = random_filter(random)
        print(condition)
        expected = dataset.to_table(columns=["row", "i"], filter=condition)
        options: dict[str, Any] = {
            "columns": ["row", "i"],
            "filter": condition,
            "nulls": "mask",
            "format": "numpy",
        }
        loader = ps.Loader(paths, batch_size=int(random.integers(1, 700)), num_workers=seed % 3, **options)
        batches = [{name: values.copy() for name, values in batch.items()} for batch in loader]
        got = make.joined(batches)
        assert (got["row"].tolist() if got else []) == expected["row"].to_pylist()
        values, missing = make.tensor_form(expected["i"].combine_chunks())
        if got:
            make.assert_same_bits(got["i"], values)
            make.assert_same_bits(got["i_mask"], missing)
        sizes = [len(batch["row"]) for batch in batches]
        assert len(set(sizes[:-1])) <= 1, "all batches but the last are full"


def test_row_groups_that_cannot_match_are_not_read(tmp_path: Path) -> None:
    """Row groups are left out by their statistics, files by their partition values: their bytes are not
    read."""
    for part in (1, 2):
        (tmp_path / f"part={part}").mkdir()
        table = pa.table({"x": np.arange(100_000), "noise": make.seeded("noise").random(100_000)})
        pq.write_table(table, tmp_path / f"part={part}" / "a.parquet", row_group_size=10_000)

    def bytes_read(condition: pc.Expression | None) -> int:
        loader = ps.Loader(tmp_path, format="numpy", filter=condition, num_workers=0)
        for _ in loader:
            pass
        return int(loader.stats().to_dict()["stages"]["read"]["bytes"])

    everything = bytes_read(None)
    assert bytes_read(pc.field("x") >= 95_000) < everything / 4
    assert bytes_read((pc.field("part") == 2) & (pc.field("x") < 5000)) < everything / 8
    assert bytes_read(pc.field("part") == 2) < everything * 0.6
    assert bytes_read(pc.field("x") < 0) < everything / 10


def test_nan_does_not_hide_rows_from_a_filter(tmp_path: Path) -> None:
    """Statistics that are blind to NaN leave no row group out that has a match."""
    values = [np.nan, 1.0, np.nan, 2.0, np.nan, np.nan, 5.0, 6.0]
    table = pa.table({"f": values})
    pq.write_table(table, tmp_path / "n.parquet", row_group_size=2)
    f = pc.field("f")
    for condition in (f.is_nan(), f != 1.0, ~(f < 3.0), ~(f >= 5.0), f > 1.5, f == 5.0, pc.invert(f == 6.0)):
        expected = ds.dataset(table).to_table(filter=condition)["f"].to_numpy()
        got = make.joined(ps.Loader(tmp_path, format="numpy", filter=condition)) or {"f": np.empty(0)}
        make.assert_same_bits(got["f"], expected, str(condition))


def test_filter_columns_need_not_be_in_columns(tmp_path: Path, tensor_format: str) -> None:
    """A filter may use columns that are not wanted, of any type, and those under a transform in their own
    form."""
    paths, table = write_random(tmp_path, 0)
    condition = (pc.field("s") == "bee") & (pc.field("row") < 2000)
    rows = table.filter(condition)["row"].to_pylist()
    loader = ps.Loader(paths, columns=["sorted"], filter=condition, format=tensor_format)
    assert rows_of(loader, "sorted") == [row // 7 for row in rows]
    assert list(loader.schema) == ["sorted"]
    scaled = {"row": ps.ops.scale(mean=10_000)}
    loader = ps.Loader(paths, columns=["row"], filter=condition, transforms=scaled, format=tensor_format)
    assert rows_of(loader, "row") == [row - 10_000 for row in rows]
    limited = ps.Loader(paths, columns=["row"], filter=condition, limit=5, batch_size=2, format=tensor_format)
    assert [len(batch["row"]) for batch in limited] == [2, 2, 1]
    assert rows_of(limited, "row") == rows[:5]


def test_the_number_of_batches_is_not_known_with_a_filter(numbers: str) -> None:
    """len() raises TypeError with a filter, and says why; without rows there is no batch."""
    loader = ps.Loader(numbers, filter=pc.field("x") > 10**6, format="numpy")
    with pytest.raises(TypeError, match="filter"):
        len(loader)
    assert list(loader) == []
    dropped = ps.Loader(numbers, filter=pc.field("x") < 25, batch_size=10, drop_last=True, format="numpy")
    assert rows_of(dropped) == list(range(20))


# --- Hive partitions --------------------------------------------------------------------------------------

KEYS = [
    "year=2023/city=Paris",
    "year=2024/city=S%C3%A3o%20Paulo",
    "year=2024/city=__HIVE_DEFAULT_PARTITION__",
    "year=2025/city=a%2Fb%3Dc",
]
CITIES = ["Paris", "São Paulo", None, "a/b=c"]


@pytest.fixture
def hive(tmp_path: Path) -> Path:
    """A folder of four files of three rows: x, and below year=int/city=string."""
    for i, key in enumerate(KEYS):
        (tmp_path / key).mkdir(parents=True)
        pq.write_table(pa.table({"x": [10 * i, 10 * i + 1, 10 * i + 2]}), tmp_path / key / "part.parquet")
    return tmp_path


def test_partitions_become_columns(hive: Path, tensor_format: str) -> None:
    """key=value folders are columns behind the files': numbers int32, escapes undone, the default partition
    null."""
    vocabulary = sorted(city for city in CITIES if city)
    chain = ps.ops.lookup(vocabulary) | ps.ops.fill_null(-1)
    loader = ps.Loader(hive, transforms={"city": chain}, batch_size=5, format=tensor_format)
    assert list(loader.schema) == ["x", "year", "city"]
    assert loader.schema["year"].dtype == "int32"
    got = make.joined(loader)
    by_x = {x: (year, city) for x, year, city in zip(*(got[name].tolist() for name in got), strict=True)}
    for i, city in enumerate(CITIES):
        code = -1 if city is None else vocabulary.index(city)
        assert [by_x[10 * i + j] for j in range(3)] == [(int(KEYS[i][5:9]), code)] * 3
    assert len(by_x) == 12
    with pytest.raises(ValueError, match=r"column 'city'.*null"):
        list(ps.Loader(hive, transforms={"city": ps.ops.hash_bucket(9)}, format=tensor_format))


def write_kind(table: pa.Table, path: Path, kind: str) -> None:
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=3)
    elif kind == "arrow":
        feather.write_feather(table, str(path), chunksize=3)
    else:
        csv.write_csv(table, path)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv"])
@pytest.mark.parametrize("format", ["torch", "numpy", "arrow", "pandas"])
def test_string_partitions_are_string_columns(tmp_path: Path, kind: str, format: Any) -> None:
    """Without an op they come as any column of strings does, in every format: beside columns of the file,
    alone, and where rows are filtered out."""
    for i, key in enumerate(KEYS):
        (tmp_path / key).mkdir(parents=True)
        table = pa.table({"x": range(5 * i, 5 * i + 5), "text": pa.array(list("abcde")).dictionary_encode()})
        write_kind(table, tmp_path / key / f"part.{kind}", kind)

    def values(column: str, **options: Any) -> list[Any]:
        loader = ps.Loader(tmp_path, format=format, batch_size=7, **options)
        assert str(loader.schema[column].arrow_type) == "large_string"
        arrays = [pa.array(batch[column], pa.large_string()) for batch in loader]
        return [value for array in arrays for value in array.to_pylist()]

    masked: dict[str, Any] = {"nulls": "mask"} if format in ("torch", "numpy") else {}
    every = [city for city in CITIES for _ in range(5)]
    assert values("city", columns=["x", "city", "year"], **masked) == every
    assert values("city", columns=["city"], **masked) == every
    assert values("city", columns=["city", "x"], filter=pc.field("x") >= 7, **masked) == every[7:]


def test_missing_string_partitions_follow_the_null_policy(hive: Path, tensor_format: str) -> None:
    filled = ps.Loader(hive, nulls={"city": "nowhere"}, format=tensor_format)
    cities = [value for batch in filled for value in batch["city"].to_pylist()]
    assert cities == [city or "nowhere" for city in CITIES for _ in range(3)]
    with pytest.raises(ValueError, match=r"city=__HIVE_DEFAULT_PARTITION__.*column 'city'.*missing value"):
        list(ps.Loader(hive, format=tensor_format))


def test_long_string_partitions_stay_within_the_budget(tmp_path: Path) -> None:
    """Their bytes are counted as those of other strings are."""
    for i in range(3):
        folder = tmp_path / f"key={str(i) * 200}x"
        folder.mkdir()
        pq.write_table(pa.table({"x": range(20_000)}), folder / "a.parquet")
    with ps.Loader(tmp_path, batch_size=500, memory_budget="32MB") as loader:
        rows = sum(len(batch["key"]) for batch in loader)
        assert_within_budget(loader)
    assert rows == 60_000


@pytest.mark.parametrize(
    "condition",
    [
        pc.field("year") == 2024,
        pc.field("year") > 2024,
        pc.field("city") == "São Paulo",
        pc.field("city") == "a/b=c",
        pc.field("city").is_null(),
        (pc.field("city") != "Paris") & (pc.field("x") > 11),
        (pc.field("year") == 2023) | (pc.field("x") == 31),
    ],
    ids=str,
)
def test_partitions_in_filters_are_as_in_pyarrow_dataset(hive: Path, condition: pc.Expression) -> None:
    """Files are left out by their partition values; the rows that stay are pyarrow.dataset's, in its
    order."""
    expected = ds.dataset(hive, partitioning="hive").to_table(columns=["x", "year"], filter=condition)
    assert expected.num_rows > 0
    for columns in (["x"], ["year", "x"]):
        got = make.joined(ps.Loader(hive, columns=columns, filter=condition, format="numpy"))
        assert list(got) == columns
        for name in columns:
            assert got[name].tolist() == expected[name].to_pylist()


def test_partition_keys_of_other_kinds(tmp_path: Path) -> None:
    """int64 where int32 is too narrow, string where one value is no number; a key in the path wins over the
    file."""
    for key in ("big=5000000000", "big=1"):
        (tmp_path / "wide" / key).mkdir(parents=True)
        pq.write_table(pa.table({"x": [1], "big": [7]}), tmp_path / "wide" / key / "a.parquet")
    loader = ps.Loader(tmp_path / "wide", format="numpy")
    assert loader.schema["big"].dtype == "int64"
    assert sorted(rows_of(loader, "big")) == [1, 5_000_000_000]
    for key in ("mixed=12", "mixed=007x"):
        (tmp_path / "text" / key).mkdir(parents=True)
        pq.write_table(pa.table({"x": [1]}), tmp_path / "text" / key / "a.parquet")
    loader = ps.Loader(tmp_path / "text", transforms={"mixed": ps.ops.lookup(["007x", "12"])}, format="numpy")
    assert rows_of(loader, "mixed") == [0, 1]
    pq.write_table(pa.table({"x": [2]}), tmp_path / "wide" / "keyless.parquet")
    loader = ps.Loader(tmp_path / "wide", nulls="mask", format="numpy")
    got = make.joined(loader)
    assert sorted(zip(got["big"].tolist(), got["big_mask"].tolist(), strict=True)) == [
        (0, True), (1, False), (5_000_000_000, False),
    ]  # fmt: skip


VIEWS = {
    "text": (pa.string_view(), ["a", "bcd", "x" * 30]),
    "bytes": (pa.binary_view(), [b"a", b"", b"x" * 30]),
    "texts": (pa.list_(pa.string_view()), [["a", "bcd"], [], ["x" * 30]]),
    "struct": (pa.struct([("a", pa.string_view())]), [{"a": "b"}, {"a": "x" * 30}, {"a": ""}]),
}


@pytest.mark.parametrize("kind", ["parquet", "arrow", "table"])
def test_columns_that_arrow_cannot_filter(tmp_path: Path, kind: str) -> None:
    """Views, which Arrow has no filter for, are kept with the rows that a filter keeps; also as what it looks
    at, and under transforms."""
    rows = 60
    columns = {name: pa.array(values * (rows // 3), type) for name, (type, values) in VIEWS.items()}
    table = pa.table({"n": [row * row % 7 for row in range(rows)], **columns})
    source: Any = tmp_path / f"x.{kind}"
    if kind == "parquet":
        pq.write_table(table, source)
    elif kind == "arrow":
        with pa.ipc.new_file(source, table.schema) as writer:
            writer.write_table(table)
    else:
        source = table
    kept = [row for row in range(rows) if row * row % 7 == 2]
    long = [row for row in range(rows) if columns["text"][row].as_py() == "x" * 30]
    for direct in (True, False):
        options: dict[str, Any] = {
            "format": "arrow",
            "batch_size": 7,
            "num_workers": 1,
            "_direct_decode": direct,
        }
        with ps.Loader(source, filter=pc.field("n") == 2, **options) as loader:
            got = pa.Table.from_batches(list(loader))
        for name in ("text", "bytes", "texts"):
            assert got[name].to_pylist() == [columns[name][row].as_py() for row in kept]
        is_long = pc.field("text") == pa.scalar("x" * 30, pa.string_view())
        with ps.Loader(source, filter=is_long, columns=["text", "n"], **options) as loader:
            got = pa.Table.from_batches(list(loader))
        assert got["text"].to_pylist() == ["x" * 30] * len(long)
        assert got["n"].to_pylist() == [table["n"][row].as_py() for row in long]
        hashed: dict[str, Any] = {"columns": ["text"], "transforms": {"text": ps.ops.hash_bucket(1000)}}
        with ps.Loader(source, **hashed, **options) as loader:
            every = [value for batch in loader for value in batch["text"].to_pylist()]
        with ps.Loader(source, filter=pc.field("n") == 2, **hashed, **options) as loader:
            kept_only = [value for batch in loader for value in batch["text"].to_pylist()]
        assert kept_only == [every[row] for row in kept]
