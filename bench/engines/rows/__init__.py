"""Rows of 1 MiB, as backpressure.py compares them: what the engines share.

`Engine.open(paths, columns, batch_size, workers)` gets Parquet files of one column ``id`` (int64). Every
id becomes 1 MiB of zeros with the id in its first eight bytes; batches are ``{"row": uint8 (batch_size, 1
MiB)}`` as torch tensors. What `open` returns has ``split(n)``: a list of `n` iterables that share the rows
equally, each for one epoch, in threads of one process. It may have ``close()``, ``held_bytes()`` and
``spilled_bytes()``.
"""

from __future__ import annotations

from typing import Any

ROW_BYTES = 1 << 20
PREFETCH_BATCHES = 8


def make_rows(ids: Any) -> Any:
    """The rows of some ids: uint8 (len(ids), 1 MiB)."""
    import numpy as np

    ids = np.asarray(ids, np.int64)
    rows = np.zeros((len(ids), ROW_BYTES), np.uint8)
    rows[:, :8] = ids[:, None].view(np.uint8)
    return rows
