"""Penstock as the batch consumer of Ray Data: batches out of Ray's blocks, each released with its last row.

>>> import penstock as ps
>>> loader = ps.ray.Loader(ray.train.get_dataset_shard("train"), batch_size=256)  # doctest: +SKIP
>>> with ps.ray.enabled():  # doctest: +SKIP
...     for batch in dataset.iter_torch_batches(batch_size=256):
...         train(batch)

Importing it does not import Ray.
"""

from penstock.ray._enabled import enabled
from penstock.ray._loader import Loader

__all__ = ["Loader", "enabled"]
