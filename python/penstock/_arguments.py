"""Checks of what the user gave to `Loader`: each returns the value as the loader keeps it, or raises."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from penstock import _core
from penstock.ops import fill_null, pack

MAX_INT = 2**31 - 1
MAX_INT64 = 2**63 - 1
MAX_UINT64 = 2**64 - 1
MAX_EPOCH = 2**32 - 1


def check_int(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{name} is an int, got a bool")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} is an int, got {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    if number > most:
        raise ValueError(f"{name} must be at most {most}, got {number}")
    return number


def check_bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, got {value!r}")
    return value


def check_callable(name: str, value: object) -> Any:
    if value is None or callable(value):
        return value
    raise TypeError(f"{name} is a callable or None, got {type(value).__name__}")


def check_seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, got {value!r}")
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return value


def check_columns(columns: Sequence[str] | None) -> list[str] | None:
    if columns is None:
        return None
    if isinstance(columns, str) or not all(isinstance(name, str) for name in columns):
        raise TypeError(f"columns is a list of names, got {columns!r}")
    return list(columns)


def check_filter(expression: object) -> pc.Expression | None:
    if expression is None or isinstance(expression, pc.Expression):
        return expression
    raise TypeError(
        f"filter is a pyarrow.compute expression such as pc.field('x') > 0, got {type(expression).__name__}"
    )


def check_nulls(nulls: object) -> Any:
    if nulls in ("error", "mask"):
        return nulls
    if isinstance(nulls, Mapping):
        for name, value in nulls.items():
            if not isinstance(name, str):
                raise TypeError(f"nulls: a column's name is a str, got {name!r}")
            fill_null(value)
        return dict(nulls)
    message = f"nulls is 'error', 'mask' or {{column: fill value}}, got {nulls!r}"
    raise ValueError(message) if isinstance(nulls, str) else TypeError(message)


def check_format(format: object) -> str:
    if not isinstance(format, str) or format not in ("torch", "numpy", "arrow", "pandas"):
        raise ValueError(f"format is 'torch', 'numpy', 'arrow' or 'pandas', got {format!r}")
    if format == "pandas":
        try:
            import pandas  # noqa: F401
        except ImportError as error:
            raise ImportError("format='pandas' needs pandas: pip install pandas") from error
    if format == "torch":
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "format='torch' (the default) needs PyTorch: pip install torch, or pass format='numpy'"
            ) from error
    return format


def check_pin_memory(pin_memory: object, format: str) -> bool:
    if check_bool("pin_memory", pin_memory) and format == "pandas":
        raise ValueError(
            "pin_memory has no use with format='pandas': frames are copies of what would be locked"
        )
    return bool(pin_memory)


def check_max_errors(max_errors: object, on_error: str) -> int | None:
    if max_errors is None:
        return None
    if on_error != "skip":
        raise ValueError(f"max_errors is a limit of on_error='skip', and on_error is {on_error!r}")
    return check_int("max_errors", max_errors, 0, MAX_INT64)


def check_uneven(uneven: object) -> str:
    if not isinstance(uneven, str) or uneven not in ("drop", "repeat"):
        raise ValueError(f"uneven is 'drop' or 'repeat', got {uneven!r}")
    return uneven


def check_balance(balance: object) -> str | None:
    if balance is None or (isinstance(balance, str) and balance == "rows"):
        return balance
    raise ValueError(f"balance is 'rows' or None, got {balance!r}")


def check_on_error(on_error: object) -> str:
    if isinstance(on_error, str) and on_error in ("raise", "skip"):
        return on_error
    raise ValueError(f"on_error is 'raise' or 'skip', got {on_error!r}")


def check_prefetch_batches(prefetch_batches: object) -> Any:
    if isinstance(prefetch_batches, str):
        if prefetch_batches != "auto":
            raise ValueError(f"prefetch_batches is 'auto' or an int, got {prefetch_batches!r}")
        return "auto"
    return check_int("prefetch_batches", prefetch_batches, 0, MAX_INT)


def check_bytes(name: str, size: object) -> Any:
    return size if isinstance(size, str) else check_int(name, size, 1, MAX_INT64)


def to_bytes(size: str | int) -> int:
    return _core.parse_bytes(size) if isinstance(size, str) else size


def warn_of_excess(options: dict[str, Any]) -> None:
    workers, cores = options["num_workers"] or 0, _core.available_cores()
    if workers > cores:
        _warn(
            f"num_workers={workers} is more than the {cores} cores that this process may use; "
            "more threads than cores rarely help"
        )
    wanted_bytes, available_bytes = to_bytes(options["memory_budget"]), _core.available_memory_bytes()
    if wanted_bytes > available_bytes:
        _warn(
            f"memory_budget is {_core.format_bytes(wanted_bytes)}, "
            f"but this process may use only {_core.format_bytes(available_bytes)}"
        )


def warn_of_uneven_ranks(options: dict[str, Any], world_size: int) -> None:
    is_counted_first = options["balance"] is not None or options["shuffle"]
    if world_size > 1 and options["filter"] is not None and not is_counted_first:
        _warn(
            "with a filter the ranks divide the rows before it, so they may get different numbers of "
            "batches, and a collective operation in the loop may hang; pass balance='rows' to count first"
        )


def warn_of_uneven_packing(options: dict[str, Any], world_size: int) -> None:
    chains = (options["transforms"] or {}).values()
    is_packed = any(isinstance(op, pack) for chain in chains for op in chain.ops)
    if world_size > 1 and is_packed and options["balance"] is None:
        _warn(
            "with ps.ops.pack the ranks divide the documents, so they may get different numbers of batches, "
            "and a collective operation in the loop may hang; pass balance='rows' to divide the packed rows"
        )


def _warn(message: str) -> None:
    # From here through warn_of_...() and Loader() to the caller.
    warnings.warn(message, RuntimeWarning, stacklevel=4)
