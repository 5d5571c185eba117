"""Batches as pandas data frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

__all__ = ["to_dataframe"]


def to_dataframe(batch: pa.RecordBatch) -> pd.DataFrame:
    """Return the rows as a data frame whose dtypes follow from the schema alone.

    Numbers and bools that cannot be missing by their type are NumPy's, with a copy; strings are pandas'
    ``str``, dictionaries categories; all else, numbers that may be missing among it, stays an Arrow array
    (`pandas.ArrowDtype`): nothing turns into float or object in silence.
    """
    columns = {
        field.name: _series(column, field) for field, column in zip(batch.schema, batch.columns, strict=True)
    }
    return pd.DataFrame(columns, index=pd.RangeIndex(batch.num_rows))


def _series(column: pa.Array, field: pa.Field) -> pd.Series:
    kind = field.type
    if pa.types.is_dictionary(kind):
        return pd.Series(_categories(column))
    if pa.types.is_large_string(kind):
        # What pandas itself makes of text: str, missing values as nan.
        return pd.Series(pd.StringDtype("pyarrow", na_value=np.nan).__from_arrow__(column))
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if is_number and not field.nullable:
        return pd.Series(column.to_numpy(zero_copy_only=False))
    if isinstance(kind, pa.BaseExtensionType):
        # pandas knows Arrow's own types alone.
        column = column.storage
    return pd.Series(pd.arrays.ArrowExtensionArray(column))


def _categories(column: pa.DictionaryArray) -> pd.Categorical:
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    categories = column.dictionary.to_pandas()
    return pd.Categorical.from_codes(codes, categories=categories)
