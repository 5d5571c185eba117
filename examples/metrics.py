"""What a loader does, on a dashboard: Weights-and-Biases-like loggers, and TensorBoard.

python examples/metrics.py [FOLDER]    # with FOLDER: also for `tensorboard --logdir FOLDER`
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq


class Run:
    """Stands for `wandb.init()`: all that is needed of it is `log(dict)`."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def log(self, scalars: dict[str, float]) -> None:
        self.logged.append(scalars)


def to_tensorboard(folder: str) -> Callable[[ps.Stats], None]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)

    def on_stats(stats: ps.Stats) -> None:
        for name, value in stats.to_scalars("penstock/").items():
            writer.add_scalar(name, value, global_step=stats.to_dict()["batches"])
        writer.flush()

    return on_stats


def main(tensorboard_folder: str | None) -> None:
    run = Run()
    sinks: list[Callable[[ps.Stats], None]] = [lambda stats: run.log(stats.to_scalars("penstock/"))]
    if tensorboard_folder is not None:
        sinks.append(to_tensorboard(tensorboard_folder))

    def on_stats(stats: ps.Stats) -> None:
        for sink in sinks:
            sink(stats)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "numbers.parquet"
        pq.write_table(pa.table({"x": range(100_000)}), path)
        with ps.Loader(path, batch_size=1000, on_stats=on_stats, on_stats_every_s=0.05) as loader:
            for _ in range(2):
                for _ in loader:
                    pass
    last = run.logged[-1]
    print(f"{len(run.logged)} reports, the last of {last['penstock/rows']:.0f} rows")


if __name__ == "__main__":
    main(*sys.argv[1:2] or [None])
