"""Ray Train with Penstock as the consumer: two workers, one of which is killed in the second epoch.

Ray Train starts the workers again from the last checkpoint, by its own means: what is saved is the model and
the number of the epoch. Takes CPUs alone (gloo).

    python examples/on_ray/train.py [--storage DIR]
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import penstock as ps
import ray
import ray.train
import torch
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model

ROWS, EPOCHS = 4096, 3


def add_columns(batch: dict[str, Any]) -> dict[str, Any]:
    x = batch["id"] / ROWS
    return {"x": x, "y": 3 * x + 1}


def train(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    begin = 0
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            saved = torch.load(Path(folder, "state.pt"))
        model.load_state_dict(saved["model"])
        begin = saved["epoch"] + 1
    model = prepare_model(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    rank = ray.train.get_context().get_world_rank()

    loader = ps.ray.Loader(
        ray.train.get_dataset_shard("train"),
        batch_size=64,
        dtypes=torch.float32,
        memory_budget="64MiB",
    )
    for epoch in range(begin, EPOCHS):
        loader.set_epoch(epoch)
        rows = 0
        for batch in loader:
            loss = torch.nn.functional.mse_loss(model(batch["x"][:, None]), batch["y"][:, None])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rows += len(batch["x"])
            if epoch == 1 and begin == 0 and rank == 1:
                time.sleep(10)  # Ray Train's controller learns of a checkpoint when it asks next.
                os.kill(os.getpid(), signal.SIGKILL)  # The machine fails.
        metrics = {"epoch": epoch, "began_with": begin, "loss": loss.item(), "rows": rows}
        with tempfile.TemporaryDirectory() as folder:
            saved = {"model": getattr(model, "module", model).state_dict(), "epoch": epoch}
            torch.save(saved, Path(folder, "state.pt"))
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--storage", default=tempfile.gettempdir())
    arguments = parser.parse_args()
    ray.init(num_cpus=3, object_store_memory=128 << 20, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.range(ROWS, override_num_blocks=8).map_batches(add_columns)
    trainer = TorchTrainer(
        train,
        scaling_config=ScalingConfig(num_workers=2, use_gpu=False),
        run_config=RunConfig(
            name="penstock", storage_path=arguments.storage, failure_config=FailureConfig(max_failures=1)
        ),
        datasets={"train": data},
    )
    metrics = trainer.fit().metrics
    ray.shutdown()
    print(
        f"went on with epoch {metrics['began_with']} after a worker was killed; ended epoch "
        f"{metrics['epoch']} with {metrics['rows']} rows per worker, loss {metrics['loss']:.5f}"
    )


if __name__ == "__main__":
    main()
