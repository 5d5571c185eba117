"""What `source` and `filesystem` may be."""

from __future__ import annotations

import dataclasses
import io
import os
import posixpath
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import pyarrow as pa
from pyarrow import fs

Source: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | object"

_ACCEPTED = (
    "source is a path, a folder, a glob pattern or a URI (str or os.PathLike), or a list of them; a pyarrow "
    "Table, RecordBatch, RecordBatchReader or Dataset, anything with __arrow_c_stream__, or an iterable of "
    "tables or record batches; got {}"
)


@dataclasses.dataclass
class NativeSource:
    """What the native loader takes for a source: `paths`, `table` or `stream`."""

    paths: list[str] = dataclasses.field(default_factory=list)
    partitions: pa.RecordBatch | None = None
    filesystem: object = None
    table: object = None
    stream: Callable[[], object] | None = None
    is_one_shot: bool = False


def to_native_source(source: object, filesystem: object) -> NativeSource:
    """Tell what kind of source this is.

    Raises
    ------
    TypeError
        If it is none of what is accepted.
    ValueError
        If it is an empty list, a data set that cannot be read without its scanner, or `filesystem` is given
        for something that has none.
    """
    if isinstance(source, (str, os.PathLike)) or _is_list_of_paths(source):
        return NativeSource(paths=to_paths(source), filesystem=filesystem)
    if filesystem is not None:
        raise ValueError(f"filesystem is for paths, and source is a {type(source).__name__}")
    dataset = sys.modules.get("pyarrow.dataset")  # Whoever has one has imported it.
    if dataset is not None and isinstance(source, dataset.Dataset):
        return _from_dataset(source)
    if isinstance(source, (pa.Table, pa.RecordBatch)) or _is_data_frame(source):
        return NativeSource(table=source)
    if hasattr(source, "__arrow_c_stream__"):
        return NativeSource(stream=lambda: source, is_one_shot=is_one_shot(source))
    if isinstance(source, (bytes, bytearray, dict)) or not hasattr(source, "__iter__"):
        raise TypeError(_ACCEPTED.format(type(source).__name__))
    iterable: Iterable[object] = source
    return NativeSource(stream=lambda: iter(iterable), is_one_shot=is_one_shot(source))


def is_one_shot(source: object) -> bool:
    """Whether this can be read once: an iterator, or a reader of record batches."""
    return hasattr(source, "read_next_batch") or hasattr(source, "__next__")


def _is_list_of_paths(source: object) -> bool:
    if not isinstance(source, (list, tuple)):
        return False
    return not source or any(not _gives_arrow(item) for item in source)


def _gives_arrow(item: object) -> bool:
    return hasattr(item, "__arrow_c_stream__") or hasattr(item, "__arrow_c_array__")


def _is_data_frame(source: object) -> bool:
    """Whether this is a Polars data frame: in memory, and shared without a copy."""
    polars = sys.modules.get("polars")
    return polars is not None and isinstance(source, polars.DataFrame)


def _from_dataset(dataset: Any) -> NativeSource:
    import pyarrow.dataset as ds

    if not isinstance(dataset, ds.FileSystemDataset):
        raise TypeError(
            f"a pyarrow {type(dataset).__name__} is read by its scanner alone, which is not used here; "
            "give its files, its tables, or dataset.to_batches() (one epoch)"
        )
    if not isinstance(dataset.format, (ds.ParquetFileFormat, ds.IpcFileFormat)):
        raise TypeError(
            f"a pyarrow dataset of {dataset.format.default_extname} files may have options that only its "
            "scanner knows; give its files as paths"
        )
    if getattr(dataset, "_scan_options", {}):
        raise ValueError(
            "this dataset has a filter of its own; give dataset.files, and the filter as `filter`"
        )
    fragments = list(dataset.get_fragments())
    keys = [ds.get_partition_keys(fragment.partition_expression) for fragment in fragments]
    for fragment, key in zip(fragments, keys, strict=True):
        if not key and not fragment.partition_expression.equals(ds.scalar(True)):
            raise ValueError(
                f"{fragment.path!r}: the partition expression {fragment.partition_expression} is not of the "
                "form column == value; give the files as paths"
            )
    names = [name for name in dataset.schema.names if any(name in key for key in keys)]
    partitions = pa.record_batch(
        [
            pa.array([key.get(name) for key in keys], _plain(dataset.schema.field(name).type))
            for name in names
        ],
        names=names,
    )
    return NativeSource(
        paths=[fragment.path for fragment in fragments],
        partitions=partitions if names else None,
        filesystem=dataset.filesystem,
    )


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def to_paths(source: object) -> list[str]:
    """Return paths as a list of str.

    Raises
    ------
    TypeError
        If it is none of what is accepted.
    ValueError
        If it is an empty list.
    """
    if isinstance(source, (str, os.PathLike)):
        return [_to_path(source)]
    if not isinstance(source, (list, tuple)):
        raise TypeError(_ACCEPTED.format(type(source).__name__))
    if not source:
        raise ValueError("source is an empty list; name at least one file or folder")
    return [_to_path(path) for path in source]


def _to_path(path: object) -> str:
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise TypeError(_ACCEPTED.format(f"{type(path).__name__} in it" if text is None else "bytes"))
    return text


def to_native_filesystem(filesystem: object) -> Any:
    """Return what the native loader takes for `filesystem`.

    Returns
    -------
    None, str or pyarrow.fs.FileSystem
        None for local files and URIs, a str for local files below that folder. Both are read without the GIL.
    """
    if filesystem is None:
        return None
    resolved = _from_fsspec(filesystem)
    base = ""
    inner = resolved
    while isinstance(inner, fs.SubTreeFileSystem):
        base = posixpath.join(inner.base_path, base)
        inner = inner.base_fs
    if not isinstance(inner, fs.LocalFileSystem):
        return resolved
    return base or None


def _from_fsspec(filesystem: object) -> fs.FileSystem:
    if isinstance(filesystem, fs.PyFileSystem) and type(filesystem.handler) is fs.FSSpecHandler:
        filesystem = filesystem.handler.fs
    if isinstance(filesystem, fs.FileSystem):
        return filesystem
    fsspec = sys.modules.get("fsspec")  # Whoever has one of its file systems has imported it.
    if fsspec is None or not isinstance(filesystem, fsspec.AbstractFileSystem):
        raise TypeError(
            f"filesystem is a pyarrow.fs.FileSystem or an fsspec file system, got {type(filesystem).__name__}"
        )
    if type(filesystem).__name__ == "LocalFileSystem":
        return fs.LocalFileSystem()
    return fs.PyFileSystem(_FSSpecHandler(filesystem))


class _FSSpecHandler(fs.FSSpecHandler):  # type: ignore[misc] # pyarrow has no types.
    """As pyarrow's, but files are read by `cat_file`, each range as it is asked for.

    Files that `open` gives read ahead, into caches that nobody counts, and those of the memory file system
    share a position.
    """

    @staticmethod
    def _create_file_info(path: str, info: dict[str, Any]) -> fs.FileInfo:
        known = fs.FSSpecHandler._create_file_info(path, {**info, "mtime": None})
        # Each file system has its own word for the time, and its own type; what changes when the file is
        # written again will do.
        times = (info.get(key) for key in ("mtime", "LastModified", "last_modified", "updated", "created"))
        for time in times:
            seconds = time.timestamp() if isinstance(time, datetime) else time
            if isinstance(seconds, (int, float)):
                mtime_ns = round(seconds * 1e6) * 1000
                return fs.FileInfo(path, known.type, size=known.size, mtime_ns=mtime_ns)
        return known

    def open_input_file(self, path: str) -> pa.NativeFile:
        info = self.fs.info(path)
        if info["type"] != "file" or info["size"] is None:
            return super().open_input_file(path)
        return pa.PythonFile(_FSSpecFile(self.fs, path, info["size"]), mode="r")


class _FSSpecFile(io.RawIOBase):
    def __init__(self, fs: Any, path: str, size: int) -> None:
        self._fs, self._path, self._size, self._position = fs, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._position + size)
        data: bytes = self._fs.cat_file(self._path, start=self._position, end=end)
        self._position += len(data)
        return data
