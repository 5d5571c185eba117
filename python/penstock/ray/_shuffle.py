"""Local shuffle of what transforms make larger: the rows of windows of the stream, in random order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.ray._blocks import Block
from penstock.ray._forms import own_copy

__all__ = ["ShuffledBlocks"]


class ShuffledBlocks(Iterator[Block]):
    """Windows of exactly `window_rows` rows (fewer in the last), each permuted.

    The rows are copied out of a block when it comes, so that a window pins none; only what a block has beyond
    the window is held as it is. The order follows from the rows' order, the seed and the epoch.

    Parameters
    ----------
    blocks : Iterator of Block
        In their order.
    window_rows : int
        Rows of a window, >= 1.
    seed : sequence of int
        What the order is made from.
    """

    def __init__(self, blocks: Iterator[Block], window_rows: int, seed: tuple[int, int]) -> None:
        self._blocks = blocks
        self._window_rows = window_rows
        self._random = np.random.default_rng(seed)
        self._rest: tuple[Block, int] | None = None  # A block, of which so many rows have gone.
        self.charge: Callable[[int], Any] | None = None  # Counts bytes until what it returns is dropped.

    def close(self) -> None:
        """Let go of what is left. Idempotent."""
        self._rest = self.charge = None

    def __next__(self) -> Block:
        parts: list[pa.Table] = []
        charges = []
        rows = 0
        while rows < self._window_rows:
            part = self._next_part(self._window_rows - rows)
            if part is None:
                break
            parts.append(part)
            rows += part.num_rows
            if self.charge is not None:
                charges.append(self.charge(part.nbytes))
        if rows == 0:
            raise StopIteration
        order = self._random.permutation(rows)
        mixed = pa.concat_tables(parts).combine_chunks().take(pa.array(order))
        return Block(mixed, False, _nothing)

    def _next_part(self, most_rows: int) -> pa.Table | None:
        if self._rest is None:
            block = next(self._blocks, None)
            if block is None:
                return None
            self._rest = (block, 0)
        block, begin = self._rest
        part = block.table.slice(begin, most_rows)
        end = begin + part.num_rows
        self._rest = (block, end) if end < block.table.num_rows else None
        return own_copy(part)


def _nothing() -> None:
    pass
