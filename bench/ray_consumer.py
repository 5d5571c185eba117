"""Ray's own batch consumer against Penstock on the same Ray: the same calls in ps.ray.enabled().

    bench/run ray_consumer
    bench/run ray_consumer --quick

memory         rows of 1 MiB in blocks of 16 MiB, two shards, batches of 16, 8 ahead, a step of 0.15 s asleep
memory-stored  the same from blocks that lie in the object store already: no map task makes anybody wait
throughput     the case `memory` without a step
shuffle        rows of 1 kB, local_shuffle_buffer_size of 8,192, batches of 500, two shards, no step
short-window   rows of 8 bytes, local_shuffle_buffer_size of a batch, two shards: are batches whole?
stored         rows of four numbers that lie in the object store already, windows of a million rows
stored-wide    rows of 1 kB that lie there already, windows of 8,192 rows, batches of 512
tiny           rows of 8 bytes in blocks of 1,000 rows, batches of 32: what a batch and a block cost
breaks         five iterations left after the first batch

Two bounds are no loaders. "fresh", in the first two cases, reads nothing, and each batch is a new tensor over
memory that is always there: its waits are those of any process that has slept beside Ray's. "refs", in
`throughput` and `tiny`, takes the references of the blocks and drops them: its rows per second are the map
tasks' own.

Each consumer is an actor, a process of its own. Every 50 ms the raylet is asked which objects of the store
each process has mapped and references. Of the consumers together, the most at once: "mapped", what values of
theirs lie in, so that it can be neither spilled nor evicted; "held", that and what they have references to;
"uncounted", what they have mapped although no process has a reference to it, so that Ray believes it gone.
"store" is the most that the whole store had, "left" what it has two seconds after the last batch beyond what
lay there before, and "threads left" those of the consumers more than at the start. Waits are without each
consumer's first; "p99 on a core", where there is a step, is of what is left of them without the time that
the consumer's thread was ready to run and had no core, as Linux counts it: Ray has more processes than there
are cores here. Rows per second are over the time of the slowest consumer from its call to its last batch.

Every row must come once, but in `breaks`; "short" are batches in mid-stream that are not of the size asked
for, "uneven" how many batches more one shard got than another.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import threading
import time
from typing import Any

import harness
import numpy as np
from tabular import run_rounds

ENGINES = ("ray", "penstock")
BOUNDS = {"memory": ("fresh",), "memory-stored": ("fresh",), "throughput": ("refs",), "tiny": ("refs",)}
CASES = (
    *("memory", "memory-stored", "throughput"),
    *("shuffle", "short-window", "stored", "stored-wide"),
    *("tiny", "breaks"),
)
STORE_BYTES = 2 << 30
SETTLE_S = 2.0
TIMEOUT_S = 300


def settings(case: str, quick: bool) -> dict[str, Any]:
    """Blocks, rows of a block, bytes of a row, shards, seconds of a step, and the arguments of the call."""
    less = 4 if quick else 1
    wide: dict[str, Any] = {"rows": 16, "width": 1 << 20, "shards": 2, "step_s": 0.0, "breaks": 0}
    wide |= {"arguments": {"batch_size": 16, "prefetch_batches": 8}, "is_stored": False}
    narrow = {**wide, "shards": 1}
    if case in ("memory", "memory-stored"):
        return {**wide, "blocks": 128 // less, "step_s": 0.15, "is_stored": case == "memory-stored"}
    if case == "throughput":
        return {**wide, "blocks": 128 // less}
    if case == "breaks":
        return {**narrow, "blocks": 32, "breaks": 5}
    if case == "stored":
        arguments = {"batch_size": 8192, "local_shuffle_buffer_size": 1_000_000, "local_shuffle_seed": 1}
        numbers = {**narrow, "blocks": 64 // less, "rows": 300_000, "width": 24, "arguments": arguments}
        return {**numbers, "is_stored": True}
    if case == "short-window":
        arguments = {"batch_size": 512, "local_shuffle_buffer_size": 512, "local_shuffle_seed": 1}
        return {**wide, "blocks": 64 // less, "rows": 4001, "width": 8, "arguments": arguments}
    if case in ("shuffle", "stored-wide"):
        arguments = {"batch_size": 512, "local_shuffle_buffer_size": 8192, "local_shuffle_seed": 1}
        rows = {**narrow, "blocks": 64 // less, "rows": 4096, "width": 1024, "arguments": arguments}
        if case == "stored-wide":
            return {**rows, "is_stored": True}
        return {**rows, "shards": 2, "arguments": {**arguments, "batch_size": 500}}
    return {**narrow, "blocks": 200 // less, "rows": 1000, "width": 8, "arguments": {"batch_size": 32}}


def describe(chosen: dict[str, Any]) -> str:
    """The settings in a line."""
    where = "stored before" if chosen["is_stored"] else "made by map tasks"
    arguments = ", ".join(f"{name}={value}" for name, value in chosen["arguments"].items())
    step = f", a step of {chosen['step_s']} s" if chosen["step_s"] else ""
    breaks = f", left after the first batch {chosen['breaks']} times" if chosen["breaks"] else ""
    consumers = "1 consumer" if chosen["shards"] == 1 else f"{chosen['shards']} consumers"
    return (
        f"{chosen['blocks']} blocks of {chosen['rows']:,} rows of {chosen['width']:,} bytes, {where}; "
        f"{consumers}: iter_torch_batches({arguments}){step}{breaks}"
    )


class Consumer:
    """An actor that takes all batches of a shard; the id of a row is the first number of the first column."""

    def __init__(self, engine: str) -> None:
        import penstock as ps
        import pyarrow as pa
        import ray
        import torch

        cores = len(os.sched_getaffinity(0))
        pa.set_cpu_count(cores)  # Ray leaves an actor one.
        torch.set_num_threads(cores)
        ray.data.DataContext.get_current().enable_progress_bars = False
        self._enabled = ps.ray.enabled if engine == "penstock" else contextlib.nullcontext
        with self._enabled():  # So that what is imported at first use is there.
            for _batch in ray.data.range(8).map_batches(lambda batch: batch).iter_torch_batches():
                del _batch
        self._threads_before = threading.active_count()

    def pid(self) -> int:
        return os.getpid()

    def leave(self, part: Any, times: int, arguments: dict[str, Any]) -> None:
        """Takes the first batch alone, so many times."""
        with self._enabled():
            for _ in range(times):
                for _batch in part.iter_torch_batches(**arguments):
                    break

    def take(self, part: Any, step_s: float, arguments: dict[str, Any]) -> dict[str, Any]:
        """All batches: the seconds waited for each, their sizes, the ids of their rows."""
        waits_s: list[float] = []
        queued_s: list[float] = []
        sizes: list[int] = []
        ids: list[np.ndarray] = []
        clock = QueueClock(step_s > 0)
        began = time.perf_counter()
        with self._enabled():
            batches = iter(part.iter_torch_batches(**arguments))
            batch = None
            while True:
                queued = clock.queued_s()
                asked = time.perf_counter()
                batch = next(batches, None)  # The last batch dies in this assignment, within the wait.
                waited = time.perf_counter() - asked
                if batch is None:
                    seconds = time.perf_counter() - began
                    taken = {"waits_s": waits_s, "queued_s": queued_s, "sizes": sizes, "seconds": seconds}
                    return {**taken, "ids": np.concatenate(ids)}
                waits_s.append(waited)
                queued_s.append(clock.queued_s() - queued)
                rows = next(iter(batch.values())).numpy()
                ids.append((rows if rows.ndim == 1 else rows[:, 0]).copy())
                sizes.append(len(rows))
                del rows
                if step_s > 0:
                    time.sleep(step_s)

    def wake(self, batches: int, rows: int, width: int, step_s: float) -> dict[str, Any]:
        """The bound `fresh`: the seconds taken for each new tensor."""
        import torch

        memory = torch.zeros((rows, width // 8), dtype=torch.int64)
        clock = QueueClock(is_on=True)
        waits_s: list[float] = []
        queued_s: list[float] = []
        batch = None
        began = time.perf_counter()
        for _ in range(batches):
            queued = clock.queued_s()
            asked = time.perf_counter()
            batch = {"row": memory[:rows]}
            waits_s.append(time.perf_counter() - asked)
            queued_s.append(clock.queued_s() - queued)
            time.sleep(step_s)
        del batch
        seconds = time.perf_counter() - began
        return {"waits_s": waits_s, "queued_s": queued_s, "sizes": [rows] * batches, "seconds": seconds}

    def drop(self, part: Any) -> dict[str, Any]:
        """The bound `refs`: the seconds waited for each bundle of references, and their rows."""
        waits_s: list[float] = []
        sizes: list[int] = []
        began = time.perf_counter()
        iterator = part.iterator() if hasattr(part, "iterator") else part  # A data set, or a shard.
        bundles = iterator._to_ref_bundle_iterator()[0]
        while True:
            asked = time.perf_counter()
            bundle = next(bundles, None)
            if bundle is None:
                seconds = time.perf_counter() - began
                return {"waits_s": waits_s, "sizes": sizes, "seconds": seconds}
            waits_s.append(time.perf_counter() - asked)
            sizes.append(bundle.num_rows())
            del bundle

    def threads_left(self) -> int:
        return threading.active_count() - self._threads_before


class QueueClock:
    """Tells how long the thread that made it was ready to run and had no core so far; 0 where it is off.

    Asking takes microseconds, which only batches with a step between them have to spare.
    """

    def __init__(self, is_on: bool) -> None:
        self._fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY) if is_on else None

    def queued_s(self) -> float:
        if self._fd is None:
            return 0.0
        return int(os.pread(self._fd, 100, 0).split()[1]) / 1e9


def _data(blocks: int, rows: int, width: int) -> Any:
    import ray

    def widen(batch: dict[str, Any]) -> dict[str, Any]:
        if width == 24:
            ids = batch["id"]
            return {"a": ids, "b": ids + 1, "c": ids.astype(np.int32), "d": ids.astype(np.float32)}
        row = np.zeros((len(batch["id"]), width // 8), np.int64)
        row[:, 0] = batch["id"]
        return {"row": row}

    return ray.data.range(blocks * rows, override_num_blocks=blocks).map_batches(widen, batch_size=None)


def measure(engine: str, case: str, quick: bool) -> dict[str, Any]:
    """One run of one consumer; runs in a child process."""
    from engines.ray_data import ray, start
    from engines.ray_store import StoreWatch

    chosen = settings(case, quick)
    # Ray plans with half of it, and spills at 80 %.
    start(workers=2, store_bytes=STORE_BYTES * (2 if chosen["is_stored"] else 1))
    actors = [ray.remote(num_cpus=0)(Consumer).remote(engine) for _ in range(chosen["shards"])]
    data = _data(chosen["blocks"], chosen["rows"], chosen["width"])
    if chosen["is_stored"]:
        data = data.materialize()
    watch = StoreWatch(ray.get([actor.pid.remote() for actor in actors]))
    before_mib = watch.now_mib()
    parts = data.streaming_split(len(actors), equal=True) if len(actors) > 1 else [data]
    arguments = chosen["arguments"]
    if chosen["breaks"]:
        ray.get([actors[0].leave.remote(data, chosen["breaks"], arguments)])
        taken = []
    else:
        taken = ray.get(
            [_call(engine, actor, part, chosen) for actor, part in zip(actors, parts, strict=True)]
        )
    time.sleep(SETTLE_S)
    left_threads = sum(ray.get([actor.threads_left.remote() for actor in actors]))
    left_mib = max(0.0, watch.now_mib() - before_mib)
    watch.stop()
    loaded = taken if engine in ENGINES else []
    if loaded:
        _check(engine, np.concatenate([each["ids"] for each in loaded]), chosen["blocks"] * chosen["rows"])
    version = ray.__version__
    ray.shutdown()
    return {
        **_waits(taken, chosen["step_s"] > 0),
        "mapped_mib": watch.kept.mapped / harness.MIB,
        "held_mib": watch.kept.held / harness.MIB,
        "uncounted_mib": watch.kept.uncounted / harness.MIB,
        "store_mib": watch.peak_bytes / harness.MIB,
        "spilled_mib": watch.spilled_bytes / harness.MIB,
        "short": sum(size != arguments["batch_size"] for each in loaded for size in each["sizes"][:-1]),
        "uneven": np.ptp([len(each["sizes"]) for each in taken] or [0]).item(),
        "left_threads": left_threads,
        "left_mib": left_mib,
        "version": version,
    }


def _call(engine: str, actor: Any, part: Any, chosen: dict[str, Any]) -> Any:
    """What the actor has to do, begun."""
    if engine == "refs":
        return actor.drop.remote(part)
    if engine == "fresh":
        rows = chosen["arguments"]["batch_size"]
        batches = chosen["blocks"] * chosen["rows"] // chosen["shards"] // rows
        return actor.wake.remote(batches, rows, chosen["width"], chosen["step_s"])
    return actor.take.remote(part, chosen["step_s"], chosen["arguments"])


def _check(engine: str, ids: np.ndarray, rows: int) -> None:
    if not np.array_equal(np.sort(ids), np.arange(rows)):
        raise AssertionError(f"{engine} gave {len(ids)} rows, {len(set(ids))} distinct, instead of {rows}")


def _waits(taken: list[dict[str, Any]], has_step: bool) -> dict[str, float | None]:
    seconds = max((each["seconds"] for each in taken), default=1.0)
    waits_ms = [1e3 * wait for each in taken for wait in each["waits_s"][1:]] or [0.0]
    return {
        "rows_per_s": sum(sum(each["sizes"]) for each in taken) / seconds,
        "first_batch_s": max((each["waits_s"][0] for each in taken), default=0.0),
        "wait_mean_ms": statistics.mean(waits_ms),
        "wait_p50_ms": statistics.median(waits_ms),
        "wait_p99_ms": _p99(waits_ms),
        "on_core_p99_ms": _p99(_on_core_ms(taken)) if has_step else None,
    }


def _on_core_ms(taken: list[dict[str, Any]]) -> list[float]:
    return [
        1e3 * max(0.0, wait - queued)
        for each in taken
        for wait, queued in zip(each["waits_s"][1:], each["queued_s"][1:], strict=True)
    ]


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


COLUMNS = {
    "rows_per_s": ("rows/s", 0),
    "first_batch_s": ("first batch s", 2),
    "wait_mean_ms": ("next mean ms", 3),
    "wait_p50_ms": ("p50", 3),
    "wait_p99_ms": ("p99", 2),
    "on_core_p99_ms": ("p99 on a core", 2),
    "mapped_mib": ("mapped MiB", 0),
    "held_mib": ("held", 0),
    "uncounted_mib": ("uncounted", 1),
    "store_mib": ("store", 0),
    "spilled_mib": ("spilled", 0),
    "short": ("short", 0),
    "uneven": ("uneven", 0),
    "left_threads": ("threads left", 0),
    "left_mib": ("MiB left", 0),
}


def _median(runs: list[dict[str, Any]], name: str, digits: int) -> str:
    if not runs or runs[0][name] is None:
        return "-"
    return f"{statistics.median(run[name] for run in runs):,.{digits}f}"


def report(results: dict[str, list[dict[str, Any]]]) -> str:
    """Medians over the rounds."""
    rows = []
    for engine, runs in results.items():
        rows.append([engine, *(_median(runs, name, digits) for name, (_, digits) in COLUMNS.items())])
    return harness.table(["consumer", *(title for title, _ in COLUMNS.values())], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a quarter of the data, one round")
    parser.add_argument("--json", metavar="PATH")
    args = parser.parse_args()
    if args.quick:
        args.repeats = 1
    print(harness.machine())
    everything: dict[str, Any] = {"machine": harness.machine(), "cases": {}}
    for case in args.cases.split(","):
        print(f"\n{case}: {describe(settings(case, args.quick))}")
        runs = run_rounds(
            [*ENGINES, *BOUNDS.get(case, ())],
            args.repeats,
            lambda engine, case=case: harness.in_child(
                "ray_consumer", "measure", timeout_s=TIMEOUT_S, engine=engine, case=case, quick=args.quick
            ),
        )
        print(report(runs))
        everything["cases"][case] = runs
    harness.save_json(args.json, everything)


if __name__ == "__main__":
    main()
