"""Where files may be: local, below a folder, in a Python file system, by URI, by pattern; and what fails
there."""

from __future__ import annotations

import io
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from conftest import loader_threads, rows_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.parquet 0-99, b.parquet 100-199, sub/c.parquet 200-299, and things to leave out."""
    (tmp_path / "sub").mkdir()
    for i, name in enumerate(["a.parquet", "b.parquet", "sub/c.parquet"]):
        table = pa.table({"x": np.arange(100 * i, 100 * i + 100)})
        pq.write_table(table, tmp_path / name, row_group_size=20)
    for name in ("_SUCCESS", ".hidden.parquet", "_temporary.parquet", "notes.txt"):
        (tmp_path / name).write_text("not parquet")
    return tmp_path


ALL = list(range(300))


def read(source: Any, **options: Any) -> list[int]:
    return rows_of(ps.Loader(source, **{"format": "numpy", "batch_size": 30, **options}))


def test_paths_folders_lists_and_patterns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files come in the order given, a folder's and a pattern's sorted by path; hidden and foreign ones are
    left out."""
    a, c = (str(folder / name) for name in ("a.parquet", "sub/c.parquet"))
    assert read(a) == read(Path(a)) == ALL[:100]
    assert read(folder) == read(str(folder)) == read(f"{folder}/") == ALL
    assert read([c, Path(a)]) == ALL[200:] + ALL[:100]
    assert read([a, a]) == ALL[:100] * 2
    assert read(f"{folder}/*.parquet") == ALL[:200]
    assert read(f"{folder}/**/*.parquet") == ALL
    assert read(f"{folder}/[b-z].parquet") == ALL[100:200]
    assert read(f"{folder}/?.parquet") == ALL[:200]
    assert read([folder / "sub", a]) == ALL[200:] + ALL[:100]
    monkeypatch.chdir(folder)
    assert read("a.parquet") == read("./a.parquet") == ALL[:100]
    assert read("*/c.parquet") == ALL[200:]


def test_file_uris(folder: Path) -> None:
    """A file:// URI names a file or a folder; escapes in it are undone."""
    assert read((folder / "a.parquet").as_uri()) == ALL[:100]
    assert read(folder.as_uri()) == ALL
    odd = folder / "sub" / "with space #1.parquet"
    (folder / "a.parquet").rename(odd)
    assert read(str(odd)) == read(odd.as_uri()) == ALL[:100]
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        ps.Loader((folder / "none.parquet").as_uri(), format="numpy")


def test_names_with_characters_of_patterns_are_files_where_they_exist(folder: Path) -> None:
    """A file whose name holds [ or * can be read by its name."""
    odd = folder / "a[1].parquet"
    (folder / "a.parquet").rename(odd)
    assert read(str(odd)) == ALL[:100]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_local_and_sub_tree_file_systems(folder: Path, num_workers: int) -> None:
    """pyarrow's local file systems, also below a folder and nested, and after pickling."""
    local = pyarrow.fs.LocalFileSystem()
    assert read(str(folder), filesystem=local, num_workers=num_workers) == ALL
    tree = pyarrow.fs.SubTreeFileSystem(str(folder), local)
    assert read("a.parquet", filesystem=tree, num_workers=num_workers) == ALL[:100]
    assert read(["sub/c.parquet", "b.parquet"], filesystem=tree) == ALL[200:] + ALL[100:200]
    assert read("**/*.parquet", filesystem=tree) == ALL
    nested = pyarrow.fs.SubTreeFileSystem("sub", tree)
    loader = ps.Loader("c.parquet", filesystem=nested, format="numpy", num_workers=num_workers)
    assert rows_of(pickle.loads(pickle.dumps(loader))) == ALL[200:]
    mapped = pyarrow.fs.LocalFileSystem(use_mmap=True)
    assert read(str(folder / "a.parquet"), filesystem=mapped) == ALL[:100]
    with pytest.raises(FileNotFoundError, match=r"d\.parquet"):
        ps.Loader("d.parquet", filesystem=tree, format="numpy")


@pytest.fixture
def memory(folder: Path) -> Any:
    """The files of `folder` in fsspec's memory file system, under /data."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in folder.rglob("[abc].parquet"):
        memory.pipe(f"/data/{path.relative_to(folder)}", path.read_bytes())
    yield memory
    memory.rm("/data", recursive=True)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_fsspec_file_systems(memory: Any, num_workers: int) -> None:
    """fsspec, by itself and through pyarrow's handler: files, folders, lists and patterns as local ones."""
    handler = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(memory))
    for filesystem in (memory, handler, pyarrow.fs.SubTreeFileSystem("/data", handler)):
        start = "" if isinstance(filesystem, pyarrow.fs.SubTreeFileSystem) else "/data/"
        options = {"filesystem": filesystem, "num_workers": num_workers}
        assert read(f"{start}b.parquet", **options) == ALL[100:200]
        assert read([f"{start}b.parquet", f"{start}a.parquet"], **options) == ALL[100:200] + ALL[:100]
        assert read(f"{start}**/*.parquet", **options) == ALL
        assert read(start.rstrip("/") or ".", **options) == ALL if start else True
        with pytest.raises(FileNotFoundError):
            ps.Loader(f"{start}z.parquet", format="numpy", **options)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_fsspec_files_are_read_in_few_large_ranges(memory: Any, tmp_path: Path, num_workers: int) -> None:
    """One range for the columns of a row group, no others; a file written again is an error."""
    names = ["x", "b", "c", "d", "e"]
    table = pa.table({name: pa.array(range(160_000), pa.int64()) for name in names})
    pq.write_table(
        table, tmp_path / "wide.parquet", row_group_size=40_000, use_dictionary=False, compression="none"
    )
    content = (tmp_path / "wide.parquet").read_bytes()
    memory.pipe("/data/wide.parquet", content)
    ranges: list[tuple[int, int]] = []

    class Counting(type(memory)):  # type: ignore[misc]
        cachable = False

        def cat_file(self, path: str, start: int, end: int) -> bytes:
            ranges.append((start, end))
            return bytes(super().cat_file(path, start=start, end=end))

    for columns, requests in ((["x", "b"], 4), (["x", "e"], 8), (names, 4)):
        options: dict[str, Any] = {"filesystem": Counting(), "num_workers": num_workers, "columns": columns}
        ranges.clear()
        assert read("/data/wide.parquet", **options) == list(range(160_000))
        data = [end - start for start, end in ranges if end != len(content)]
        assert len(data) == requests
        assert sum(data) < 160_000 * 8 * len(columns) * 1.02
    loader = ps.Loader("/data/wide.parquet", format="numpy", **options)
    memory.pipe("/data/wide.parquet", content)
    with pytest.raises(OSError, match=r"wide\.parquet.*changed since the loader was made"):
        rows_of(loader)


class RefusalError(Exception):
    """What no library knows."""


class Faulty(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]
    """Fails at the n-th call of the methods that a loader uses."""

    def __init__(self, fs: Any, kind: type[Exception], arguments: tuple[Any, ...], fail_at: int) -> None:
        super().__init__(fs)
        self.kind, self.arguments, self.left, self.lock = kind, arguments, fail_at, threading.Lock()

    def tick(self) -> None:
        with self.lock:
            self.left -= 1
            if self.left == 0:
                raise self.kind(*self.arguments)

    def get_file_info(self, paths: Any) -> Any:
        self.tick()
        return super().get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        self.tick()
        return super().get_file_info_selector(selector)

    def open_input_file(self, path: str) -> Any:
        self.tick()
        # fsspec's memory gives all who open a file one object with one position; here each has its own.
        handler, file = self, io.BytesIO(self.fs.cat(path))

        class File:
            closed = False

            def read(self, size: int = -1) -> bytes:
                handler.tick()
                return bytes(file.read(size))

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return pa.PythonFile(File(), mode="r")


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (RefusalError, ("not today",)),
        (PermissionError, (13, "locked")),
        (ValueError, ("odd",)),
        (KeyError, ("gone",)),
    ],
)
def test_the_nth_failure_of_a_python_file_system_arrives_as_it_was(
    memory: Any, kind: type[Exception], arguments: tuple[Any, ...], num_workers: int
) -> None:
    """23: an exception raised in a Python file system, at each of its calls in turn: raised once, with its
    type and
    message; threads joined, accounts at zero. When no call is left to fail, all rows come."""
    for fail_at in range(1, 200):
        filesystem = pyarrow.fs.PyFileSystem(Faulty(memory, kind, arguments, fail_at))
        loader, rows = None, []
        try:
            loader = ps.Loader(
                "/data", filesystem=filesystem, format="numpy", batch_size=30, num_workers=num_workers
            )
            rows = rows_of(loader)
        except kind as raised:
            assert str(arguments[-1]) in str(raised)  # noqa: PT017
            assert rows == []
        assert loader_threads() == []
        if loader is not None:
            loader.close()
            assert loader.memory()["total"]["current_bytes"] == 0
        if rows:
            assert rows == ALL
            break
    assert 5 < fail_at < 199


def refuses(message: str, source: Any, **options: Any) -> None:
    with pytest.raises(ValueError, match=message):
        read(source, **options)


def test_files_whose_schemas_differ_name_file_column_and_types(write_parquet: Any) -> None:
    """22: schema drift: a needed column of another type, or missing, is an error; what is not needed may
    differ."""
    first = write_parquet({"x": [1, 2], "y": [1.0, 2.0]}, "a.parquet")
    other = write_parquet({"y": ["text"], "z": [1], "x": [3]}, "b.parquet")
    drift = write_parquet({"x": pa.array([3], pa.int32())}, "c.parquet")
    without = write_parquet({"z": [3]}, "d.parquet")
    required = pa.table([[4]], schema=pa.schema([pa.field("x", pa.int64(), False, {"k": "v"})]))
    fine = write_parquet(required, "e.parquet")
    assert read([first, other, fine], columns=["x"]) == [1, 2, 3, 4]
    refuses(r"b\.parquet.*'y'.*string.*double", [first, other])
    refuses(r"c\.parquet.*'x'.*int32.*int64", [first, drift], columns=["x"])
    refuses(r"d\.parquet.*'x'.*missing.*int64", [first, without], columns=["x"])
    refuses(r"c\.parquet.*'x'", [first, drift], columns=["y"], filter=pc.field("x") > 0)
