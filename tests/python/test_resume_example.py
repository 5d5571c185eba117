"""examples/resume: a run that is killed and started again is the run that was not."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from support import write_row_groups

EXAMPLE = Path(__file__).parents[2] / "examples" / "resume" / "train.py"
ROWS = 1300

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def watchdog(real_stderr: int) -> Iterator[None]:
    """As everywhere, but processes that import torch take their time."""
    faulthandler.dump_traceback_later(180, exit=True, file=real_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def data(tmp_path: Path) -> str:
    table = pa.table({"x": range(ROWS), "y": [2.0 * x + 3 for x in range(ROWS)]})
    return write_row_groups(tmp_path / "data.parquet", table, [500, 0, 300, 500])


def start(data: str, checkpoint: Path, log: Path, *more: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(EXAMPLE), data, str(checkpoint), "--log", str(log), *more]
    return subprocess.Popen(command, env={**os.environ, **environment})


def steps_of(log: Path) -> list[tuple[str, ...]]:
    return [tuple(line.split()) for line in log.read_text().splitlines()] if log.exists() else []


def test_killed_in_mid_epoch_and_started_again(data: str, tmp_path: Path) -> None:
    """Batch by batch, loss by loss, as the run that nobody disturbed."""
    assert start(data, tmp_path / "whole.pt", tmp_path / "whole.log").wait() == 0
    whole = steps_of(tmp_path / "whole.log")
    checkpoint, logs, codes = tmp_path / "killed.pt", [], []
    for kill_after in (17, 38, None):
        log = tmp_path / f"after-{kill_after}.log"
        # Step by step, so that there is time to be killed.
        process = start(data, checkpoint, log, "--every", "1")
        while process.poll() is None:
            if kill_after is not None and len(steps_of(log)) >= kill_after:
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(0.001)
        codes.append(process.returncode)
        logs.append(steps_of(log))
    assert codes[0] == -signal.SIGKILL
    assert codes[1] in (0, -signal.SIGKILL)  # Whoever looks late may find it at its end.
    assert codes[2] == 0
    assert len(logs[0]) >= 17
    # What was done after the last checkpoint is done again.
    replayed: dict[tuple[str, str], tuple[str, ...]] = {}
    for step in (step for log in logs for step in log if len(step) > 2):
        replayed[step[0], step[2]] = step
    assert [replayed[step[0], step[2]] for step in whole] == whole
    assert len(replayed) == len(whole)


def run_ranks(data: str, tmp_path: Path, world_size: int, *more: str) -> list[list[int]]:
    """The rows of each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    logs = [tmp_path / f"{world_size}-{rank}.log" for rank in range(world_size)]
    processes = [
        start(
            data,
            tmp_path / "elastic.pt",
            log,
            *more,
            RANK=str(rank),
            WORLD_SIZE=str(world_size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank, log in enumerate(logs)
    ]
    assert [process.wait() for process in processes] == [0] * world_size
    return [[int(x) for step in steps_of(log) for x in step[2:]] for log in logs]


def test_four_ranks_leave_and_three_go_on(data: str, tmp_path: Path) -> None:
    """Each row of the epoch once, but for fewer than three."""
    four = run_ranks(data, tmp_path, 4, "--epochs", "1", "--steps", "6")
    assert [len(rows) for rows in four] == [6 * 32] * 4
    three = run_ranks(data, tmp_path, 3, "--epochs", "1")
    assert len({len(rows) for rows in three}) == 1
    counts = Counter(row for rows in (*four, *three) for row in rows)
    assert set(counts.values()) == {1}
    assert ROWS - 3 < len(counts) <= ROWS
