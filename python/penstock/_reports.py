"""What `explain()` and `stats()` return."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

__all__ = ["Explanation", "Stats"]


class _Report:
    """A text for people and the same as a dict for programs."""

    __slots__ = ("_text", "_values")

    def __init__(self, text: str, values: dict[str, Any]) -> None:
        self._text = text
        self._values = values

    def __str__(self) -> str:
        return self._text

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values that JSON can carry.

        Names ending in ``_bytes``, ``_s`` and ``_ms`` are in bytes, seconds and milliseconds.
        """
        return copy.deepcopy(self._values)


def _scalars(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", float(value)


class Stats(_Report):
    """What a loader has done: ``str()`` is a table for people, `to_dict` is for programs.

    The dict has batches, rows, rows_per_s, first_batch_s, wait_ms {mean, std, p50, p99, max}, stages {name:
    {busy_s, wait_s, items, bytes}}, peak_bytes, budget_bytes, skipped, filled, errors, error_messages (what
    ``on_error="skip"`` passed over), bottleneck (one word), advice (a sentence that says what to change), and
    more.

    The stages "plan", "read", "decode" and "transform" are what workers were busy with. In the stages "slot",
    "budget" and "work" they waited: for the consumer to give a slot back, for bytes of the budget, and for
    anything to do.
    """

    __slots__ = ()

    def to_scalars(self, prefix: str = "") -> dict[str, float]:
        """Return all numbers under flat names, as loggers want them.

        Parameters
        ----------
        prefix : str, optional
            Put in front of each name, as "penstock/".

        Returns
        -------
        dict
            ``{"rows_per_s": 1.5e6, "wait_ms/p99": 0.2, "stages/decode/busy_s": 3.1,
            "memory/user/peak_bytes": 4096.0, ...}``, all floats.
        """
        return dict(_scalars(self._values, prefix))

    def __repr__(self) -> str:
        values = self._values
        return (
            f"<Stats of {values['batches']} batches, {values['rows']} rows, "
            f"bottleneck {values['bottleneck']!r}; print it for the table>"
        )


class Explanation(_Report):
    """What a loader will do: ``str()`` is a table for people, `to_dict` is for programs.

    Numbers that are not known ahead (rows behind a filter) are None in the dict.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        values = self._values
        return (
            f"<Explanation: plan {values['plan']!r}, {values['files']} files, "
            f"{values['batch_bytes']} bytes a batch; print it for the table>"
        )
