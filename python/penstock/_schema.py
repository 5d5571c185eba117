"""What columns a loader's batches have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from penstock import _core

__all__ = ["Field", "Schema"]


@dataclass(frozen=True, eq=False)
class Field:
    """One column of the batches.

    Parameters
    ----------
    name : str
        The column's key in a batch.
    dtype : str or None
        The type of its elements: "int64", "float32", "bool", ... None for a column that comes as an Arrow
        array.
    shape : tuple of int
        The shape of one row, or of one item of a list; () for a scalar.
    has_mask : bool
        Whether batches also have ``<name>_mask``, bool, True where the value is missing (with format="arrow"
        and "pandas": whether values may be missing).
    arrow_type : pyarrow.DataType
        The column's type where it comes as an Arrow array.
    source_type : pyarrow.DataType
        The column's type in the files.
    vocabulary : pyarrow.Array or None
        What codes stand for: code i means ``vocabulary[i]``. None where values are no codes.
    arrays : tuple of str
        The keys under which a batch of tensors has the column: its name and, as there are, ``<name>_mask``,
        ``<name>_offsets``, ``<name>_shape``.
    lists : int
        How many levels of lists the values are taken out of; 0 where a row has one shape.
    tensor_ndim : int
        Dimensions of a row where rows are tensors of varying shape; else 0.
    """

    name: str
    dtype: str | None
    shape: tuple[int, ...]
    has_mask: bool
    arrow_type: pa.DataType
    source_type: pa.DataType
    vocabulary: pa.Array | None
    arrays: tuple[str, ...]
    lists: int
    tensor_ndim: int

    def __repr__(self) -> str:
        words = [self.dtype or f"Arrow {self.arrow_type}"]
        if self.shape:
            words.append(f"x {'x'.join(map(str, self.shape))}")
        if self.tensor_ndim:
            words.append(f"in tensors of {self.tensor_ndim} dimensions")
        elif self.lists:
            words.append("in lists" if self.lists == 1 else f"in {self.lists} levels of lists")
        if len(self.arrays) > 1:
            words.append(f"with {', '.join(map(repr, self.arrays[1:]))}")
        words.append(f"from {self.source_type}")
        if self.vocabulary is not None:
            words.append(f"(codes of {len(self.vocabulary)} values)")
        return f"<Field {self.name!r}: {' '.join(words)}>"


class Schema(Mapping[str, Field]):
    """The columns of a loader's batches, name -> `Field`, in the order of the batches."""

    def __init__(self, fields: list[Field]) -> None:
        self._fields = {field.name: field for field in fields}

    @classmethod
    def _of(cls, loader: _core.Loader) -> Schema:
        fields, arrow_types, source_types = loader.schema()
        # Schema.types builds its list anew at each access.
        types = zip(pa.schema(arrow_types).types, pa.schema(source_types).types, strict=True)
        return cls(
            [
                Field(
                    name=name,
                    dtype=dtype,
                    shape=shape,
                    has_mask=has_mask if dtype is None else f"{name}_mask" in arrays,
                    arrow_type=arrow_type,
                    source_type=source_type,
                    vocabulary=None if vocabulary is None else pa.array(vocabulary),
                    arrays=arrays,
                    lists=lists,
                    tensor_ndim=tensor_ndim,
                )
                for (name, dtype, shape, has_mask, vocabulary, arrays, lists, tensor_ndim), (
                    arrow_type,
                    source_type,
                ) in zip(fields, types, strict=True)
            ]
        )

    def __getitem__(self, name: str) -> Field:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return "\n".join(["Schema:", *(f"  {field!r}" for field in self._fields.values())])
