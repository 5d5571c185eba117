"""Ops for tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

from penstock import _core
from penstock._op import NativeOp, Op

__all__ = ["spin"]


@dataclass(frozen=True)
class spin(Op):  # noqa: N801 - used like a function.
    """Pass the value on after keeping a processor busy for a while.

    The time is drawn per row from a lognormal distribution, keyed by the row's position in its row group, so
    that every run spends the same.

    Parameters
    ----------
    mean_us : float, default 100
        Mean time per row, in microseconds.
    sigma : float, default 0.5
        Spread of the distribution.
    heavy_every : int, default 0
        Every n-th row on average costs `heavy_factor` times as much; 0 for none.
    heavy_factor : float, default 100
        See `heavy_every`.
    is_sleep : bool, default False
        Sleep instead, which leaves the processor to others.
    """

    mean_us: float = 100.0
    sigma: float = 0.5
    heavy_every: int = 0
    heavy_factor: float = 100.0
    is_sleep: bool = False

    def _to_native(self) -> NativeOp:
        return _core.Spin(
            float(self.mean_us), float(self.sigma), self.heavy_every, float(self.heavy_factor), self.is_sleep
        )
