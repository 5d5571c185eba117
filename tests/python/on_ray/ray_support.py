"""What tests on Ray share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

MIB = 1 << 20

Numbers = Callable[..., Any]


def wait_until(holds: Callable[[], bool], most_s: float = 60) -> None:
    """Wait for what Ray does behind our back."""
    deadline = time.monotonic() + most_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def values(batches: Any, column: str = "x") -> list[Any]:
    """Return all rows of a column."""
    return [value for batch in batches for value in batch[column].tolist()]
