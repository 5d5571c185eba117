"""Lightning over a loader: `fit` takes it as it is, for any iterable with batches of tensors will do.

pip install lightning
python examples/lightning_loop.py
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import lightning
import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq
import torch


class Line(lightning.LightningModule):
    """Learns y = 2 x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.rows = 0

    def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        self.rows += len(batch["x"])
        return ((self.weight * batch["x"] - batch["y"]) ** 2).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # Lightning asks for its own DataLoader's workers, and for a GPU.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "line.parquet"
        x = torch.linspace(0, 1, 4096)
        pq.write_table(pa.table({"x": x.numpy(), "y": (2 * x).numpy()}), path)
        model = Line()
        trainer = lightning.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with ps.Loader(path, batch_size=128) as loader:
            trainer.fit(model, train_dataloaders=loader)
    print(f"{model.rows} rows, y = {model.weight.item():.2f} x")


if __name__ == "__main__":
    main()
