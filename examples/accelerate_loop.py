"""Hugging Face Accelerate over a loader: it wants a torch DataLoader, so it gets one around the loader.

pip install accelerate
python examples/accelerate_loop.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "line.parquet"
        x = torch.linspace(0, 1, 4096)
        pq.write_table(pa.table({"x": x.numpy(), "y": (2 * x).numpy()}), path)
        accelerator = Accelerator(cpu=True)
        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        rows = 0
        with ps.Loader(path, batch_size=128) as loader:
            # batch_size=None: the batches are made already.
            batches = torch.utils.data.DataLoader(loader.as_torch_dataset(), batch_size=None)
            model, optimizer, batches = accelerator.prepare(model, optimizer, batches)
            for _ in range(3):
                for batch in batches:
                    loss = ((model(batch["x"][:, None])[:, 0] - batch["y"]) ** 2).mean()
                    accelerator.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
                    rows += len(batch["x"])
    print(f"{rows} rows, loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
