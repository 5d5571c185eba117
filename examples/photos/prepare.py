"""Cuts photographs into JPEG files within Parquet: prepare.py PACKAGES FOLDER.

PACKAGES holds scikit-learn and scikit-image, or one of them; these are their sample photographs. The left two
thirds of each become FOLDER/train, the rest FOLDER/held_out, so that no pixel is in both.
"""

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PHOTOGRAPHS = {
    "temple": "sklearn/datasets/images/china.jpg",
    "flower": "sklearn/datasets/images/flower.jpg",
    "astronaut": "skimage/data/astronaut.png",
    "cat": "skimage/data/chelsea.png",
    "coffee": "skimage/data/coffee.png",
    "rocket": "skimage/data/rocket.jpg",
    "retina": "skimage/data/retina.jpg",
    "motorcycle": "skimage/data/motorcycle_left.png",
}
TRAIN_PARTS, HELD_OUT_PARTS = 160, 40
SIZE = (240, 180)


def parts(image: Image.Image, number: int, seed: int) -> list[bytes]:
    """Random parts of half to all of the image's width, as JPEG."""
    rng = np.random.default_rng(seed)
    encoded = []
    for _ in range(number):
        width = min(image.width, image.height * 4 / 3) * rng.uniform(0.5, 1)
        height = width * 3 / 4
        left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        file = io.BytesIO()
        image.resize(SIZE, box=(left, top, left + width, top + height)).save(file, "JPEG", quality=90)
        encoded.append(file.getvalue())
    return encoded


def main() -> None:
    packages, folder = map(Path, sys.argv[1:])
    photographs = {subject: packages / path for subject, path in PHOTOGRAPHS.items()}
    photographs = {subject: path for subject, path in photographs.items() if path.exists()}
    if len(photographs) < 2:
        raise SystemExit(f"{packages} has neither scikit-learn nor scikit-image")
    rows = {}
    for name, number in (("train", TRAIN_PARTS), ("held_out", HELD_OUT_PARTS)):
        images, subjects = [], []
        for seed, (subject, path) in enumerate(photographs.items()):
            photograph = Image.open(path).convert("RGB")
            border = photograph.width * 2 // 3
            left, right = (0, border) if name == "train" else (border, photograph.width)
            images += parts(photograph.crop((left, 0, right, photograph.height)), number, seed)
            subjects += [subject] * number
        (folder / name).mkdir(parents=True, exist_ok=True)
        table = pa.table({"image": pa.array(images, pa.binary()), "subject": subjects})
        pq.write_table(table, folder / name / "photos.parquet", row_group_size=64, compression="none")
        rows[name] = len(images)
    print(f"result: {rows['train']:,} photos of {len(photographs)} subjects, {rows['held_out']:,} held out")


if __name__ == "__main__":
    main()
