"""A collate_fn that makes of a batch a dict of arrays: features side by side in one matrix.

python examples/collate_arrays.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = ["height", "width", "depth"]


def collate(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The new matrix is charged to the account "python"; the labels stay a view of the slot."""
    return {"x": np.stack([batch[name] for name in FEATURES], axis=1), "y": batch["label"]}


def main() -> None:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "boxes.parquet"
        columns = {name: random.random(10_000, np.float32) for name in FEATURES}
        pq.write_table(pa.table({**columns, "label": random.integers(0, 2, 10_000)}), path)
        with ps.Loader(path, batch_size=256, format="numpy", collate_fn=collate) as loader:
            total = sum(float(batch["x"].sum()) for batch in loader)
            memory = loader.memory()
        print(f"sum {total:.1f}, at most {memory['python']['peak_bytes']} bytes of matrices at once")


if __name__ == "__main__":
    main()
