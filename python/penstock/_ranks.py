"""Which rank of how many this process is."""

from __future__ import annotations

import os
import sys
import warnings

__all__ = ["resolve_ranks"]


def resolve_ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return (rank, world_size); what is None comes from torch.distributed or the environment, else (0, 1).

    Raises
    ------
    ValueError
        If one is given and the other cannot be found out, or they do not go together.
    """
    if rank is None or world_size is None:
        found = _from_torch() or _from_environment()
        if found is None:
            if rank is not None:
                raise ValueError(
                    f"rank={rank} needs a world_size: torch.distributed and the environment have none"
                )
            if world_size is not None and world_size != 1:
                raise ValueError(
                    f"world_size={world_size} needs a rank: torch.distributed and the environment have none"
                )
            found = (0, 1)
        rank = found[0] if rank is None else rank
        world_size = found[1] if world_size is None else world_size
    if world_size < 1:
        raise ValueError(f"world_size must be at least 1, got {world_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be at least 0 and below world_size={world_size}, got {rank}")
    return rank, world_size


def _from_torch() -> tuple[int, int] | None:
    distributed = sys.modules.get("torch.distributed")  # Whoever has initialised it has imported it.
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _from_environment() -> tuple[int, int] | None:
    texts = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE")]
    if None in texts:
        # Launchers set both. One alone may be a leftover, or all that is left of a launcher's two.
        if texts != [None, None] and texts != [None, "1"]:
            warnings.warn(
                f"the environment has RANK={texts[0]} and WORLD_SIZE={texts[1]}: with one of them alone this "
                "process reads all rows; set both, or pass rank and world_size",
                RuntimeWarning,
                stacklevel=4,
            )
        return None
    try:
        rank, world_size = (int(text or "") for text in texts)
    except ValueError:
        raise ValueError(
            f"the environment has RANK={texts[0]!r} and WORLD_SIZE={texts[1]!r}, which are no numbers; "
            "pass rank and world_size, or correct them"
        ) from None
    return rank, world_size
