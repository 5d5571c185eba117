"""Clause 25 of the checklist: where the time went, whether it adds up, and what the verdict says."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support import quiet_loader, watched_files, work_for, write_row_groups

BUSY = ("plan", "read", "decode", "transform")
WAITS = ("slot", "budget", "work")


def stats_of(loader: ps.Loader) -> dict[str, Any]:
    return dict(loader.stats().to_dict())


def run_epoch(loader: ps.Loader, step_s: float = 0) -> int:
    rows = 0
    for batch in loader:
        rows += len(next(iter(batch.values())))
        if step_s:
            work_for(step_s)
    return rows


def write_numbers(folder: Path, sizes: list[int], columns: int = 1, **options: Any) -> str:
    x = np.arange(sum(sizes))
    table = pa.table({"x": x, **{f"c{i}": x * 7919 % 1_000_003 + i for i in range(columns - 1)}})
    return write_row_groups(folder / "data.parquet", table, sizes, **options)


def assert_adds_up(values: dict[str, Any], most_worker_s: float) -> None:
    """What workers did and lacked is their life's time, what the caller did and lacked is the run's."""
    stages = values["stages"]
    assert set(stages) == {*BUSY, *WAITS}
    for name, stage in stages.items():
        assert min(stage.values()) >= 0
        assert stage["wait_s" if name in BUSY else "busy_s"] == 0
    spent = sum(stage["busy_s"] + stage["wait_s"] for stage in stages.values())
    assert spent == pytest.approx(values["worker_s"], rel=1e-9)
    assert spent <= most_worker_s
    assert values["step_s"] + values["consumer_wait_s"] == pytest.approx(values["elapsed_s"], rel=1e-6)
    wait_ms = values["wait_ms"]
    assert 0 <= wait_ms["p50"] <= wait_ms["p99"] <= wait_ms["max"]
    assert wait_ms["mean"] <= wait_ms["max"]
    assert values["first_batch_s"] <= values["elapsed_s"]


# --- It adds up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
@pytest.mark.parametrize("direct", [True, False])
def test_attribution_adds_up(tmp_path: Path, num_workers: int, direct: bool) -> None:
    """Clause 25: busy and waiting times are the workers' lives, never more than the clock allows; counts
    are exact."""
    sizes = [5000] * 10
    path = write_numbers(tmp_path, sizes, columns=3)
    begun = time.perf_counter()
    loader = quiet_loader(path, batch_size=500, num_workers=num_workers, _direct_decode=direct)
    for epoch in range(1, 4):
        assert run_epoch(loader, step_s=0.0002) == sum(sizes)
        values = stats_of(loader)
        most = (time.perf_counter() - begun) * max(1, num_workers)
        assert_adds_up(values, most)
        assert (values["epochs"], values["batches"], values["rows"]) == (
            epoch,
            epoch * 100,
            epoch * sum(sizes),
        )
        if num_workers > 0:  # Little of a worker's life is neither: starting, ending, taking the ticket.
            print(f"{values['worker_s'] / most:.2f} of the most that there can be")
    assert values["step_s"] >= 0.0002 * 3 * 99
    # With workers' waits there is somebody who waits; with none there is nobody.
    assert num_workers > 0 or sum(values["stages"][name]["wait_s"] for name in WAITS) == 0


def test_the_time_runs_from_when_the_epoch_is_asked_for(tmp_path: Path) -> None:
    """A filter and a shuffle read the files to count rows before the first batch is asked for."""
    path = write_numbers(tmp_path, [2000] * 10, columns=3)
    files = watched_files(lambda _: work_for(0.02))
    loader = quiet_loader(path, batch_size=1000, filter=pc.field("c0") >= 0, shuffle=True, filesystem=files)
    begun = time.perf_counter()
    batches = iter(loader)
    started_s = time.perf_counter() - begun
    next(batches)
    values = stats_of(loader)
    assert 0.1 < started_s <= values["elapsed_s"] + 0.05  # What comes before it is asked for, in Python.
    assert values["first_batch_s"] <= values["elapsed_s"]
    assert values["step_s"] + values["consumer_wait_s"] == pytest.approx(values["elapsed_s"], rel=1e-6)


def test_the_time_of_rows_that_sleep_is_transform(tmp_path: Path) -> None:
    """Clause 25: 400 rows of 500 microseconds are 0.2 s of transform, whoever does them, and in no other
    stage."""
    path = write_numbers(tmp_path, [400])
    for num_workers in [0, 1, 4]:
        spin = {"x": ps.testing.spin(500, 0, is_sleep=True)}
        loader = quiet_loader(path, batch_size=50, num_workers=num_workers, transforms=spin)
        run_epoch(loader)
        stages = stats_of(loader)["stages"]
        assert stages["transform"]["busy_s"] >= 0.2
        assert all(stages[name]["busy_s"] < 0.1 for name in BUSY if name != "transform"), stages


def test_the_time_of_slow_reads_is_read(tmp_path: Path) -> None:
    """Clause 25: what a file system takes is told apart from the decoding around it. With workers there are
    reads ahead, of which only what is waited for counts."""
    path = write_numbers(tmp_path, [1000] * 10)
    spent = []

    def before_read(_: str) -> None:
        begun = time.perf_counter()
        work_for(0.003)
        spent.append(time.perf_counter() - begun)

    loader = quiet_loader(path, batch_size=100, num_workers=0, filesystem=watched_files(before_read))
    run_epoch(loader)
    read = stats_of(loader)["stages"]["read"]
    assert read["busy_s"] >= 0.9 * sum(spent)
    assert read["items"] >= len(spent) >= 11
    assert stats_of(loader)["stages"]["decode"]["busy_s"] < sum(spent)


def test_bytes_and_rows_are_counted(tmp_path: Path) -> None:
    """Clause 25: bytes read are those of the file, rows filtered and row groups not read are said."""
    path = write_numbers(tmp_path, [1000] * 10, use_dictionary=False, compression="none")
    loader = quiet_loader(path, batch_size=100)
    run_epoch(loader)
    read = stats_of(loader)["stages"]["read"]["bytes"]
    assert 10_000 * 8 <= read <= 4 * Path(path).stat().st_size
    loader = quiet_loader(path, batch_size=100, filter=pc.field("x") >= 7500)
    assert run_epoch(loader) == 2500
    values = stats_of(loader)
    assert (values["row_groups_pruned"], values["rows_filtered"], values["rows"]) == (7, 500, 2500)


def test_stats_may_be_asked_for_at_any_time(tmp_path: Path) -> None:
    """Clause 25: also from another thread, before, during and after; counts only grow."""
    path = write_numbers(tmp_path, [1000] * 50)
    loader = quiet_loader(path, batch_size=20, num_workers=2)
    assert stats_of(loader)["batches"] == 0
    assert stats_of(loader)["bottleneck"] == "none"
    seen: list[dict[str, Any]] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            seen.append(stats_of(loader))
            assert str(loader.stats())

    thread = threading.Thread(target=watch)
    thread.start()
    run_epoch(loader)
    is_over.set()
    thread.join()
    seen.append(stats_of(loader))
    for key in ["batches", "rows", "step_s", "consumer_wait_s", "worker_s"]:
        values = [each[key] for each in seen]
        assert values == sorted(values), key
    loader.close()
    assert stats_of(loader)["rows"] == 50_000
    json.dumps(seen[-1])


def test_early_breaks_are_counted_as_what_they_were(tmp_path: Path) -> None:
    """Clause 25: batches that nobody took are not counted as delivered, time between epochs is no step."""
    loader = quiet_loader(write_numbers(tmp_path, [1000]), batch_size=10)
    for _ in range(5):
        next(iter(loader))
        work_for(0.2)
    values = stats_of(loader)
    assert (values["epochs"], values["batches"], values["rows"]) == (5, 5, 50)
    assert values["step_s"] < 0.2


# --- The verdict ------------------------------------------------------------------------------------------


def verdict_of(loader: ps.Loader, step_s: float = 0) -> str:
    run_epoch(loader, step_s)
    stats = loader.stats()
    print(stats)
    values = stats.to_dict()
    assert values["advice"].endswith(".")
    last = str(stats).splitlines()[-1]
    assert last.split()[:2] == ["bottleneck", values["bottleneck"] + ":"]
    assert values["advice"] in last
    return str(values["bottleneck"])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_slow_step_is_named(tmp_path: Path, num_workers: int) -> None:
    """Clause 25: the consumer works 25 ms a batch on data that costs next to nothing."""
    loader = quiet_loader(write_numbers(tmp_path, [1000] * 4), batch_size=100, num_workers=num_workers)
    assert verdict_of(loader, step_s=0.025) == "step"


@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
@pytest.mark.parametrize("is_sleep", [True, False])
def test_a_slow_transform_is_named(tmp_path: Path, num_workers: int, is_sleep: bool) -> None:
    """Clause 25: each row takes 300 microseconds in a transform."""
    spin = {"x": ps.testing.spin(300, 0.2, is_sleep=is_sleep)}
    loader = quiet_loader(
        write_numbers(tmp_path, [400] * 2), batch_size=50, num_workers=num_workers, transforms=spin
    )
    assert verdict_of(loader) == "transform"


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_slow_files_are_named(tmp_path: Path, num_workers: int) -> None:
    """Clause 25: each read takes 20 ms."""
    path = write_numbers(tmp_path, [500] * 20)
    files = watched_files(lambda _: work_for(0.02))
    assert verdict_of(quiet_loader(path, batch_size=100, num_workers=num_workers, filesystem=files)) == "read"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_slow_decoding_is_named(tmp_path: Path, num_workers: int) -> None:
    """Clause 25: columns that are dear to unpack, and nothing else to do."""
    path = write_numbers(tmp_path, [200_000] * 2, columns=8, use_dictionary=False, compression="brotli")
    loader = quiet_loader(path, batch_size=10_000, num_workers=num_workers)
    assert verdict_of(loader) == "decode"


@pytest.mark.parametrize("num_workers", [4, 8])
def test_a_tight_budget_is_named(tmp_path: Path, num_workers: int) -> None:
    """Clause 25: many workers, and a budget that admits one row group at a time, each slow to read."""
    path = write_numbers(tmp_path, [2000] * 40)
    files = watched_files(lambda _: work_for(0.002))
    # A slot takes ten row groups: only the budget keeps workers from opening them all.
    options: dict[str, Any] = {"batch_size": 20_000, "num_workers": num_workers, "filesystem": files}
    least = quiet_loader(path, **options).explain().to_dict()["least_budget_bytes"]
    loader = quiet_loader(path, memory_budget=least, **options)
    assert verdict_of(loader) == "budget"
    assert "memory_budget" in loader.stats().to_dict()["advice"]


def test_rows_that_last_too_long_for_the_slots_are_named(tmp_path: Path) -> None:
    """Clause 25: with no batches ahead, one row in a hundred that takes 100 times as long keeps all workers
    idle."""
    spin = {"x": ps.testing.spin(20, 0, heavy_every=100, heavy_factor=1000)}
    path = write_numbers(tmp_path, [2000])
    loader = quiet_loader(path, batch_size=50, num_workers=8, prefetch_batches=0, transforms=spin)
    assert verdict_of(loader) == "slots"
    assert "prefetch_batches" in loader.stats().to_dict()["advice"]


def test_slow_footers_are_named(tmp_path: Path) -> None:
    """Clause 25: 300 files of one row and 60 columns are mostly footers."""
    table = pa.table({f"c{i}": [i] for i in range(60)})
    for number in range(300):
        write_row_groups(tmp_path / f"{number:03}.parquet", table, [1])
    assert verdict_of(quiet_loader(tmp_path, columns=["c3"], batch_size=10, num_workers=1)) == "plan"


def test_too_little_to_tell(tmp_path: Path) -> None:
    """Clause 25: one batch gives no verdict."""
    assert verdict_of(quiet_loader(write_numbers(tmp_path, [10]))) == "none"
