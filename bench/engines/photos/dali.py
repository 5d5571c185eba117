"""NVIDIA DALI on the CPU: its fused decode and random crop, fed by pyarrow, in `workers` threads.

Its image_random_crop decodes the crop alone and, by default, without libjpeg-turbo's smooth upsampling of
colours, which is faster than what the others do and less like Pillow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .. import Engine, NotAvailableError
from . import MEAN, RATIO, SCALE, SIZE, STD, encoded_batches

try:
    import numpy as np
    import nvidia.dali.fn as fn
    import nvidia.dali.types as types
    from nvidia.dali import Pipeline
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy
except ImportError as error:
    raise NotAvailableError(f"DALI is missing (bench/requirements-dali.txt): {error}") from error

PREFETCH_QUEUE_DEPTH = 2


class Epochs:
    """Each `iter()` is an epoch of the same pipeline."""

    def __init__(self, paths: list[str], columns: list[str], batch_size: int, workers: int) -> None:
        def batches() -> Iterator[Any]:
            for images, labels in encoded_batches(paths, batch_size):
                yield [np.frombuffer(photo, np.uint8) for photo in images], np.array(labels)[:, None]

        # Without a GPU: device_id=None.
        pipeline = Pipeline(batch_size, workers, None, prefetch_queue_depth=PREFETCH_QUEUE_DEPTH)
        with pipeline:
            encoded, labels = fn.external_source(
                source=batches, num_outputs=2, batch=True, cycle="raise", no_copy=True
            )
            images = fn.decoders.image_random_crop(
                encoded,
                device="cpu",
                output_type=types.RGB,
                random_area=list(SCALE),
                random_aspect_ratio=list(RATIO),
            )
            images = fn.resize(images, size=[SIZE, SIZE], interp_type=types.INTERP_LINEAR, antialias=True)
            images = fn.crop_mirror_normalize(
                images,
                dtype=types.FLOAT,
                output_layout="CHW",
                mean=[255 * m for m in MEAN],
                std=[255 * s for s in STD],
                mirror=fn.random.coin_flip(probability=0.5),
            )
            pipeline.set_outputs(images, labels)
        self._batches = DALIGenericIterator(
            pipeline,
            ["image", "label"],
            auto_reset=True,
            last_batch_policy=LastBatchPolicy.DROP,
            prepare_first_batch=False,
        )

    def __iter__(self) -> Iterator[Any]:
        return ({"image": batch["image"], "label": batch["label"][:, 0]} for (batch,) in self._batches)


def _open(paths: list[str], columns: list[str], batch_size: int, workers: int) -> Iterable[Any]:
    return Epochs(paths, columns, batch_size, workers)


ENGINES = [
    Engine(
        name="dali",
        package="nvidia-dali-cuda130",
        note="CPU: image_random_crop, resize, crop_mirror_normalize; DALIGenericIterator; in order",
        open=_open,
    )
]
