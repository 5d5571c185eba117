"""Photos through Ray: decoded by map tasks before the object store, or by Penstock behind it.

The same 224 x 224 crops either way; what differs is what the blocks carry. Prints the bytes of the blocks,
which are what lies in the object store and what goes between nodes.

    python examples/on_ray/late_transforms.py [--photos 256]
"""

from __future__ import annotations

import argparse
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import ray
from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photos(count: int) -> pa.Table:
    """JPEGs of 500 x 375 pixels, made of the photograph that scikit-learn carries."""
    folder = Path(importlib.util.find_spec("sklearn").origin).parent / "datasets" / "images"
    photo = Image.open(folder / "china.jpg").convert("RGB")
    jpegs = []
    for number in range(min(count, 32)):
        file = io.BytesIO()
        photo.rotate(number).resize((500, 375)).save(file, "JPEG", quality=90)
        jpegs.append(file.getvalue())
    return pa.table({"image": [jpegs[number % len(jpegs)] for number in range(count)], "label": range(count)})


def decode(batch: dict[str, Any]) -> dict[str, Any]:
    """What a map task does before the store."""
    images = []
    for jpeg in batch["image"]:
        image = Image.open(io.BytesIO(jpeg)).convert("RGB").resize((298, 224)).crop((37, 0, 261, 224))
        pixels = (np.asarray(image, np.float32) / 255 - MEAN) / STD
        images.append(pixels.transpose(2, 0, 1).astype(np.float32))
    return {"image": np.stack(images), "label": batch["label"]}


def consume(loader: ps.ray.Loader) -> tuple[int, tuple[int, ...]]:
    rows, shape = 0, ()
    for batch in loader:
        rows, shape = rows + len(batch["label"]), tuple(batch["image"].shape[1:])
    return rows, shape


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=256)
    count = parser.parse_args().photos
    ray.init(num_cpus=2, object_store_memory=512 << 20, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    table = photos(count)
    data = ray.data.from_arrow([table.slice(begin, 32) for begin in range(0, count, 32)])

    early = data.map_batches(decode, batch_size=32).materialize()
    late_transform = (
        ps.image.decode()
        | ps.image.resize(224)
        | ps.image.center_crop(224)
        | ps.image.to_float()
        | ps.image.normalize(MEAN, STD)
    )
    loaders = {
        "before the store": (early, ps.ray.Loader(early, batch_size=32)),
        "in the consumer": (data, ps.ray.Loader(data, batch_size=32, transforms={"image": late_transform})),
    }
    for name, (blocks, loader) in loaders.items():
        rows, shape = consume(loader)
        store = loader.memory()["store"]["peak_bytes"]
        print(
            f"decoded {name}: {rows} photos of {shape}, {blocks.size_bytes() / rows / 1e3:,.0f} kB per photo "
            f"in blocks, at most {store / 2**20:.1f} MiB of the store held by the consumer"
        )
    del early, loaders
    ray.shutdown()


if __name__ == "__main__":
    main()
