"""The gate beside the speed: Penstock's pixels against Pillow's, for crops as the benchmark makes them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import photo_files
import pyarrow.parquet as pq

MOST_MEAN_DIFFERENCE = 0.5


def difference(path: str, photos: int) -> dict[str, Any]:
    """Mean and greatest difference of 255 over the crops of the first photos; runs in a child process."""
    import penstock as ps
    from engines.photos import RATIO, SCALE, SIZE
    from PIL import Image

    crop = ps.image.random_resized_crop(SIZE, scale=SCALE, ratio=RATIO)
    steps = [ps.image.decode(), crop, ps.image.layout("HWC")]
    means, most = [], 0
    encoded = pq.ParquetFile(path).read_row_group(0, columns=["image"])["image"].to_pylist()
    for row, photo in enumerate(encoded[:photos]):
        (drawn,) = ps.image.drawn(steps[:2], photo_files.SIZE[::-1], row=row)
        top, left, height, width = drawn["box"]
        image = Image.open(io.BytesIO(photo)).convert("RGB").crop((left, top, left + width, top + height))
        theirs = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR), dtype=np.int16)
        distance = np.abs(ps.image.transform(photo, steps, row=row) - theirs)
        means.append(float(distance.mean()))
        most = max(most, int(distance.max()))
    return {"photos": len(means), "mean": float(np.mean(means)), "max": most}
