"""Real photographs, in every kind of JPEG and PNG."""

import importlib.util
import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image


@cache
def photo(name="china"):
    """A photograph of scikit-learn's, 640 x 427; its package is not imported."""
    folder = Path(importlib.util.find_spec("sklearn").origin).parent
    return Image.open(folder / "datasets" / "images" / f"{name}.jpg").convert("RGB")


def encode(image, kind="JPEG", **settings):
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


@cache
def jpeg(size=(500, 375), name="china", mode="RGB", **settings):
    """A photograph of (width, height), as JPEG."""
    return encode(photo(name).resize(size).convert(mode), **{"quality": 95, **settings})


def pillow(encoded, mode="RGB"):
    image = Image.open(io.BytesIO(encoded))
    return image.convert(mode)


def array(image):
    """As (height, width, channels)."""
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def difference(ours, image):
    """(mean, max) of the absolute difference; ours is HWC."""
    distance = np.abs(ours.astype(int) - array(image).astype(int))
    return distance.mean(), distance.max()
