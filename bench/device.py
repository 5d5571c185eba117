"""How long a step on a GPU waits for its next batch, which has to be copied there: 1, 64 and 588 MiB.

    bench/run device
    bench/run device --sizes 64 --engines penstock,torch
    bench/run device --device cpu --quick      # a dry run: shows that it runs, and no figures

The wait runs from the end of one step to the next batch being there for the GPU's kernels, including the
release of the last batch: the step ends with torch.cuda.synchronize(), the wait with a kernel that reads the
new batch. The step is a kernel that lasts as long as --step-ms says; copies can go on beside it. Rows are
floats that lie in memory, so what is measured is putting batches together and copying them.

Where there is no CUDA device it says so, and ends.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import harness
from tabular import ratio, run_rounds

ROW_FLOATS = 16_384
ROW_BYTES = 4 * ROW_FLOATS
CHUNK_ROWS = 64
# MiB of a batch -> batches of an epoch, milliseconds of a step.
SIZES = {1: (300, 5.0), 64: (60, 60.0), 588: (15, 600.0)}
FIGURES = ("p50", "p99", "mean", "max")


# --- Engines: each gives a loop the tensor of its next batch, on the device or on its way there -------------


def penstock(shape: dict[str, Any], **options: Any) -> tuple[Any, Any]:
    """`ps.Loader` over a table whose chunks are the same memory again and again."""
    import penstock as ps
    import pyarrow as pa

    values = pa.array(range(CHUNK_ROWS * ROW_FLOATS), pa.float32())
    chunk = pa.table({"x": pa.FixedSizeListArray.from_arrays(values, ROW_FLOATS)})
    rows = shape["batches"] * shape["batch_rows"]
    table = pa.concat_tables([chunk] * -(-rows // CHUNK_ROWS)).slice(0, rows)
    budget = max(1 << 30, 8 * shape["batch_rows"] * ROW_BYTES)
    loader = ps.Loader(
        table, shape["batch_rows"], num_workers=shape["workers"], memory_budget=budget, **options
    )
    return (lambda: (batch["x"] for batch in loader)), loader


def penstock_ahead(shape: dict[str, Any]) -> Any:
    """Copied one batch ahead on a side stream, from page-locked slots."""
    return penstock(shape, device=_gpu(shape))


def penstock_pageable(shape: dict[str, Any]) -> Any:
    """The same from slots that are not page-locked."""
    return penstock(shape, device=_gpu(shape), _pin_for_device=False)


def penstock_pinned(shape: dict[str, Any]) -> Any:
    """Page-locked batches, copied by the loop, which does not wait for it."""
    batches, loader = penstock(shape, pin_memory=_gpu(shape) is not None)
    return (lambda: (_copy(batch, shape) for batch in batches())), loader


def torch_dataloader(shape: dict[str, Any]) -> Any:
    """DataLoader(pin_memory=True) and non_blocking=True, as torch's documentation has it."""
    loader = _dataloader(shape)
    return (lambda: (_copy(batch, shape) for batch in loader)), None


def torch_ahead(shape: dict[str, Any]) -> Any:
    """The same, but the next batch is copied on a side stream while the step runs."""
    import torch

    loader = _dataloader(shape)
    if _gpu(shape) is None:
        return (lambda: (_copy(batch, shape) for batch in loader)), None
    side = torch.cuda.Stream()

    def ahead() -> Iterator[Any]:
        copied = None
        for batch in loader:
            with torch.cuda.stream(side):
                following = _copy(batch, shape)
            if copied is not None:
                yield copied
            torch.cuda.current_stream().wait_stream(side)
            copied = following
            copied.record_stream(torch.cuda.current_stream())
        yield copied

    return ahead, None


ENGINES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "penstock": penstock_ahead,
    "penstock-pageable": penstock_pageable,
    "penstock-pinned": penstock_pinned,
    "torch": torch_dataloader,
    "torch-ahead": torch_ahead,
}


def _gpu(shape: dict[str, Any]) -> str | None:
    return None if shape["device"] == "cpu" else str(shape["device"])


def _copy(batch: Any, shape: dict[str, Any]) -> Any:
    return batch.clone() if _gpu(shape) is None else batch.to(shape["device"], non_blocking=True)


def _dataloader(shape: dict[str, Any]) -> Any:
    import torch
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info

    class Rows(IterableDataset[Any]):
        """Batches of rows that are copied together, as the loader does it; each process makes its part."""

        def __iter__(self) -> Iterator[Any]:
            torch.set_num_threads(1)
            info = get_worker_info()
            chunk = torch.arange(CHUNK_ROWS * ROW_FLOATS, dtype=torch.float32).reshape(CHUNK_ROWS, -1)
            for _ in range(info.id, shape["batches"], info.num_workers):
                batch = torch.empty(shape["batch_rows"], ROW_FLOATS)
                for first in range(0, shape["batch_rows"], CHUNK_ROWS):
                    part = batch[first : first + CHUNK_ROWS]
                    part.copy_(chunk[: len(part)])
                yield batch

    return DataLoader(
        Rows(),
        batch_size=None,
        num_workers=shape["workers"],
        prefetch_factor=2,
        persistent_workers=True,
        pin_memory=_gpu(shape) is not None,
    )


# --- Measuring ---------------------------------------------------------------------------------------------


def measure(engine: str, **shape: Any) -> dict[str, Any]:
    """The waits of one epoch of one engine, after one to warm up; runs in a child process."""
    import torch

    if ":" in shape["device"]:
        torch.cuda.set_device(shape["device"])
    try:
        batches, loader = ENGINES[engine](shape)
    except ImportError as error:
        return {"not_available": str(error)}
    step, end_of_wait = _on_gpu(shape) if _gpu(shape) else _on_cpu(shape)
    for _ in range(2):
        waits_ms = _waits(batches(), step, end_of_wait)
    if len(waits_ms) != shape["batches"] - 1:
        raise AssertionError(f"{engine} gave {len(waits_ms) + 1} batches instead of {shape['batches']}")
    stats = loader.stats().to_dict() if loader is not None else {}
    return {
        **harness.summary_of(waits_ms),
        "slots_locked": stats.get("slots_locked"),
        "lock_refusal": stats.get("lock_refusal"),
    }


def _waits(
    batches: Iterator[Any], step: Callable[[], None], end_of_wait: Callable[[Any], None]
) -> list[float]:
    waits_ms: list[float] = []
    end_of_wait(batch := next(batches))
    while True:
        step()
        step_ended_ns = time.perf_counter_ns()
        try:
            batch = next(batches)  # The last batch dies in this assignment, within the wait.
        except StopIteration:
            return waits_ms
        end_of_wait(batch)
        waits_ms.append((time.perf_counter_ns() - step_ended_ns) / 1e6)


def _on_gpu(shape: dict[str, Any]) -> tuple[Callable[[], None], Callable[[Any], None]]:
    import torch

    cycles = 1_000_000
    torch.cuda._sleep(cycles)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    torch.cuda._sleep(20 * cycles)
    torch.cuda.synchronize()
    cycles = int(shape["step_ms"] / 1e3 * 20 * cycles / (time.perf_counter() - begin))

    def step() -> None:
        torch.cuda._sleep(cycles)
        torch.cuda.synchronize()

    def end_of_wait(batch: Any) -> None:
        batch.view(-1)[-1:].add(1)  # Behind the copy, on the stream that the loop works on.
        torch.cuda.current_stream().synchronize()

    return step, end_of_wait


def _on_cpu(shape: dict[str, Any]) -> tuple[Callable[[], None], Callable[[Any], None]]:
    return (lambda: time.sleep(shape["step_ms"] / 1e3)), (lambda batch: batch.view(-1)[-1:].add(1))


# --- Reporting ---------------------------------------------------------------------------------------------


def report(results: dict[str, list[dict[str, Any]]], base: str) -> str:
    header = ["engine", *(f"{name} ms" for name in FIGURES), f"{base} / it, mean", "slots locked"]
    rows = []
    for engine, runs in results.items():
        if not runs:
            rows.append([engine, "not available", "-", "-", "-", "-", "-"])
            continue
        cells = [f"{statistics.median(run[name] for run in runs):.3f}" for name in FIGURES]
        locked = "refused" if runs[0]["lock_refusal"] else runs[0]["slots_locked"]
        locked = "-" if locked is None else str(locked)
        rows.append([engine, *cells, ratio(results.get(base, []), runs, "mean"), locked])
    return harness.table(header, rows)


def dry_report(results: dict[str, list[dict[str, Any]]]) -> str:
    """Only what ran: to compare what was not copied anywhere would be to claim something."""
    rows = [
        [engine, str(len(runs)), str(sum(run["batches"] for run in runs))] for engine, runs in results.items()
    ]
    return harness.table(["engine", "runs", "batches"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu: a dry run")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="MiB of a batch")
    parser.add_argument("--step-ms", type=float, help="of every size; by default 5, 60 and 600")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="rounds; every engine runs once in each")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--base", default="penstock", help="the engine that the others are compared with")
    parser.add_argument("--quick", action="store_true", help="one round of few batches: shows that it runs")
    parser.add_argument("--json", metavar="PATH", help="write every run's figures there")
    args = parser.parse_args()
    engines = args.engines.split(",")
    if unknown := [engine for engine in engines if engine not in ENGINES]:
        parser.error(f"no engine '{unknown[0]}'; there are {', '.join(ENGINES)}")
    print(harness.machine())
    name = harness.in_child("device", "device_name", device=args.device)
    if name is None:
        print(f"no CUDA device for --device {args.device} here: nothing to measure (--device cpu: a dry run)")
        return
    print(f"device: {name}")
    everything: dict[str, Any] = {
        "machine": harness.machine(),
        "device": name,
        "arguments": vars(args),
        "sizes": {},
    }
    for size_mib in map(int, args.sizes.split(",")):
        batches, step_ms = SIZES.get(size_mib, (60, 60.0))
        step_ms = step_ms if args.step_ms is None else args.step_ms
        shape = {
            "device": args.device,
            "batches": min(batches, 8) if args.quick else batches,
            "batch_rows": size_mib * harness.MIB // ROW_BYTES,
            "workers": args.workers,
            "step_ms": min(step_ms, 50) if args.quick else step_ms,
        }

        def one(engine: str, shape: dict[str, Any] = shape) -> Any:
            return harness.in_child("device", "measure", engine=engine, **shape)

        print(f"\nbatches of {size_mib} MiB, {shape['batches']} of them, step {shape['step_ms']:g} ms")
        results = run_rounds(engines, 1 if args.quick else args.repeats, one)
        print(report(results, args.base) if args.device != "cpu" else dry_report(results))
        everything["sizes"][str(size_mib)] = results
    harness.save_json(args.json, everything)


def device_name(device: str) -> str | None:
    """What the device is called, None where there is none; runs in a child process."""
    if device == "cpu":
        return "the CPU: a dry run"
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, CUDA {torch.version.cuda}"


if __name__ == "__main__":
    main()
