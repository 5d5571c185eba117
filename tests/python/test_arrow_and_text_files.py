"""Arrow IPC files and streams, CSV and JSON lines."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from support import assert_within_budget, current_bytes, quiet_loader, rows_of
from test_sources import ROWS, assert_is_numbers, copies, loader_of, numbers


def write_ipc(path: Path, table: pa.Table, rows_per_batch: int = 130, compression: str | None = None) -> str:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with make(str(path), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)
    return str(path)


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_ipc_files_are_counted(tmp_path: Path, compression: str | None, num_workers: int) -> None:
    write_ipc(tmp_path / "a.arrow", numbers(0, 400), compression=compression)
    write_ipc(tmp_path / "b.feather", numbers(400, 0), compression=compression)
    write_ipc(tmp_path / "c.ipc", numbers(400, 600), compression=compression)
    with loader_of(tmp_path, num_workers=num_workers) as loader:
        assert len(loader) == 16
        for _ in range(2):
            assert_is_numbers(copies(loader))
        assert current_bytes(loader).keys() == {"metadata"}
        assert_within_budget(loader)
        assert loader.explain().to_dict()["row_groups"] == 4 + 5


def test_ipc_is_found_by_its_first_bytes(tmp_path: Path) -> None:
    for name in ("data.bin", "data.parquet"):
        with loader_of(write_ipc(tmp_path / name, numbers())) as loader:
            assert_is_numbers(copies(loader))


def test_ipc_reads_the_needed_columns_alone(tmp_path: Path) -> None:
    wide = pa.table({"x": numbers()["x"], **{f"c{i}": numbers()["y"] for i in range(100)}})
    path = write_ipc(tmp_path / "a.arrow", wide, ROWS)
    with quiet_loader(path, columns=["x"]) as loader:
        assert rows_of(copies(loader)) == list(range(ROWS))
        read = loader.stats().to_dict()["stages"]["read"]["bytes"]
    assert read < wide.nbytes / 4


def test_ipc_stream_files(tmp_path: Path) -> None:
    write_ipc(tmp_path / "a.arrows", numbers(0, 400))
    write_ipc(tmp_path / "b.arrows", numbers(400, 600), compression="zstd")
    with loader_of(tmp_path) as loader:
        for _ in range(2):
            assert_is_numbers(copies(loader))
        with pytest.raises(TypeError, match="not known ahead"):
            len(loader)


def test_ipc_filter_and_partitions(tmp_path: Path) -> None:
    for p in (1, 2):
        (tmp_path / f"p={p}").mkdir()
        write_ipc(tmp_path / f"p={p}" / "a.arrow", numbers(p * 100, 100))
    filter = pc.field("p") == 2
    with quiet_loader(tmp_path, columns=["x", "p"], filter=filter) as loader:
        batches = copies(loader)
    assert rows_of(batches) == list(range(200, 300))
    assert set(rows_of(batches, "p")) == {2}


def test_dictionaries_of_ipc_files_are_made_one(tmp_path: Path) -> None:
    for name, values in (("a", ["b", "a", "b"]), ("b", ["c", "b", None])):
        table = pa.table({"d": pa.array(values).dictionary_encode(), "x": [0, 1, 2]})
        write_ipc(tmp_path / f"{name}.arrow", table, 2)
    with quiet_loader(tmp_path, batch_size=6, nulls={"d": -1}) as loader:
        assert loader.schema["d"].vocabulary.to_pylist() == ["b", "a", "c"]
        assert rows_of(copies(loader), "d") == [0, 1, 0, 2, 0, -1]


def test_deltas_of_dictionaries(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    first = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", "b"]))
    more = pa.DictionaryArray.from_arrays(pa.array([2, 0]), pa.array(["a", "b", "c"]))
    schema = pa.schema({"d": first.type})
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with pa.ipc.new_file(str(path), schema, options=options) as writer:
        writer.write_batch(pa.record_batch([first], schema=schema))
        writer.write_batch(pa.record_batch([more], schema=schema))
    with quiet_loader(path, batch_size=4) as loader:
        assert loader.schema["d"].vocabulary.to_pylist() == ["a", "b", "c"]
        assert rows_of(copies(loader), "d") == [0, 1, 2, 0]


def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    arrow = write_ipc(tmp_path / "a.arrow", numbers(0, 64))
    pq.write_table(numbers(64, 64), tmp_path / "b.parquet")
    for first, second in ((arrow, tmp_path / "b.parquet"), (tmp_path / "b.parquet", arrow)):
        with (
            loader_of([str(first), str(second)]) as loader,
            pytest.raises(ValueError, match="one kind") as caught,
        ):
            list(loader)
        assert "a.arrow" in str(caught.value)
        assert "b.parquet" in str(caught.value)


def test_truncated_ipc_file(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    write_ipc(path, numbers())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"a\.arrow.*truncated"):
        loader_of(path)


def test_flipped_bytes_are_errors_and_never_signals(tmp_path: Path) -> None:
    """Every flip gives the rows, other values, or an error that names the file."""
    table = pa.table(
        {
            "x": range(40),
            "s": [f"value {i}" for i in range(40)],
            "d": pa.array([str(i % 3) for i in range(40)]).dictionary_encode(),
            "l": pa.array([[i, i + 1] for i in range(40)], pa.list_(pa.int64(), 2)),
        }
    )
    good = Path(write_ipc(tmp_path / "good.arrow", table, 20)).read_bytes()
    path = tmp_path / "bad.arrow"
    rng = random.Random(4)
    errors = nameless = 0
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(8, len(good))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            options: dict[str, Any] = {"transforms": {"s": ps.ops.hash_bucket(7)}, "num_workers": 0}
            with quiet_loader(path, batch_size=16, memory_budget="64MiB", **options) as loader:
                list(loader)
        except (
            ValueError,
            TypeError,
            OSError,
            KeyError,
            IndexError,
            NotImplementedError,
            MemoryError,
        ) as error:
            errors += 1
            nameless += "bad.arrow" not in str(error) and "column" not in str(error)
    assert errors > 20
    assert nameless == 0


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv"])
def test_csv(tmp_path: Path, suffix: str) -> None:
    for name, table in (("a", numbers(0, 400)), ("b", numbers(400, 600))):
        write = pa.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ",")
        with pa.output_stream(str(tmp_path / f"{name}{suffix}")) as stream:  # Compresses by the name.
            pa.csv.write_csv(table.select(["x", "y"]), stream, write)
    with loader_of(tmp_path) as loader:
        for _ in range(2):
            assert_is_numbers(copies(loader))
        assert loader.explain().to_dict()["plan"] == "discovered"
        assert_within_budget(loader)


@pytest.mark.parametrize("suffix", [".jsonl", ".json.gz"])
def test_json_lines(tmp_path: Path, suffix: str) -> None:
    with pa.output_stream(str(tmp_path / f"a{suffix}")) as stream:
        stream.write("".join(f'{{"x": {i}, "y": {i}.0}}\n' for i in range(ROWS)).encode())
    with loader_of(tmp_path) as loader:
        for _ in range(2):
            assert_is_numbers(copies(loader))


def test_types_are_those_of_the_first_text_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    (tmp_path / "b.csv").write_text("x\n3\nfour\n")
    with quiet_loader(tmp_path) as loader, pytest.raises(ValueError, match=r"b\.csv.*four"):
        list(loader)


def test_codes_of_ipc_streams_are_of_all_their_first_batches(tmp_path: Path) -> None:
    for name, values in (("a", ["Oslo", "Bern"]), ("b", ["Rome", "Bern"])):
        write_ipc(tmp_path / f"{name}.arrows", pa.table({"city": pa.array(values).dictionary_encode()}))
    with quiet_loader(tmp_path, batch_size=4) as loader:
        assert loader.schema["city"].vocabulary.to_pylist() == ["Oslo", "Bern", "Rome"]
        for _ in range(2):
            assert rows_of(copies(loader), "city") == [0, 1, 2, 1]
