"""Ray's own batch consumer against Penstock on the same Ray: the same calls in ps.ray.enabled().

    bench/run ray_consumer
    bench/run ray_consumer --quick

memory        rows of 1 MiB in blocks of 16 MiB, two shards, batches of 16, 8 ahead, a step of 0.15 s asleep
throughput    the same without a step
shuffle       rows of 1 kB, local_shuffle_buffer_size of 16 batches, one consumer, no step
stored        rows of four numbers that lie in the object store already, windows of a million rows
stored-wide   the case `shuffle` from blocks that lie in the object store already
tiny          rows of 8 bytes in blocks of 1,000 rows, batches of 32: what a batch and a block cost
breaks        five iterations left after the first batch

Of Ray's object store, sampled every 50 ms: "store" the most bytes at once, "unreferenced" the most of them
that no reference counted (Ray deletes with a delay, which is in both figures), "left" the bytes two seconds
after the last batch, and the threads more than at the start. Waits are without the first of each consumer.
Every row must come once, but in `breaks`; "short" are batches in mid-stream that are not of the size asked
for.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import threading
import time
from typing import Any

import harness
import numpy as np
from tabular import run_rounds

ENGINES = ("ray", "penstock")
CASES = ("memory", "throughput", "shuffle", "stored", "stored-wide", "tiny", "breaks")
STORE_BYTES = 2 << 30
SETTLE_S = 2.0
TIMEOUT_S = 300


def settings(case: str, quick: bool) -> dict[str, Any]:
    """Blocks, rows of a block, bytes of a row, shards, seconds of a step, and the arguments of the call."""
    less = 4 if quick else 1
    wide: dict[str, Any] = {"rows": 16, "width": 1 << 20, "shards": 2, "step_s": 0.0, "breaks": 0}
    wide |= {"arguments": {"batch_size": 16, "prefetch_batches": 8}, "is_stored": False}
    narrow = {**wide, "shards": 1}
    if case == "memory":
        return {**wide, "blocks": 128 // less, "step_s": 0.15}
    if case == "throughput":
        return {**wide, "blocks": 128 // less}
    if case == "breaks":
        return {**narrow, "blocks": 32, "breaks": 5}
    if case == "stored":
        arguments = {"batch_size": 8192, "local_shuffle_buffer_size": 1_000_000, "local_shuffle_seed": 1}
        numbers = {**narrow, "blocks": 64 // less, "rows": 300_000, "width": 24, "arguments": arguments}
        return {**numbers, "is_stored": True}
    if case in ("shuffle", "stored-wide"):
        arguments = {"batch_size": 512, "local_shuffle_buffer_size": 8192, "local_shuffle_seed": 1}
        rows = {**narrow, "blocks": 64 // less, "rows": 4096, "width": 1024, "arguments": arguments}
        return {**rows, "is_stored": case == "stored-wide"}
    return {**narrow, "blocks": 200 // less, "rows": 1000, "width": 8, "arguments": {"batch_size": 32}}


class Consumer(threading.Thread):
    """Takes all batches of a shard; the id of a row is the first number of the first column."""

    def __init__(self, part: Any, step_s: float, arguments: dict[str, Any]) -> None:
        super().__init__()
        self._part, self._step_s, self._arguments = part, step_s, arguments
        self.waits_s: list[float] = []
        self.sizes: list[int] = []
        self.ids: list[np.ndarray] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            batches = iter(self._part.iter_torch_batches(**self._arguments))
            batch = None
            while True:
                asked = time.perf_counter()
                batch = next(batches, None)  # The last batch dies in this assignment, within the wait.
                if batch is None:
                    return
                self.waits_s.append(time.perf_counter() - asked)
                rows = next(iter(batch.values())).numpy()
                self.ids.append((rows if rows.ndim == 1 else rows[:, 0]).copy())
                self.sizes.append(len(rows))
                del rows
                if self._step_s > 0:
                    time.sleep(self._step_s)
        except BaseException as error:
            self.error = error


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
    import penstock as ps
    from engines.ray_data import ray, start
    from engines.ray_store import StoreWatch

    chosen = settings(case, quick)
    start(workers=2, store_bytes=STORE_BYTES)
    with ps.ray.enabled() if engine == "penstock" else contextlib.nullcontext():
        # Workers are there, and what is imported at first use.
        for _batch in ray.data.range(8).map_batches(lambda batch: batch).iter_torch_batches():
            del _batch
        watch = StoreWatch()
        threads_before = threading.active_count()
        data = _data(chosen["blocks"], chosen["rows"], chosen["width"])
        if chosen["is_stored"]:
            data = data.materialize()
        shards = data.streaming_split(chosen["shards"], equal=True) if chosen["shards"] > 1 else [data]
        started = time.perf_counter()
        for _ in range(chosen["breaks"]):
            for _batch in data.iter_torch_batches(**chosen["arguments"]):
                break
        consumers = [Consumer(shard, chosen["step_s"], chosen["arguments"]) for shard in shards]
        if not chosen["breaks"]:
            for each in consumers:
                each.start()
            for each in consumers:
                each.join()
        seconds = time.perf_counter() - started
    for each in consumers:
        if each.error is not None:
            raise each.error
    time.sleep(SETTLE_S)
    left = {"left_threads": threading.active_count() - threads_before, "left_mib": watch.now_mib()}
    watch.stop()
    rows = chosen["blocks"] * chosen["rows"]
    ids = np.sort(np.concatenate([part for each in consumers for part in each.ids] or [np.empty(0)]))
    if not chosen["breaks"] and not np.array_equal(ids, np.arange(rows)):
        raise AssertionError(f"{engine} gave {len(ids)} rows, {len(set(ids))} distinct, instead of {rows}")
    waits_ms = sorted(1e3 * wait for each in consumers for wait in each.waits_s[1:]) or [0.0]
    size = chosen["arguments"]["batch_size"]
    version = ray.__version__
    ray.shutdown()
    return {
        "rows_per_s": len(ids) / seconds,
        "first_batch_s": max((each.waits_s[0] for each in consumers if each.waits_s), default=0.0),
        "wait_mean_ms": statistics.mean(waits_ms),
        "wait_p50_ms": statistics.median(waits_ms),
        "wait_p99_ms": waits_ms[min(len(waits_ms) - 1, int(len(waits_ms) * 0.99))],
        "store_mib": watch.peak_bytes / harness.MIB,
        "unreferenced_mib": watch.unreferenced_bytes / harness.MIB,
        "spilled_mib": watch.spilled_bytes / harness.MIB,
        "short": sum(each != size for consumer in consumers for each in consumer.sizes[:-1]),
        "version": version,
        **left,
    }


COLUMNS = {
    "rows_per_s": ("rows/s", 0),
    "first_batch_s": ("first batch s", 2),
    "wait_mean_ms": ("next mean ms", 3),
    "wait_p50_ms": ("p50", 3),
    "wait_p99_ms": ("p99", 2),
    "store_mib": ("store MiB", 0),
    "unreferenced_mib": ("unreferenced", 0),
    "spilled_mib": ("spilled", 0),
    "short": ("short", 0),
    "left_threads": ("threads left", 0),
    "left_mib": ("MiB left", 0),
}


def report(results: dict[str, list[dict[str, Any]]]) -> str:
    """Medians over the rounds."""
    rows = []
    for engine, runs in results.items():
        cells = [f"{statistics.median(run[name] for run in runs):,.{digits}f}" if runs else "-"
                 for name, (_, digits) in COLUMNS.items()]  # fmt: skip
        rows.append([engine, *cells])
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
        print(f"\n{case}: {settings(case, args.quick)}")
        runs = run_rounds(
            list(ENGINES),
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
