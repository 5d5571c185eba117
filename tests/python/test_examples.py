"""The examples run, and print what they claim. They skip, and say so, where their package is missing."""

from __future__ import annotations

import faulthandler
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# Importing torch and a framework around it takes seconds.
MOST_S = 120

pytestmark = pytest.mark.slow


def run_example(name: str, *args: str, needs: tuple[str, ...]) -> str:
    for package in needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"examples/{name} needs {package}")
    faulthandler.cancel_dump_traceback_later()
    faulthandler.dump_traceback_later(MOST_S + 10, exit=True)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *args], capture_output=True, text=True, timeout=MOST_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "needs", "says"),
    [
        ("collate_padding.py", ("torch",), "1000 sentences"),
        ("collate_arrays.py", (), "bytes of matrices at once"),
        ("collate_dataclass.py", ("torch",), "10 batches, the last of 392 ratings"),
        ("lightning_loop.py", ("torch", "lightning"), "12288 rows, y = "),
        ("accelerate_loop.py", ("torch", "accelerate"), "12288 rows, loss 0.0"),
        ("ddp_loop.py", ("torch",), "8192 rows on 2 ranks"),
        ("metrics.py", ("torch",), "the last of 200000 rows"),
        ("packed_tokens.py", ("torch",), "none of them padding; loss 0.0"),
    ],
)
def test_example(name: str, needs: tuple[str, ...], says: str) -> None:
    """In other people's loops: each small program runs on the CPU with data that it writes itself."""
    assert says in run_example(name, needs=needs)


def test_metrics_for_tensorboard(tmp_path: Path) -> None:
    """examples/metrics.py writes event files that TensorBoard reads."""
    out = run_example("metrics.py", str(tmp_path), needs=("torch", "tensorboard"))
    assert "200000 rows" in out
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_photos(tmp_path: Path) -> None:
    """The demo's second act learns, here from scikit-learn's two photographs alone."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        pytest.skip("the photographs are scikit-learn's")
    packages = Path(found.origin).parents[1]
    prepared = run_example("photos/prepare.py", str(packages), str(tmp_path), needs=("PIL",))
    assert prepared.startswith("result: ")
    out = run_example("photos/train.py", str(tmp_path), needs=("torch",))
    shares = [float(line.split()[-1].rstrip("%")) for line in out.splitlines() if line.endswith("%")]
    assert len(shares) == 3
    assert shares[2] > shares[0] + 10, out
