"""What Ray's own consumer does with a batch, by Ray's own code where there is anything to it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from penstock.ray._forms import NumberTensors, differs_in_arrow, ray_form
from penstock.ray._meter import Meter

__all__ = ["NOTHING", "RaySteps", "random_seed"]

#: A None that the user's code returned, on its way: with Ray it may, and to the native loader it is no batch.
NOTHING = object()


def random_seed() -> int:
    """Return a seed that nobody chose."""
    return secrets.randbits(63)


class RaySteps:
    """What Ray does with a batch: its format, collate_fn, finalize_fn."""

    def __init__(
        self,
        batch_format: str | None,
        collate_fn: Callable[[Any], Any] | None,
        finalize_fn: Callable[[Any], Any] | None,
    ) -> None:
        self._batch_format = batch_format
        self._collate_fn = collate_fn
        self._finalize_fn = finalize_fn

    def differs_in_arrow(self, block: Any) -> str | None:
        """Return why batches of such blocks are to be made by Ray's own code from the blocks as they are."""
        return differs_in_arrow(block, self._batch_format)

    def make(self, schema: pa.Schema | None, meter: Meter) -> Callable[[Any], Any]:
        """Return what makes of a batch of that schema (None: of Ray's blocks) what collate_fn returns."""
        form, collate_fn = ray_form(self._batch_format, schema), self._collate_fn

        def make(batch: Any) -> Any:
            with meter.form():
                data = form(batch)
            if collate_fn is None:
                return data
            with meter.collate():
                return _boxed(collate_fn(data))

        return make

    def finalize(self, meter: Meter) -> Callable[[Any], Any]:
        """Return what is done to it last, on the consumer's thread."""
        finalize_fn = self._finalize_fn
        is_there = _makes_tensors(self._collate_fn) and _leaves_tensors(finalize_fn)

        def finalize(data: Any) -> Any:
            if finalize_fn is None or is_there:
                return data
            with meter.finalize():
                done = finalize_fn(None if data is NOTHING else data)
            if not hasattr(done, "on_consume"):  # Ray 2.57 returns the data itself.
                return _boxed(done)
            if done.on_consume is not None:
                done.on_consume()
            return _boxed(done.data)

        return finalize

    def options(
        self, schema: pa.Schema, meter: Meter, has_nulls: Callable[[], bool] | None = None
    ) -> dict[str, Any]:
        """Return the arguments of `penstock.Loader` with which batches are what Ray gives.

        Parameters
        ----------
        schema : pyarrow.Schema
            Of the blocks.
        meter : Meter
            Takes the times.
        has_nulls : callable, optional
            Whether any block so far had nulls. Without it, Ray's code makes all batches.
        """
        make, finalize = self.make(schema, meter), self.finalize(meter)
        if has_nulls is None or not _makes_tensors(self._collate_fn) or not NumberTensors.suits(schema):
            return {"format": "arrow", "nulls": "mask", "collate_fn": make, "finalize_fn": finalize}
        tensors = NumberTensors(schema, make, has_nulls)
        return {
            "format": "torch",
            "nulls": "mask",
            "collate_fn": None,
            "finalize_fn": lambda batch: finalize(tensors(batch)),
        }


def _boxed(result: Any) -> Any:
    return NOTHING if result is None else result


def _makes_tensors(collate_fn: Any) -> bool:
    """Whether it is Ray's own, which makes one tensor of a column, of the column's type."""
    return (
        _is_of_ray(collate_fn, "DefaultCollateFn")
        and collate_fn.dtypes is None
        and getattr(collate_fn, "combine_chunks", False)
    )


def _leaves_tensors(finalize_fn: Any) -> bool:
    """Whether it is Ray's own, and takes tensors to the CPU: they are there."""
    return _is_of_ray(finalize_fn, "DefaultFinalizeFn") and finalize_fn._device.type == "cpu"


def _is_of_ray(function: Any, name: str) -> bool:
    kind = type(function)
    return kind.__name__ == name and kind.__module__.startswith("ray.data.")
