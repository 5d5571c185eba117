"""What `source` and `filesystem` may be."""

from __future__ import annotations

import io
import os
import posixpath
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

import pyarrow as pa
from pyarrow import fs

Source: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"

_ACCEPTED = (
    "source is a path, a folder, a glob pattern or a URI (str or os.PathLike), or a list of them; got {}"
)


def to_paths(source: object) -> list[str]:
    """Return `source` as a list of str.

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
