"""What an op written in Python gave, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def to_numpy(result: Any, rows: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return `result` as a contiguous array of `rows` rows of `shape` and `dtype`, or raise."""
    if result is None:
        raise TypeError(f"the function returned None, not {_wanted(rows, dtype, shape)}")
    found = _as_array(result, rows, dtype, shape)
    if found.shape != (rows, *shape):
        raise ValueError(
            f"the function returned an array of shape {found.shape} for {rows} rows, not {(rows, *shape)}"
        )
    return np.ascontiguousarray(_as_type(found, np.dtype(dtype)))


def _wanted(rows: int, dtype: str, shape: tuple[int, ...]) -> str:
    return f"an array of {dtype} and shape {(rows, *shape)}"


def _as_array(result: Any, rows: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    if isinstance(result, (pa.Array, pa.ChunkedArray)):
        return _from_arrow(result)
    if hasattr(result, "detach"):  # A torch tensor may be part of a graph.
        result = result.detach()
    try:
        return np.asarray(result)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"the function returned {_describe(result)}, which makes no {_wanted(rows, dtype, shape)}"
        ) from error


def _describe(result: Any) -> str:
    words = f"a {type(result).__name__}"
    kind = getattr(result, "dtype", None)
    return words if kind is None else f"{words} of {kind}"


def _from_arrow(result: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, Any]:
    if isinstance(result, pa.ChunkedArray):
        result = result.combine_chunks()
    if isinstance(result, pa.ChunkedArray):  # Of no chunks.
        result = pa.array([], result.type)
    shape = [len(result)]
    while True:
        if result.null_count:
            raise ValueError(
                f"the function returned {result.null_count} nulls; what a missing value becomes is its to say"
            )
        if not pa.types.is_fixed_size_list(result.type):
            break
        shape.append(result.type.list_size)
        result = result.flatten()
    flat: np.ndarray[Any, Any] = result.to_numpy(zero_copy_only=False)
    return flat.reshape(shape)


def _as_type(found: np.ndarray[Any, Any], to: np.dtype[Any]) -> np.ndarray[Any, Any]:
    kinds = found.dtype.kind + to.kind
    if found.dtype == to or kinds == "bb":
        return found
    if kinds not in ("bi", "bu", "bf", "ii", "iu", "ui", "uu", "if", "uf", "ff"):
        raise TypeError(
            f"the function returned {found.dtype}, which does not convert to {to} without a loss; "
            "convert it there, or change the op's dtype"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        converted = found.astype(to)
    lost = np.isinf(converted) & ~np.isinf(found) if to.kind == "f" else converted != found
    if lost.any():
        raise ValueError(f"the function returned {found[lost][0].item()}, which does not fit {to}")
    return converted
