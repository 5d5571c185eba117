"""The data of training_ingest.py: JPEG photos of 500 x 375 pixels, quality 95, as Parquet files of (image,
label), and some of them as single files for penstock_bench. Cut from the photographs in scikit-learn and
scikit-image.

    bench/run photo_files
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lineitem import DATA
from PIL import Image

SIZE = (500, 375)
ROW_GROUP_ROWS = 128
# Ray Data and others work file by file: there are enough of them for everyone.
FILE_ROWS = 256
SINGLE_FILES = 64
# By their package; the photographs among its pictures that are large enough.
PHOTOGRAPHS = {
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
    "skimage": ["data/astronaut.png", "data/coffee.png", "data/rocket.jpg", "data/motorcycle_left.png"],
}


def photographs() -> list[Image.Image]:
    """The photographs, in RGB; their packages are not imported."""
    found = []
    for package, names in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(
                "the photographs are in scikit-learn and scikit-image: install them (bench/run does)"
            )
        found += [Image.open(Path(spec.origin).parent / name).convert("RGB") for name in names]
    return found


def make_photos(number: int) -> list[bytes]:
    """Parts of the photographs, each another, half of them mirrored; hardly any enlarged."""
    rng = np.random.default_rng(0)
    images = photographs()
    encoded = []
    for i in range(number):
        image = images[i % len(images)]
        widest = min(image.width, image.height * 4 // 3)
        width = int(rng.integers(min(SIZE[0] * 4 // 5, widest), widest + 1))
        height = width * 3 // 4
        left = int(rng.integers(0, image.width - width + 1))
        top = int(rng.integers(0, image.height - height + 1))
        part = image.resize(SIZE, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        if rng.integers(2):
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        file = io.BytesIO()
        part.save(file, "JPEG", quality=95)
        encoded.append(file.getvalue())
    return encoded


def ensure(number: int) -> list[Path]:
    """The Parquet files of so many photos, a multiple of 256; made now if they are not there."""
    from engines.photos import NUM_LABELS, label_name

    folder = DATA / f"photos-{len(photographs())}-{number}"
    if not folder.exists():
        encoded = make_photos(number)
        labels = [label_name(i * 7 % NUM_LABELS) for i in range(number)]
        unfinished = folder.with_suffix(".tmp")
        unfinished.mkdir(parents=True, exist_ok=True)
        for start in range(0, number, FILE_ROWS):
            rows = slice(start, start + FILE_ROWS)
            table = pa.table({"image": pa.array(encoded[rows], pa.binary()), "label": labels[rows]})
            path = unfinished / f"part-{start // FILE_ROWS:04}.parquet"
            pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, compression="none")
        unfinished.rename(folder)
        single = DATA / "photos"
        single.mkdir(exist_ok=True)
        for i, photo in enumerate(encoded[:SINGLE_FILES]):
            (single / f"{i:04}.jpg").write_bytes(photo)
    return sorted(folder.glob("*.parquet"))


def describe(paths: list[Path]) -> str:
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    kilobytes = sum(path.stat().st_size for path in paths) / rows / 1e3
    each = f"{SIZE[0]} x {SIZE[1]}, quality 95, {kilobytes:.0f} kB each"
    return f"{rows:,} photos of {each}, in {len(paths)} files"


if __name__ == "__main__":
    print(describe(ensure(2048)))
