"""Penstock: training-data ingest with every byte counted.

>>> import penstock as ps
>>> loader = ps.Loader("train/", batch_size=1024)  # doctest: +SKIP
>>> for batch in loader:  # doctest: +SKIP
...     train(batch)
"""

import pyarrow as _pyarrow  # noqa: F401  # Maps the Arrow libraries that _core is linked to.

from penstock import image, ops, ray, testing
from penstock._core import version as _version
from penstock._iter_threaded import iter_threaded
from penstock._loader import Loader
from penstock._reports import Explanation, Stats
from penstock._schema import Field, Schema
from penstock._split import FILE, ROW_ID, Split, split
from penstock.ops import col

__version__ = _version()

__all__ = [
    "FILE",
    "ROW_ID",
    "Explanation",
    "Field",
    "Loader",
    "Schema",
    "Split",
    "Stats",
    "__version__",
    "col",
    "image",
    "iter_threaded",
    "ops",
    "ray",
    "split",
    "testing",
]
