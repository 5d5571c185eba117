"""What the benchmarks share: measuring in a child process, peak memory, the machine in words, tables.

    python bench/harness.py MODULE FUNCTION < arguments.json     # how a child is started

Every measurement runs in a process of its own, so that no engine finds another's threads, memory or caches.
The function's result comes back as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
MIB = 1 << 20
_RESULT = "result: "
_SAMPLE_S = 0.05


class ChildFailedError(RuntimeError):
    """The child ended without a result, or took too long; the message ends with its last lines."""


def in_child(
    module: str, function: str, *, sample_tree: bool = False, timeout_s: float = 600, **arguments: Any
) -> Any:
    """Runs `module.function(**arguments)` in a fresh Python and returns its result.

    With `sample_tree` the result, a dict, gets ``tree_peak_mib``: the most memory that the child and its own
    children held together, pages that they share counted once. Sampling disturbs, so do not time such a run.
    """
    command = [sys.executable, str(BENCH / "harness.py"), module, function]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=BENCH) as child:
        sampler = _TreeSampler(child.pid) if sample_tree else None
        try:
            out, err = child.communicate(json.dumps(arguments), timeout=timeout_s)
        except BaseException as error:
            _kill(_tree(child.pid))  # Engines have processes of their own.
            if isinstance(error, subprocess.TimeoutExpired):
                raise ChildFailedError(f"{module}.{function} took more than {timeout_s:.0f} s") from None
            raise
        finally:
            tree_peak_bytes = sampler.stop() if sampler else 0
    lines = [line for line in out.splitlines() if line.startswith(_RESULT)]
    if child.returncode != 0 or not lines:
        tail = "\n  ".join((err or out).strip().splitlines()[-6:])
        raise ChildFailedError(f"{module}.{function} ended with code {child.returncode}:\n  {tail}")
    result = json.loads(lines[-1].removeprefix(_RESULT))
    if sampler:
        result["tree_peak_mib"] = tree_peak_bytes / MIB
    return result


class _TreeSampler:
    """Samples the proportional memory of a process and all its descendants until stopped."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self._peak_bytes

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            self._peak_bytes = max(
                self._peak_bytes, sum(_proportional_bytes(pid) for pid in _tree(self._pid))
            )


def _tree(root: int) -> list[int]:
    """The process and all its descendants."""
    found = [root]
    for pid in found:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def _kill(pids: list[int]) -> None:
    for pid in reversed(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _proportional_bytes(pid: int) -> int:
    try:
        return _status_bytes(f"/proc/{pid}/smaps_rollup", "Pss:")
    except OSError:
        return 0


def _status_bytes(path: str, key: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def rss_bytes() -> int:
    """What this process holds in memory now."""
    return _status_bytes("/proc/self/status", "VmRSS:")


def peak_rss_bytes() -> int:
    """The most this process has held since it started, or since `reset_peak_rss()`."""
    return _status_bytes("/proc/self/status", "VmHWM:")


def reset_peak_rss() -> None:
    """Forgets the peak so far: what imports needed is not the engine's."""
    with contextlib.suppress(OSError):  # Not permitted here: the peak then includes the imports' own.
        Path("/proc/self/clear_refs").write_text("5")


def machine() -> str:
    """The machine in one line."""
    cpu = platform.processor() or platform.machine()
    try:
        models = [s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")]
        cpu = models[0].split(":", 1)[1].strip() if models else cpu
        memory_gib = _status_bytes("/proc/meminfo", "MemTotal:") / (1 << 30)
    except OSError:
        memory_gib = 0
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return (
        f"{cpu}, {cores} cores, {memory_gib:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {load:.1f} at the start"
    )


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns in line: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), line(["-" * w for w in widths]), *map(line, rows)])


def save_json(path: str | None, result: dict[str, Any]) -> None:
    """Writes `result` where a path was given."""
    if path:
        Path(path).write_text(json.dumps(result, indent=2) + "\n")


def summary_of(waits_ms: list[float]) -> dict[str, float]:
    """What the tables have of the waits of an epoch, without that for its first batch."""
    ordered = sorted(waits_ms)
    return {
        "p50": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        "mean": statistics.fmean(ordered),
        "max": ordered[-1],
        "batches": len(ordered) + 1,
    }


def _child() -> None:
    """Runs the function and ends at once, with the processes that it leaves.

    A regular exit waits for ever where a scan of pyarrow's was left in the middle, as after a failed check.
    """
    code = 1
    try:
        sys.path.insert(0, str(BENCH))
        arguments = json.load(sys.stdin)
        result = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(**arguments)
        print(_RESULT + json.dumps(result))
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    _kill(_tree(os.getpid())[1:])
    os._exit(code)


if __name__ == "__main__":
    _child()
