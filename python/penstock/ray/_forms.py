"""Ray's blocks as Arrow tables, and batches in Ray's forms."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = [
    "Conformer",
    "NumberTensors",
    "differs_in_arrow",
    "has_nulls",
    "own_copy",
    "own_copy_of_block",
    "ray_form",
    "sliced",
    "to_table",
]


def sliced(block: Any, begin: int, end: int | None) -> Any:
    """Return the rows [begin, end) of a block.

    Raises
    ------
    TypeError
        If the block is neither a table nor a data frame.
    """
    if not hasattr(block, "columns"):
        raise TypeError(
            f"a block of type {type(block).__name__} cannot become batches: return a pyarrow.Table, a "
            "pandas.DataFrame or a dict of arrays from the map function"
        )
    if begin == 0 and (end is None or end >= len(block)):
        return block
    from ray.data.block import BlockAccessor

    return BlockAccessor.for_block(block).slice(begin, len(block) if end is None else end, copy=False)


def to_table(block: Any) -> pa.Table:
    """Return a block as a table.

    Raises
    ------
    TypeError
        If a column of a data frame cannot become Arrow's.
    """
    if isinstance(block, pa.Table):
        return block
    from ray.data.block import BlockAccessor

    try:
        return BlockAccessor.for_block(block).to_arrow()
    except Exception as error:
        raise TypeError(
            f"a pandas block with columns {', '.join(map(str, block.columns))} cannot become Arrow's "
            f"({error}): give the column one type in the map function, or drop it"
        ) from error


def own_copy_of_block(block: Any) -> Any:
    """Return the rows of a table or data frame in memory of this process's own."""
    if isinstance(block, pa.Table):
        return own_copy(block)
    # Not copy(deep=True), which shares what is Arrow's in a frame, such as strings.
    return pickle.loads(pickle.dumps(block, protocol=4))


def differs_in_arrow(block: Any, batch_format: str | None) -> str | None:
    """Return why batches of such blocks differ when their rows were Arrow's of one schema; None: they do not.

    Parameters
    ----------
    block : pyarrow.Table or pandas.DataFrame
        The first.
    batch_format : {"numpy", "pandas", "pyarrow"} or None
        As in ``iter_batches``; None: "pyarrow".
    """
    if not isinstance(block, pa.Table):
        if batch_format == "pandas":
            return "blocks are pandas data frames, whose types are not Arrow's"
        for name, dtype in block.dtypes.items():
            if not _is_plain(dtype, batch_format):
                return f"blocks are pandas data frames, and column {name!r} is {dtype}"
        return None
    for field in block.schema:
        if pa.types.is_null(field.type):
            return f"column {field.name!r} of the first block has no type, since all its values are missing"
        if pa.types.is_dictionary(field.type) and batch_format != "numpy":
            return f"column {field.name!r} is a dictionary, and blocks may have others"
    return None


def _is_plain(dtype: Any, batch_format: str | None) -> bool:
    """Whether a pandas column of that dtype gives the same by way of Arrow."""
    if isinstance(dtype, np.dtype):
        return dtype.kind in "biuf"
    return dtype.name in ("str", "string") and batch_format != "numpy"


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
        more = sorted(set(table.schema.names) - set(self._schema.names))
        if more:
            raise TypeError(
                f"blocks of this data set differ in their columns: the first lacks "
                f"{', '.join(map(repr, more))}; let the map functions return the same columns always"
            )
        columns = [
            _cast(table.column(field.name), field)
            if field.name in table.schema.names
            else pa.chunked_array([pa.nulls(table.num_rows, field.type)])
            for field in self._schema
        ]
        return pa.table(columns, schema=self._schema)


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


def ray_form(batch_format: str | None, schema: pa.Schema | None) -> Callable[[Any], Any]:
    """Return what makes of a batch what Ray gives for that `batch_format`, by Ray's own rules.

    Parameters
    ----------
    batch_format : {"numpy", "pandas", "pyarrow"} or None
        As in ``iter_batches``; None: "pyarrow", of blocks of Ray's what they are.
    schema : pyarrow.Schema or None
        Of the blocks: batches have its types. None: what comes are blocks as Ray has them.
    """
    from ray.data.block import BlockAccessor

    if schema is None:
        return lambda block: BlockAccessor.for_block(block).to_batch_format(batch_format)
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
    """Tensors of numbers as Ray's DefaultCollateFn makes them, which the loader can make itself.

    Takes the loader's batches in format "torch", with masks. They are what Ray gives as long as nothing is
    missing; else Ray's own code makes them.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the blocks, for which `suits` holds: Ray's tensors have its types.
    make : callable
        Ray's own way, from a batch of Arrow's.
    has_nulls : callable
        Whether any block so far had nulls: so masks need not be looked at.
    """

    def __init__(
        self, schema: pa.Schema, make: Callable[[pa.RecordBatch], Any], has_nulls: Callable[[], bool]
    ) -> None:
        self._fields = list(schema)
        self._names = schema.names
        self._make = make
        self._has_nulls = has_nulls

    @staticmethod
    def suits(schema: pa.Schema) -> bool:
        """Whether all columns are numbers, or tensors of them of one shape."""
        names = set(schema.names)
        return len(names) == len(schema.names) > 0 and all(
            _element_type(field.type) in _NUMBERS and f"{field.name}_mask" not in names for field in schema
        )

    def __call__(self, batch: dict[str, Any]) -> Any:
        if self._has_nulls() and any(
            bool(batch[mask].any()) for name in self._names if (mask := f"{name}_mask") in batch
        ):
            columns = [_to_arrow(field, batch) for field in self._fields]
            return self._make(pa.record_batch(columns, self._names))
        return {name: batch[name] for name in self._names}


# Not the other unsigned ones, which Ray brings to types of its own.
_NUMBERS = {
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.bool_()),
    *(pa.float16(), pa.float32(), pa.float64()),
}
_RAY_TENSORS = ("ray.data.arrow_tensor", "ray.data.arrow_tensor_v2")


def _element_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a tensor's elements where all rows have one shape, in order; else `kind`."""
    if isinstance(kind, pa.FixedShapeTensorType):
        is_plain = kind.permutation is None and all(extent > 0 for extent in kind.shape)
        return kind.value_type if is_plain else kind
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name in _RAY_TENSORS:
        return kind.storage_type.value_type if all(extent > 0 for extent in kind.shape) else kind
    return kind


def _to_arrow(field: pa.Field, batch: dict[str, Any]) -> pa.Array:
    """Return a column of a batch of tensors, with its nulls; of a tensor column, its storage."""
    values = batch[field.name].numpy()
    mask = batch.get(f"{field.name}_mask")
    missing = None if mask is None else mask.numpy()
    if values.ndim == 1:
        return pa.array(values, field.type, mask=missing)
    rows = None if missing is None else pa.array(missing.reshape(len(values), -1).all(axis=1))
    elements = pa.array(values.ravel(), mask=None if missing is None else missing.ravel())
    return pa.FixedSizeListArray.from_arrays(elements, values[0].size, mask=rows)


def has_nulls(table: pa.Table) -> bool:
    """Whether a value is missing, or an element of a tensor."""
    return any(_has_nulls(chunk) for column in table.columns for chunk in column.chunks)


def _has_nulls(array: pa.Array) -> bool:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if array.null_count > 0:
        return True
    is_list = isinstance(array, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray))
    return is_list and bool(array.values.null_count > 0)


def _to_type(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if column.type.equals(wanted):
        return column
    if isinstance(wanted, pa.BaseExtensionType) and not isinstance(column.type, pa.BaseExtensionType):
        chunks = [
            pa.ExtensionArray.from_storage(wanted, chunk.cast(wanted.storage_type)) for chunk in column.chunks
        ]
        return pa.chunked_array(chunks, type=wanted)
    return column.cast(wanted)
