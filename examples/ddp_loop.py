"""Two processes train one model with DistributedDataParallel, each on its half of the rows.

    python examples/ddp_loop.py

Every rank must see the same number of batches, or the others wait for it. A loader finds out from
torch.distributed which rank it is of how many, and all ranks get as many rows.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORLD_SIZE = 2


def write(folder: str) -> None:
    for part in range(4):
        x = torch.linspace(0, 1, 1024) + part
        pq.write_table(
            pa.table({"x": x.numpy(), "y": (2 * x).numpy()}), Path(folder) / f"part-{part}.parquet"
        )


def train(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD_SIZE
    )
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    rows = torch.zeros(())
    # The loader is made in the process that uses it: its threads do not survive a fork.
    with ps.Loader(f"{folder}/*.parquet", batch_size=128, drop_last=True, num_workers=1) as loader:
        for _ in range(2):
            for batch in loader:
                optimizer.zero_grad()
                loss = ((model(batch["x"][:, None])[:, 0] - batch["y"]) ** 2).mean()
                loss.backward()
                optimizer.step()
                rows += len(batch["x"])
    dist.all_reduce(rows)
    if rank == 0:
        print(f"{int(rows)} rows on {WORLD_SIZE} ranks, loss {loss.item():.4f}", flush=True)
    dist.destroy_process_group()


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        write(folder)
        mp.spawn(train, args=(folder,), nprocs=WORLD_SIZE)


if __name__ == "__main__":
    main()
