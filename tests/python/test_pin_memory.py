"""`pin_memory=`: with a stand-in for NVIDIA's driver (fake_cuda.py), and on a real GPU where there is one."""

from __future__ import annotations

from typing import Any

import fake_cuda
import penstock as ps
import pytest
from penstock._epoch import UserCode
from penstock._loader import _pin_memory
from support import quiet_loader, run_python

torch = pytest.importorskip("torch")

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = fake_cuda.build(tmp_path_factory.mktemp("driver"))
    if path is None:
        pytest.skip("no C++ compiler")
    return path


def run_with(driver: str, code: str, *args: str) -> None:
    """Runs code with the stand-in `cuda` and numbers() in an interpreter of its own."""
    begin = """
import gc, sys
import numpy as np
import penstock as ps
import pyarrow as pa
from fake_cuda import FakeCuda
from support import current_bytes, quiet_loader, rows_of

cuda = FakeCuda(sys.argv[1])
ROWS = 150_000  # Over 1 MiB: one batch is a slot.

def loader_of(batches=6, **options):
    table = pa.table({"x": np.arange(batches * ROWS)})
    return quiet_loader(table, **{"batch_size": ROWS, "num_workers": 2, "pin_memory": True, **options})

def address_of(batch):
    values = batch["x"]
    if isinstance(values, np.ndarray):
        return values.ctypes.data
    return values.buffers()[1].address if isinstance(values, pa.Array) else values.data_ptr()
"""
    result = run_python(begin + code, driver, *args)
    assert result.returncode == 0, result.stderr.decode()


# --- Without a driver -------------------------------------------------------------------------------------


@pytest.mark.skipif(fake_cuda.has_driver(), reason="there is a driver here")
def test_no_driver(numbers: str) -> None:
    """It is looked for when the loader is made; the error says what to do."""
    with pytest.raises(RuntimeError, match=r"NVIDIA's driver, and there is none.*or leave pin_memory out"):
        quiet_loader(numbers, pin_memory=True)


def test_wrong_arguments(numbers: str) -> None:
    """A bool; and not for frames, which are copies."""
    with pytest.raises(TypeError, match="pin_memory is True or False"):
        quiet_loader(numbers, pin_memory="yes")
    with pytest.raises(ValueError, match="no use with format='pandas'"):
        quiet_loader(numbers, pin_memory=True, format="pandas")


def test_a_device_pins_where_possible() -> None:
    """device="cuda" locks by itself, and is content without; pin_memory=True insists."""
    on_gpu = UserCode(device=torch.device("cuda", 1))
    assert _pin_memory({"pin_memory": False, "_pin_for_device": True}, UserCode()) == "no"
    assert _pin_memory({"pin_memory": False, "_pin_for_device": True}, on_gpu) == "where possible"
    assert _pin_memory({"pin_memory": False, "_pin_for_device": False}, on_gpu) == "no"
    assert _pin_memory({"pin_memory": True, "_pin_for_device": True}, on_gpu) == "required"


# --- With the stand-in ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "more"),
    [
        ("torch", "{}"),
        ("arrow", "{}"),
        ("numpy", "{'shuffle': True, 'shuffle_window': '16MiB'}"),
        ("numpy", "{'num_workers': 0}"),
    ],
)
def test_batches_are_locked_once(driver: str, format: str, more: str) -> None:
    """Whatever the format, each slot is locked once for all batches and epochs, and unlocked at the end."""
    run_with(
        driver,
        """
loader = loader_of(format=sys.argv[2], prefetch_batches=1, **eval(sys.argv[3]))
assert "pin_memory=True" in repr(loader)
for _ in range(4):
    rows = []
    for batch in loader:
        assert cuda.is_locked(address_of(batch)) and cuda.is_locked(address_of(batch) + 8 * ROWS - 1)
        rows.append(np.asarray(batch["x"]).copy())
    assert (np.sort(np.concatenate(rows)) == np.arange(6 * ROWS)).all()
stats, plan = loader.stats().to_dict(), loader.explain().to_dict()
assert 1 < cuda.get("locks") == stats["slots_locked"] <= plan["slots"], (stats, plan)
assert plan["locked_bytes"] == plan["slots"] * plan["slot_bytes"]
assert "page-locked" in str(loader.stats()) and "page-locked" in str(loader.explain())
del batch
gc.collect()
assert loader.memory()["slots"]["current_bytes"] == cuda.get("locked_bytes")  # Kept for the next epoch.
loader.close()
assert set(current_bytes(loader)) == set()
del loader
gc.collect()
cuda.assert_all_is_given_back()
""",
        format,
        more,
    )


def test_user_code_and_kept_batches(driver: str) -> None:
    """Views that collate_fn returns stay locked until they die; nothing is locked after close()."""
    run_with(
        driver,
        """
import threading

loader = loader_of(collate_fn=lambda batch: batch["x"][10:20], collate_workers=2)
kept = []
thread = threading.Thread(target=lambda: kept.extend(next(iter(loader)) for _ in range(2)))
thread.start()
thread.join()
loader.close()
assert len(kept) == 2 and cuda.get("locked_now") == 2
locks = cuda.get("locks")
assert all(cuda.is_locked(values.ctypes.data) for values in kept)
assert kept[0].tolist() == list(range(10, 20))
del loader
kept.pop()
assert cuda.get("locked_now") == 1
kept.clear()
assert cuda.get("locks") == locks
cuda.assert_all_is_given_back()
""",
    )


def test_leaving_early(driver: str) -> None:
    """After a break and garbage collection nothing stays locked but what is kept for the next epoch."""
    run_with(
        driver,
        """
loader = loader_of()
for _ in range(5):
    for batch in loader:
        break
    batches = iter(loader)
    next(batches)
    del batches
locks = cuda.get("locks")
assert locks <= loader.explain().to_dict()["slots"] + loader.stats().to_dict()["slots_grown"] + 1, locks
del loader, batch
gc.collect()
cuda.assert_all_is_given_back()
""",
    )


def test_pickling(driver: str) -> None:
    """A loader keeps it."""
    run_with(
        driver,
        """
import pickle

assert "pin_memory=True" in repr(pickle.loads(pickle.dumps(loader_of())))
""",
    )


def test_the_end_of_the_interpreter(driver: str) -> None:
    """Loaders and batches that are there at exit do no harm, also where the driver is gone by then."""
    run_with(
        driver,
        """
import atexit

loader, other = loader_of(), loader_of()
batches = iter(loader), iter(other)
batch = next(batches[0]), next(batches[1])
atexit.register(cuda.set, "is_down", 1)  # The first to run.
""",
    )


def test_a_forked_child(driver: str) -> None:
    """What is locked is the parent's: the child can read batches and let go of them; CUDA is not asked."""
    run_with(
        driver,
        """
import os

loader = loader_of()
batches = iter(loader)
batch = next(batches)
idle = loader_of()
list(idle)
pid = os.fork()
if pid == 0:
    unlocks, retained = cuda.get("unlocks"), cuda.get("retained")
    assert batch["x"][:3].tolist() == [0, 1, 2]
    del batch, batches, loader, idle
    gc.collect()
    assert (cuda.get("unlocks"), cuda.get("retained"), cuda.get("wrong")) == (unlocks, retained, 0)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert len(list(map(len, batches))) == 5
del batch, batches, loader, idle
gc.collect()
cuda.assert_all_is_given_back()
""",
    )


def test_what_the_driver_refuses(driver: str) -> None:
    """With pin_memory=True an error that says what to do; a loader can go on when it is granted."""
    run_with(
        driver,
        """
loader = loader_of()
cuda.set("refuse_from", 0)
try:
    next(iter(loader))
except RuntimeError as error:
    assert "a slot of 1.1 MiB cannot be page-locked" in str(error), error
    assert "CUDA_ERROR_OUT_OF_MEMORY" in str(error) and "lower batch_size" in str(error), error
else:
    raise AssertionError("no error")
cuda.set("refuse_from", -1)
assert sum(len(batch["x"]) for batch in loader) == 6 * ROWS
cuda.set("num_devices", 0)
try:
    loader_of()
except RuntimeError as error:
    assert "finds no GPU" in str(error), error
else:
    raise AssertionError("no error")
""",
    )


GPU_1 = """
import penstock._loader
import torch
from penstock._device import DeviceCopier

penstock._loader.check_device = lambda device, format: torch.device("cuda", 1)
DeviceCopier.__init__ = lambda self, core, device: None
DeviceCopier.copy = lambda self, batch: (batch, None)
DeviceCopier.deliver = lambda self, batch, event: batch

def loader_for_gpu(**options):
    return loader_of(pin_memory=False, device="cuda", **options)
"""


def test_a_device_locks_by_itself(driver: str) -> None:
    """device="cuda:1" locks slots in that GPU's context, and waits for it where user code may copy."""
    run_with(
        driver,
        GPU_1
        + """
for collate_fn in (None, lambda batch: batch):
    loader = loader_for_gpu(collate_fn=collate_fn)
    for number, batch in enumerate(loader):
        assert cuda.is_locked(address_of(batch)) and batch["x"][0] == number * ROWS
    assert number == 5 and loader.stats().to_dict()["slots_locked"] > 0
    assert cuda.get("retained") == cuda.get("retained_1") == 1
    assert (cuda.get("waits") > 0) == (collate_fn is not None)
    loader.close()
    del loader, batch
    gc.collect()
    cuda.assert_all_is_given_back()
loader = loader_for_gpu(_pin_for_device=False)
next(iter(loader))
assert loader.stats().to_dict()["slots_locked"] == 0
""",
    )


def test_a_device_goes_on_without(driver: str) -> None:
    """For device="cuda" a refusal is a warning, once, and stands in the statistics; batches are right."""
    run_with(
        driver,
        GPU_1
        + """
import warnings

loader = loader_for_gpu()
cuda.set("refuse_from", 1)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        assert rows_of(loader) == list(range(6 * ROWS))
(warning,) = caught
assert warning.category is RuntimeWarning
assert "not page-locked, which makes copying them slower: a slot of 1.1 MiB" in str(warning.message), warning
stats = loader.stats()
assert stats.to_dict()["slots_locked"] == 1 and "out of memory" in stats.to_dict()["lock_refusal"]
assert "not page-locked" in str(stats)
""",
    )


def test_a_tight_budget(driver: str) -> None:
    """Invariant 1 with the least budget, arenas and a shuffle: what is kept between epochs makes room."""
    run_with(
        driver,
        """
from support import assert_within_budget

texts = pa.table({"x": np.arange(20_000), "text": ["a" * (i % 300) for i in range(20_000)]})
for shuffle in (False, True):
    options = {"batch_size": 1000, "num_workers": 2, "pin_memory": True, "format": "arrow"}
    options |= {"shuffle": shuffle, "shuffle_window": "1MiB", "seed": 3}
    least = quiet_loader(texts, **options).explain().to_dict()["least_budget_bytes"]
    loader = quiet_loader(texts, **options, memory_budget=least)
    for _ in range(3):
        batches = [batch["text"].to_pylist() for batch in loader]
        assert sorted(sum(batches, [])) == sorted(texts["text"].to_pylist())
    assert_within_budget(loader)
    loader.close()
    assert set(current_bytes(loader)) <= {"user"}
    del loader
    gc.collect()
    cuda.assert_all_is_given_back()
""",
    )


# --- With a GPU -------------------------------------------------------------------------------------------


def batches_of(loader: Any) -> list[int]:
    """The sums of x, computed on the GPU from copies that nobody waits for."""
    sums = []
    for batch in loader:
        assert batch["x"].is_pinned()
        on_gpu = batch["x"].to("cuda", non_blocking=True)
        del batch
        torch.cuda._sleep(10_000_000)  # The consumer runs ahead of the GPU.
        sums.append(on_gpu.sum())
    return [int(total) for total in sums]


@needs_cuda
def test_torch_sees_pinned_memory(numbers: str) -> None:
    """Copies from batches that are dropped at once are right: a slot is not used again before it was read."""
    with ps.Loader(numbers, 100, pin_memory=True) as loader:
        for _ in range(3):
            assert batches_of(loader) == [sum(range(i, i + 100)) for i in range(0, 1000, 100)]


@needs_cuda
def test_a_device_copies_from_pinned_memory(numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """device="cuda" has its slots locked; what it copies is right, and at most one batch ahead."""
    from penstock._device import DeviceCopier

    seen: list[bool] = []
    copy = DeviceCopier.copy

    def watched(self: DeviceCopier, batch: Any) -> Any:
        seen.append(batch["x"].is_pinned())
        return copy(self, batch)

    monkeypatch.setattr(DeviceCopier, "copy", watched)
    with ps.Loader(numbers, 100, device="cuda") as loader:
        for number, batch in enumerate(loader):
            assert len(seen) <= number + 2
            assert batch["x"].cpu().tolist() == list(range(100 * number, 100 * number + 100))
        assert all(seen)
        assert loader.stats().to_dict()["lock_refusal"] == ""
