"""A loader as torch's DataLoader wants its data sets. Imported only where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset, get_worker_info

if TYPE_CHECKING:
    from penstock._loader import Loader

__all__ = ["LoaderDataset"]


class LoaderDataset(IterableDataset[Any]):
    """The batches of a loader. Each iteration is one epoch of it.

    Parameters
    ----------
    loader : Loader
        Where the batches come from; closing it remains its owner's business.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        if info is not None:
            raise RuntimeError(
                f"a penstock.Loader was iterated over in worker {info.id} of a torch DataLoader: it has "
                f"threads of its own, and each of the {info.num_workers} workers would give every batch "
                "again. Pass num_workers=0 to the DataLoader, and num_workers=... to penstock.Loader"
            )
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)
