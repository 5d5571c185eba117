"""Writes JPEG files of 500 x 375 pixels, quality 95: parts of the photographs in scikit-learn.

bench/make_photos.py FOLDER [NUMBER]
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def photographs() -> list[Image.Image]:
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise SystemExit("the photographs are in scikit-learn: pip install scikit-learn")
    folder = Path(spec.origin).parent / "datasets" / "images"
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))]


def write_photos(folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = photographs()
    for i in range(number):
        image = images[i % len(images)]
        width = int(rng.integers(500, image.width + 1))
        height = width * 3 // 4 if width * 3 // 4 <= image.height else image.height
        left, top = (
            int(rng.integers(0, image.width - width + 1)),
            int(rng.integers(0, image.height - height + 1)),
        )
        part = image.crop((left, top, left + width, top + height)).resize((500, 375))
        part.save(folder / f"{i:04}.jpg", quality=95)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    write_photos(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 64)
