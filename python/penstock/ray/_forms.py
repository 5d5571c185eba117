"""Ray's blocks as Arrow tables, and batches in Ray's forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

__all__ = ["Conformer", "NumberTensors", "own_copy", "ray_form", "to_table"]


def to_table(block: Any, begin: int, end: int | None) -> tuple[pa.Table, bool]:
    """Return the rows [begin, end) of a block as a table, and whether they lie in Ray's memory.

    Raises
    ------
    TypeError
        If the block is neither a table nor a data frame, or a column of it cannot become Arrow's.
    """
    is_in_store = isinstance(block, pa.Table)
    if not is_in_store:
        from ray.data.block import BlockAccessor

        if not hasattr(block, "columns"):
            raise TypeError(
                f"a block of type {type(block).__name__} cannot become batches: return a pyarrow.Table, a "
                "pandas.DataFrame or a dict of arrays from the map function"
            )
        try:
            block = BlockAccessor.for_block(block).to_arrow()
        except Exception as error:
            raise TypeError(
                f"a pandas block with columns {', '.join(map(str, block.columns))} cannot become Arrow's "
                f"({error}): give the column one type in the map function, or drop it"
            ) from error
    if begin > 0 or (end is not None and end < block.num_rows):
        block = block.slice(begin, None if end is None else end - begin)
    return block, is_in_store


class Conformer:
    """Brings tables to the schema of the first: blocks of one data set may differ in columns without values.

    Dictionary columns become their values: in a stream nobody knows all of them ahead.
    """

    def __init__(self) -> None:
        self._first: pa.Schema | None = None
        self._schema: pa.Schema | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        if self._schema is None:
            self._first = table.schema
            self._schema = _without_dictionaries(table.schema)
        if table.schema.equals(self._first) and self._schema is self._first:
            return table
        if table.schema.equals(self._schema):
            return table
        if set(table.schema.names) != set(self._schema.names):
            more = sorted(set(table.schema.names) ^ set(self._schema.names))
            raise TypeError(
                f"blocks of this data set differ in their columns: {', '.join(map(repr, more))} is in some "
                "alone; let the map functions return the same columns always"
            )
        return pa.table(
            [_cast(table.column(field.name), field) for field in self._schema], schema=self._schema
        )


def _without_dictionaries(schema: pa.Schema) -> pa.Schema:
    if not any(pa.types.is_dictionary(field.type) for field in schema):
        return schema
    return pa.schema(
        [
            field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
            for field in schema
        ],
        metadata=schema.metadata,
    )


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if column.type.equals(field.type):
        return column
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise TypeError(
            f"column {field.name!r} is {field.type} in the first block of this data set and {column.type} in "
            f"a later one ({error}); let the map functions return one type always"
        ) from error


def own_copy(table: pa.Table) -> pa.Table:
    """Return the rows in memory of this process's own."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def ray_form(batch_format: str | None, schema: pa.Schema) -> Callable[[pa.RecordBatch | pa.Table], Any]:
    """Return what makes of a batch what Ray gives for that `batch_format`, by Ray's own rules.

    Parameters
    ----------
    batch_format : {"numpy", "pandas", "pyarrow"} or None
        As in ``iter_batches``; None: "pyarrow".
    schema : pyarrow.Schema
        Of the blocks: batches have its types.
    """
    from ray.data.block import BlockAccessor

    schema = _without_dictionaries(schema)

    def form(batch: pa.RecordBatch | pa.Table) -> Any:
        table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        if not table.schema.equals(schema):
            columns = [
                _to_type(column, field.type) for column, field in zip(table.columns, schema, strict=True)
            ]
            table = pa.table(columns, schema=schema)
        return BlockAccessor.for_block(table).to_batch_format(batch_format or "pyarrow")

    return form


class NumberTensors:
    """Makes tensors of batches of numbers as Ray's DefaultCollateFn does, in a fraction of the time.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the blocks: Ray's tensors have its types.
    """

    def __init__(self, schema: pa.Schema) -> None:
        from torch.utils.dlpack import from_dlpack

        self._from_dlpack = from_dlpack
        self._names = schema.names
        self._types = schema.types

    def take(self, batch: pa.RecordBatch | pa.Table) -> list[pa.Array] | None:
        """Return the columns where that is all: no nulls, and signed integers, bytes and floats alone."""
        if not isinstance(batch, pa.RecordBatch) or not 0 < batch.num_columns == len(self._types):
            return None
        columns: list[pa.Array] = batch.columns
        is_all = all(
            column.null_count == 0 and column.type == kind and kind in _NUMBERS
            for column, kind in zip(columns, self._types, strict=True)
        )
        return columns if is_all else None

    def make(self, columns: list[pa.Array]) -> dict[str, Any]:
        """Return a tensor of each column, over its memory."""
        return {name: self._from_dlpack(column) for name, column in zip(self._names, columns, strict=True)}


_NUMBERS = {
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8()),
    *(pa.float16(), pa.float32(), pa.float64()),
}


def _to_type(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if column.type.equals(wanted):
        return column
    if isinstance(wanted, pa.BaseExtensionType) and not isinstance(column.type, pa.BaseExtensionType):
        chunks = [
            pa.ExtensionArray.from_storage(wanted, chunk.cast(wanted.storage_type)) for chunk in column.chunks
        ]
        return pa.chunked_array(chunks, type=wanted)
    return column.cast(wanted)
