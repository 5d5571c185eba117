"""Train with checkpoints that hold the loader's place: kill it, start it again, with more or fewer ranks.

    python examples/resume/train.py data/ run.pt
    torchrun --nproc-per-node 4 examples/resume/train.py data/ run.pt

Any rank's state serves all of them, since they step together: rank 0 saves its own.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import penstock as ps
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def save(path: Path, content: dict[str, Any]) -> None:
    """Replace the checkpoint as a whole: whoever is killed meanwhile leaves the one before."""
    unfinished = path.with_suffix(".unfinished")
    torch.save(content, unfinished)
    os.replace(unfinished, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit y = a * x + b.")
    parser.add_argument("data", help="Parquet files with columns x and y")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--every", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--steps", type=int, default=None, help="leave after so many")
    parser.add_argument("--log", type=Path, default=None, help="write the rows of each step to this file")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    is_distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if is_distributed:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if is_distributed else 0

    model: torch.nn.Module = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # Rank and world size: found.
    loader = ps.Loader(arguments.data, batch_size=32, columns=["x", "y"], num_workers=1, shuffle=True, seed=0)
    if arguments.checkpoint.exists():
        checkpoint = torch.load(arguments.checkpoint)
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        loader.load_state_dict(checkpoint["loader"])
    trained = DistributedDataParallel(model) if is_distributed else model

    log = arguments.log.open("a") if arguments.log else None
    step = 0
    while (epoch := loader.state_dict()["epoch"]) < arguments.epochs and step != arguments.steps:
        for batch in loader:
            x, y = batch["x"].float().unsqueeze(1), batch["y"].float().unsqueeze(1)
            loss = torch.nn.functional.mse_loss(trained(x / 1000), y / 1000)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if log is not None:
                print(epoch, f"{loss.item():.9g}", *batch["x"].tolist(), file=log, flush=True)
            if rank == 0 and (step % arguments.every == 0 or step == arguments.steps):
                content = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                save(arguments.checkpoint, {**content, "loader": loader.state_dict()})
            if step == arguments.steps:
                break
    loader.close()
    if is_distributed:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
