"""A collate_fn that makes of a batch an object of your own, and a finalize_fn that runs last, in order.

python examples/collate_dataclass.py
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq
import torch


@dataclass(frozen=True)
class Ratings:
    """One batch of a recommender."""

    user: torch.Tensor
    item: torch.Tensor
    stars: torch.Tensor
    number: int = -1

    @classmethod
    def of(cls, batch: dict[str, torch.Tensor]) -> Ratings:
        return cls(batch["user"], batch["item"], batch["stars"].float() / 5)


class Counter:
    """Runs on the caller's thread, one batch at a time: it may keep state without a lock."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, ratings: Ratings) -> Ratings:
        self.count += 1
        return replace(ratings, number=self.count)


def main() -> None:
    rows = 5_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratings.parquet"
        columns = {
            "user": [i % 97 for i in range(rows)],
            "item": [i % 31 for i in range(rows)],
            "stars": [1 + i % 5 for i in range(rows)],
        }
        pq.write_table(pa.table(columns), path)
        with ps.Loader(path, batch_size=512, collate_fn=Ratings.of, finalize_fn=Counter()) as loader:
            for ratings in loader:
                assert ratings.user.shape == ratings.stars.shape
        print(f"{ratings.number} batches, the last of {len(ratings.user)} ratings")


if __name__ == "__main__":
    main()
