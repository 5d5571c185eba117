"""What `source` and `filesystem` may be."""

from __future__ import annotations

import errno
import io
import os
import posixpath
import sys
from collections.abc import Sequence
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
    """As pyarrow's, but two files that are open at once never share a position."""

    def open_input_file(self, path: str) -> pa.NativeFile:
        if not self.fs.isfile(path):
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        file = self.fs.open(path, mode="rb")
        if isinstance(file, io.BytesIO):  # fsspec's memory file system hands the same object to everybody.
            return pa.BufferReader(file.getvalue())
        return pa.PythonFile(file, mode="r")
