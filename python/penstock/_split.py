"""Parts of a source, chosen row by row."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstock._source import is_one_shot

__all__ = ["FILE", "ROW_ID", "Split", "split"]

#: In `columns`: where a row stands in its file (in the table; in the stream), from 0.
ROW_ID = "__row_id__"
#: In `columns`: the file that a row is from, as a code; the paths are ``schema[ps.FILE].vocabulary``.
FILE = "__file__"


@dataclass(frozen=True)
class Split:
    """A part of a source, to be given to `Loader` in its place. Made by `split`."""

    source: Any
    seed: int
    begin: float
    end: float


def split(source: Any, fractions: Sequence[float], seed: int = 0) -> tuple[Split, ...]:
    """Divide the rows of a source at random, without copying or reading anything.

    For each row a number is drawn that depends on `seed` and on where the row stands (its file's position in
    the source, its row group, its row), and on nothing else: the same rows in every epoch, on every machine,
    for any batch size, filter or number of workers. How many rows a part has differs a little from its
    fraction, as with any draw. Writing the files anew in other row groups draws anew.

    Parameters
    ----------
    source
        What `Loader` takes; not a `Split`, nor what can be read once (a generator, a RecordBatchReader).
    fractions : sequence of float
        Of each part, > 0; their sum is at most 1. Rows beyond the sum are in no part.
    seed : int, default 0
        Another one divides in another way.

    Returns
    -------
    tuple of Split
        One for each fraction, without common rows.

    Raises
    ------
    TypeError, ValueError
        If the source can be read once, a fraction is no number above 0, or their sum is above 1.

    Examples
    --------
    >>> train, validation = ps.split("data/", [0.9, 0.1])  # doctest: +SKIP
    >>> for batch in ps.Loader(train, batch_size=512):  # doctest: +SKIP
    ...     step(batch)
    """
    if isinstance(source, Split):
        raise TypeError("a Split cannot be split again; give all fractions to one split()")
    if is_one_shot(source):
        raise TypeError(
            f"a {type(source).__name__} can be read once, and the loaders of its parts would take rows from "
            "each other: write it to files, or read it into a pyarrow.Table, and split that"
        )
    if isinstance(fractions, (str, bytes)) or not isinstance(fractions, Sequence) or not fractions:
        raise TypeError(f"fractions is a list of numbers such as [0.9, 0.1], got {fractions!r}")
    for fraction in fractions:
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)):
            raise TypeError(f"fractions: {fraction!r} is no number")
        if not 0 < fraction <= 1:
            raise ValueError(f"fractions are above 0 and at most 1, got {fraction!r}")
    seed = operator.index(seed)
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is at least 0 and below 2**63, got {seed}")
    bounds = [math.fsum(fractions[:i]) for i in range(len(fractions) + 1)]
    if math.isclose(bounds[-1], 1, rel_tol=1e-9):
        bounds[-1] = 1.0
    if bounds[-1] > 1:
        raise ValueError(f"the sum of the fractions is {bounds[-1]:g}, which is more than 1")
    return tuple(Split(source, seed, *pair) for pair in itertools.pairwise(bounds))
