"""What nobody can beat: loaders that load nothing, and JPEG decoding without anything behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from .. import Engine, NotAvailableError
from . import SIZE, encoded_batches


class MockEpochs:
    """The same batch again and again."""

    def __init__(self, paths: list[str], batch_size: int) -> None:
        self._labels = [torch.tensor(labels) for _, labels in encoded_batches(paths, batch_size)]
        self._image = torch.randn((batch_size, 3, SIZE, SIZE))

    def __iter__(self) -> Iterator[Any]:
        return ({"image": self._image, "label": labels} for labels in self._labels)


class FreshEpochs(MockEpochs):
    """New tensors for each batch, over memory that is always there: what torch takes for them."""

    def __iter__(self) -> Iterator[Any]:
        return ({"image": self._image[:], "label": labels[:]} for labels in self._labels)


class CeilingEpochs:
    """Decodes every photo in full by libjpeg-turbo, in `workers` threads; the pixels are dropped."""

    def __init__(self, paths: list[str], batch_size: int, workers: int) -> None:
        try:
            from simplejpeg import decode_jpeg
        except ImportError as error:
            raise NotAvailableError(f"simplejpeg is missing: {error}") from error
        self._decode = decode_jpeg
        self._batches = list(encoded_batches(paths, batch_size))
        self._image = torch.empty((batch_size, 3, SIZE, SIZE))
        self._pool = ThreadPoolExecutor(workers)

    def __iter__(self) -> Iterator[Any]:
        photos = (bytes(photo) for images, _ in self._batches for photo in images)
        decoded = self._pool.map(lambda photo: self._decode(photo) is None, photos)
        for images, labels in self._batches:
            for _ in images:
                next(decoded)
            yield {"image": self._image, "label": torch.tensor(labels)}


def _mock(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return MockEpochs(paths, batch_size)


def _fresh(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return FreshEpochs(paths, batch_size)


def _ceiling(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return CeilingEpochs(paths, batch_size, workers)


ENGINES = [
    Engine("mock", "torch", "a bound: the same tensor again and again", _mock, does_all=False),
    Engine("fresh", "torch", "a bound: new tensors over the same memory", _fresh, does_all=False),
    Engine(
        "ceiling",
        "simplejpeg",
        "a bound: libjpeg-turbo decodes every photo in full, from memory, and nothing else",
        _ceiling,
        does_all=False,
    ),
]
