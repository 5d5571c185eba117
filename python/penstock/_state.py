"""The state of a loader as a dict that JSON can carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock import _core

__all__ = ["from_dict", "to_dict"]

_VERSION_KEY = "penstock_state"


def to_dict(state: _core.EpochState) -> dict[str, Any]:
    """Return `state` as plain dicts, lists, str, int, bool and None."""
    files, size_bytes, rows, names, num_footers, footers = state.data
    return {
        _VERSION_KEY: state.version,
        "epoch": state.epoch,
        "epochs_left": state.epochs_left,
        "rank": state.rank,
        "history": [
            [
                world_size,
                [[bound for pair in ranges for bound in pair] for ranges in taken] if taken else rows,
            ]
            for world_size, rows, taken in state.history
        ],
        "given_rows": state.given_rows,
        "given_items": state.given_items,
        "data": {
            "files": files,
            "bytes": size_bytes,
            "rows": rows,
            "names": names,
            "footers": [num_footers, footers],
        },
        "columns": state.columns,
        "filter": state.filter,
        "part": state.part,
        "batch_size": state.batch_size,
        "shuffle": state.shuffle,
        "seed": state.seed,
        "shuffle_window": state.shuffle_window,
        "uneven": "repeat" if state.repeat else "drop",
        "limit": state.limit,
        "balance": state.balance or None,
    }


def from_dict(state: object) -> _core.EpochState:
    """Return the native form of what `to_dict` gave, possibly by way of JSON.

    Raises
    ------
    TypeError
        If it is no mapping.
    ValueError
        If it is corrupt, or from a newer version.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"a state is a dict as state_dict() gives it, got {type(state).__name__}")
    version = state.get(_VERSION_KEY)
    if not isinstance(version, int) or isinstance(version, bool):
        raise _corrupt(f"{_VERSION_KEY!r} is missing: it is no state of a penstock loader")
    native = _core.EpochState()
    if version > native.version:
        raise ValueError(
            f"the state is of version {version}, newer than this penstock, which knows {native.version}: "
            "install the version that it was saved with"
        )
    try:
        _fill(native, state)
    except KeyError as error:
        raise _corrupt(f"{error.args[0]!r} is missing") from None
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        what = str(error).splitlines()[0]
        is_ours = "incompatible function arguments" not in what  # Of the bindings: says nothing to a user.
        raise _corrupt("a value is not of its type" + (f" ({what})" if is_ours else "")) from None
    return native


def _fill(native: _core.EpochState, state: Mapping[str, Any]) -> None:
    native.version = state[_VERSION_KEY]
    for name in (
        "epoch",
        "epochs_left",
        "rank",
        "given_rows",
        "given_items",
        "batch_size",
        "seed",
        "shuffle_window",
    ):
        setattr(native, name, _int(name, state[name]))
    for name in ("columns", "filter", "part"):
        setattr(native, name, state[name])
    native.shuffle = state["shuffle"]
    native.repeat = {"drop": False, "repeat": True}[state["uneven"]]
    native.limit = state["limit"]
    native.balance = state["balance"] or ""
    data = state["data"]
    num_footers, footers = data["footers"]
    native.data = (data["files"], data["bytes"], data["rows"], data["names"], num_footers, footers)
    native.history = [_phase(world_size, had) for world_size, had in state["history"]]


def _phase(world_size: object, had: object) -> tuple[int, int, list[list[tuple[int, int]]]]:
    if not isinstance(had, list):
        return _int("world_size", world_size), _int("rows", had), []
    taken = []
    for bounds in had:
        if len(bounds) % 2 != 0:
            raise ValueError("rows come in pairs")
        pairs = zip(bounds[::2], bounds[1::2], strict=True)
        taken.append([(_int("rows", begin), _int("rows", end)) for begin, end in pairs])
    return _int("world_size", world_size), 0, taken


def _int(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is an int, got {value!r}")
    return value


def _corrupt(what: str) -> ValueError:
    return ValueError(f"the state is corrupt: {what}; use one as state_dict() gave it")
