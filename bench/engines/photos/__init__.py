"""Photos to tensors, as training_ingest.py compares it: what the engines share.

`Engine.open(paths, columns, batch_size, workers)` gets Parquet files of (image: JPEG bytes, label: string)
and returns an iterable of ``{"image": float32 (batch_size, 3, 224, 224), "label": int64}`` as torch
tensors, the short batch at the end left out. Every image is decoded, cropped at random and resized
(`SCALE`, `RATIO`, antialiased), flipped in half of the cases, and normalised with `MEAN` and `STD`.

What is returned may have ``close()``, ``held_bytes()`` (the most that the engine's own accounts have seen so
far) and ``spilled_bytes()``.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator
from typing import Any

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
PREFETCH_BATCHES = 4
NUM_LABELS = 1000


def label_name(number: int) -> str:
    return f"label-{number:03}"


LABELS = {label_name(number): number for number in range(NUM_LABELS)}


def draw_box(width: int, height: int) -> tuple[int, int, int, int]:
    """A box (left, top, right, bottom) as torchvision's RandomResizedCrop draws it."""
    for _ in range(10):
        area = width * height * random.uniform(*SCALE)
        ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    return 0, 0, width, height


def pillow_pixels(encoded: Any) -> Any:
    """One photo by Pillow, cropped, resized and perhaps flipped: uint8 (224, 224, 3).

    `resize(box=)` saves the copy that `crop` makes. `draft`, which decodes at half the size, is not used:
    crops are rarely larger than twice the result, and it changes the pixels.
    """
    import numpy as np
    from PIL import Image

    image = Image.open(io.BytesIO(encoded))
    box = draw_box(image.width, image.height)
    if image.mode != "RGB":
        image = image.convert("RGB")
    small = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    if random.random() < 0.5:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(small)


def pillow_batch(encoded: Any) -> Any:
    """A batch of photos by Pillow: each is normalised straight into its place in one float32 tensor."""
    import torch

    scale = torch.tensor([1 / (255 * s) for s in STD])[:, None, None]
    offset = torch.tensor([-m / s for m, s in zip(MEAN, STD, strict=True)])[:, None, None]
    out = torch.empty((len(encoded), 3, SIZE, SIZE))
    for i, photo in enumerate(encoded):
        pixels = torch.from_numpy(pillow_pixels(photo).copy()).permute(2, 0, 1)
        torch.mul(pixels, scale, out=out[i])
        out[i].add_(offset)
    return out


def encoded_batches(
    paths: list[str], batch_size: int, part: int = 0, parts: int = 1
) -> Iterator[tuple[list[Any], list[int]]]:
    """Photos and labels of every `parts`-th row group, in batches; none reaches over two row groups' ends."""
    import pyarrow.parquet as pq

    index = 0
    for path in paths:
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            index += 1
            if index % parts != part:
                continue
            table = file.read_row_group(group, columns=["image", "label"])
            images = [photo.as_buffer() for photo in table["image"].combine_chunks()]
            labels = [LABELS[name] for name in table["label"].to_pylist()]
            for start in range(0, len(images) - batch_size + 1, batch_size):
                yield images[start : start + batch_size], labels[start : start + batch_size]
