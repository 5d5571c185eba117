"""The programs in examples/on_ray, each with a Ray of its own."""

from __future__ import annotations

import faulthandler
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples" / "on_ray"
# Ray Train starts its workers twice, and each imports torch.
MOST_S = 400
pytestmark = pytest.mark.slow


def run_example(name: str, *arguments: str) -> str:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'penstock[ray]'")
    faulthandler.cancel_dump_traceback_later()
    faulthandler.dump_traceback_later(MOST_S + 10, exit=True)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True, timeout=MOST_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ray_train_goes_on_after_a_worker_was_killed(tmp_path: Any) -> None:
    pytest.importorskip("torch")
    said = run_example("train.py", "--storage", str(tmp_path))
    assert re.search(r"went on with epoch 1 .* ended epoch 2 with 2048 rows per worker, loss 0\.0", said)


def test_blocks_carry_jpeg() -> None:
    pytest.importorskip("sklearn")
    early, late = (
        int(kb.replace(",", "")) for kb in re.findall(r"([\d,]+) kB", run_example("late_transforms.py"))
    )
    assert early > 8 * late
