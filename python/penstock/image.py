"""Photos to tensors, on the workers, in C++, without the GIL.

The steps are a list, from JPEG or PNG bytes to an array of a fixed size:

>>> import penstock as ps
>>> steps = [
...     ps.image.decode(),
...     ps.image.random_resized_crop(224),
...     ps.image.random_horizontal_flip(),
...     ps.image.normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
... ]
>>> ps.Loader("photos/", transforms={"image": steps})  # doctest: +SKIP

A list is compiled into one pass over each image, in which only what the crop needs is decoded. Pixels are
those that Pillow gives (docs/image.md has the tolerances). What is random follows from the loader's seed, the
epoch, the row's file and its row there, whatever the workers: `drawn` says what came out.

The order is: `decode`; crops, flips and at most one resize; `to_float`, `normalize` and `layout`. Sizes are
(height, width). All steps are immutable, can be compared, hashed and pickled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from penstock import _core
from penstock._op import Chain, NativeOp, Op, check_int, number_type_name

__all__ = [
    "Step",
    "center_crop",
    "decode",
    "drawn",
    "layout",
    "normalize",
    "random_crop",
    "random_horizontal_flip",
    "random_resized_crop",
    "resize",
    "to_float",
    "transform",
]


class Step(Op):
    """One step on an image. Made by the functions of this module, given in a list or with ``|``."""

    def _to_step(self) -> _core.ImageStep:
        raise NotImplementedError


@dataclass(frozen=True)
class decode(Step):  # noqa: N801 - used like a function.
    """JPEG or PNG bytes to pixels; the first step.

    Which of the two it is, the bytes say. Gray, palette, 16-bit, CMYK and YCCK images become `mode`; an alpha
    channel is dropped, as by Pillow's ``convert``.

    Parameters
    ----------
    mode : "RGB" or "L", default "RGB"
        Three channels, or one (gray; of a JPEG its luminance, whose colours are not decoded).
    orientation : bool, default False
        Turn the image as its EXIF data says (``PIL.ImageOps.exif_transpose``).
    max_pixels : int, default 89,478,485
        Larger images are an error, raised before memory is taken for them.
    """

    mode: Literal["RGB", "L"] = "RGB"
    orientation: bool = False
    max_pixels: int = 89_478_485

    def __post_init__(self) -> None:
        if self.mode not in ("RGB", "L"):
            raise ValueError(f'mode is "RGB" or "L", got {self.mode!r}')
        check_int("max_pixels", self.max_pixels, 1)

    def _to_step(self) -> _core.ImageStep:
        return _core.ImageStep.decode(self.mode, bool(self.orientation), self.max_pixels)


@dataclass(frozen=True)
class resize(Step):  # noqa: N801
    """To another size: bilinear and antialiased, the same pixels as Pillow's ``resize(..., BILINEAR)``.

    Parameters
    ----------
    size : int or (int, int)
        (height, width), or the length of the shorter side, where the other keeps the ratio (then a crop must
        follow: all images of a column come out in one size).
    """

    size: int | tuple[int, int]

    def __post_init__(self) -> None:
        if isinstance(self.size, (tuple, list)):
            _make_size(self)
        else:
            check_int("size", self.size, 1)

    def _to_step(self) -> _core.ImageStep:
        if isinstance(self.size, tuple):
            return _core.ImageStep.resize(*self.size)
        return _core.ImageStep.resize(self.size, 0)


@dataclass(frozen=True)
class center_crop(Step):  # noqa: N801
    """The middle of the image, which must not be smaller.

    Parameters
    ----------
    size : int or (int, int)
        (height, width), or both in one.
    """

    size: int | tuple[int, int]

    def __post_init__(self) -> None:
        _make_size(self)

    def _to_step(self) -> _core.ImageStep:
        return _core.ImageStep.center_crop(*_pair(self.size))


@dataclass(frozen=True)
class random_crop(Step):  # noqa: N801
    """A box of this size at a place that is drawn; the image must not be smaller.

    Parameters
    ----------
    size : int or (int, int)
        (height, width), or both in one.
    """

    size: int | tuple[int, int]

    def __post_init__(self) -> None:
        _make_size(self)

    def _to_step(self) -> _core.ImageStep:
        return _core.ImageStep.random_crop(*_pair(self.size))


@dataclass(frozen=True)
class random_resized_crop(Step):  # noqa: N801
    """A box of an area and an aspect ratio that are drawn, at a place that is drawn, resized to `size`.

    As torchvision's transform of that name on a PIL image, with other random numbers.

    Parameters
    ----------
    size : int or (int, int)
        (height, width) of what comes out, or both in one.
    scale : (float, float), default (0.08, 1.0)
        Least and largest part of the image's area.
    ratio : (float, float), default (3/4, 4/3)
        Least and largest width / height; its logarithm is uniform.
    """

    size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        _make_size(self)
        for name in ("scale", "ratio"):
            values = _floats(name, getattr(self, name))
            if len(values) != 2 or not 0 < values[0] <= values[1]:
                raise ValueError(f"{name} is (least, largest), both above 0, got {values!r}")
            object.__setattr__(self, name, values)
        if self.scale[1] > 1:
            raise ValueError(f"scale is a part of the image's area, at most 1, got {self.scale!r}")

    def _to_step(self) -> _core.ImageStep:
        height, width = _pair(self.size)
        return _core.ImageStep.random_resized_crop(height, width, self.scale, self.ratio)


@dataclass(frozen=True)
class random_horizontal_flip(Step):  # noqa: N801
    """Left and right change places with probability `p`.

    Parameters
    ----------
    p : float, default 0.5
        In [0, 1].
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        (value,) = _floats("p", (self.p,))
        if not 0 <= value <= 1:
            raise ValueError(f"p is a probability, got {self.p!r}")
        object.__setattr__(self, "p", value)

    def _to_step(self) -> _core.ImageStep:
        return _core.ImageStep.random_horizontal_flip(self.p)


@dataclass(frozen=True)
class to_float(Step):  # noqa: N801
    """From bytes in [0, 255] to floats in [0, 1].

    Parameters
    ----------
    dtype : "float32" or "float16", default "float32"
        Or the NumPy, torch or Arrow type; kept as that str.
    """

    dtype: Any = "float32"

    def __post_init__(self) -> None:
        name = number_type_name(self.dtype)
        if name not in ("float16", "float32"):
            raise ValueError(f"images become float16 or float32, not {name}")
        object.__setattr__(self, "dtype", name)

    def _to_step(self) -> _core.ImageStep:
        return _core.ImageStep.to_float(self.dtype)


@dataclass(frozen=True)
class normalize(Step):  # noqa: N801
    """(x - mean) / std for each channel, where x is in [0, 1]; float32 where no `to_float` said otherwise.

    Parameters
    ----------
    mean, std : float or sequence of float
        One for all channels, or one for each. `std` is not 0.
    """

    mean: float | Sequence[float]
    std: float | Sequence[float]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            values = (value,) if isinstance(value, (int, float)) else value
            object.__setattr__(self, field.name, _floats(field.name, values))
        if 0 in self._values("std"):
            raise ValueError("std must not be 0")

    def _values(self, name: str) -> list[float]:
        return list(getattr(self, name))

    def _to_step(self) -> _core.ImageStep:
        return _core.ImageStep.normalize(self._values("mean"), self._values("std"))


@dataclass(frozen=True)
class layout(Step):  # noqa: N801
    """The order of the dimensions of what comes out; without it "CHW".

    Parameters
    ----------
    order : "CHW" or "HWC"
        Channels first or last.
    """

    order: Literal["CHW", "HWC"]

    def __post_init__(self) -> None:
        if self.order not in ("CHW", "HWC"):
            raise ValueError(f'the order is "CHW" or "HWC", got {self.order!r}')

    def _to_step(self) -> _core.ImageStep:
        return _core.ImageStep.layout(self.order)


def transform(
    encoded: bytes,
    steps: Chain | Iterable[Step],
    *,
    seed: int = 0,
    epoch: int = 0,
    row: int = 0,
    file: int = 0,
) -> npt.NDArray[Any]:
    """Run the steps on one image: what the loader does with that row.

    Parameters
    ----------
    encoded : bytes
        A JPEG or PNG file.
    steps : Chain or iterable of Step
        As for the loader. For a single image, too, they must fix the size (`resize((height, width))`, a
        crop): ``[decode()]`` alone is refused.
    seed, epoch, row, file : int, default 0
        The loader's seed, the epoch, the row in its file (the column ``ps.ROW_ID``) and the file's place in
        the list of files (the codes of ``ps.FILE``).

    Returns
    -------
    numpy.ndarray
        One image.

    Raises
    ------
    ValueError
        If the bytes are no image or a damaged one, the steps make no sense, or they leave the size open.
    """
    plan = _plan(steps)
    out = np.empty(plan.shape, plan.dtype)
    plan.apply(bytes(encoded), out, seed, epoch, file, row)
    return out


def drawn(
    steps: Chain | Iterable[Step],
    size: tuple[int, int],
    *,
    seed: int = 0,
    epoch: int = 0,
    row: int = 0,
    file: int = 0,
) -> list[dict[str, Any]]:
    """Say what random steps draw for a row.

    Parameters
    ----------
    steps : Chain or iterable of Step
        As for the loader.
    size : (int, int)
        (height, width) of that row's image (after its orientation).
    seed, epoch, row, file : int, default 0
        As for `transform`.

    Returns
    -------
    list of dict
        For each random step {"step": its name, "box": (top, left, height, width)} in pixels of the image as
        the step sees it, or {"step": its name, "flipped": bool}.
    """
    steps = _steps(steps)
    height, width = size
    result: list[dict[str, Any]] = []
    for number, *box, is_flipped in _plan(steps).draw(height, width, seed, epoch, file, row):
        step = steps[number]
        name = type(step).__name__
        if isinstance(step, random_horizontal_flip):
            result.append({"step": name, "flipped": is_flipped})
        else:
            result.append({"step": name, "box": tuple(box)})
    return result


def to_native(steps: Iterable[Step]) -> NativeOp:
    """Return the steps as the one op that they are for the native loader."""
    return _plan(steps).op()


def _steps(steps: Chain | Iterable[Step]) -> list[Step]:
    listed: list[Step] = []
    for step in steps.ops if isinstance(steps, Chain) else steps:
        if not isinstance(step, Step):
            raise TypeError(f"the steps on an image are those of ps.image, got {step!r}")
        listed.append(step)
    return listed


def _plan(steps: Chain | Iterable[Step]) -> _core.ImagePlan:
    return _core.ImagePlan([step._to_step() for step in _steps(steps)])


def _make_size(step: Any) -> None:
    if isinstance(step.size, (tuple, list)):
        if len(step.size) != 2:
            raise ValueError(f"size is an int or (height, width), got {step.size!r}")
        for extent in step.size:
            check_int("an extent of size", extent, 1)
        object.__setattr__(step, "size", (int(step.size[0]), int(step.size[1])))
    else:
        check_int("size", step.size, 1)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _floats(name: str, values: Any) -> tuple[float, ...]:
    try:
        floats = tuple(float(value) for value in values)
    except TypeError:
        raise TypeError(f"{name} takes numbers, got {values!r}") from None
    if isinstance(values, str) or not all(map(math.isfinite, floats)):
        raise ValueError(f"{name} takes finite numbers, got {values!r}")
    return floats
