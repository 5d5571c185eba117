"""Clauses 20, 21 and 24 of the checklist, invariant 6: how epochs end in which user code runs on threads."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pytest
from conftest import loader_threads
from support import current_bytes, quiet_loader, run_python, values_of, wait_until, write_row_groups


@pytest.fixture
def data(tmp_path: Path) -> str:
    """2,000 rows of x = 0, 1, 2, ... in row groups of 250."""
    return write_row_groups(tmp_path / "data.parquet", pa.table({"x": np.arange(2000)}), [250] * 8)


def collating(data: str, **options: Any) -> ps.Loader:
    return quiet_loader(data, **{"batch_size": 100, "num_workers": 2, "collate_fn": values_of, **options})


def collate_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("penstock-collate")]


# --- Leaving early ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("collate_workers", [1, 3])
def test_leaving_early(data: str, collate_workers: int) -> None:
    """Invariant 6: break, close(), the iterator's death, the next epoch: no thread and no byte is left."""
    loader = collating(data, collate_workers=collate_workers, collate_fn=lambda batch: dict(batch))
    for batch in loader:  # noqa: B007 - it is held.
        assert len(collate_threads()) in range(1, collate_workers + 1)
        break
    assert collate_threads() == loader_threads() == []
    del batch
    assert set(current_bytes(loader)) == {"metadata"}
    iterator = iter(loader)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert collate_threads() == loader_threads() == []
    assert next(iterator, None) is None
    stale = iter(loader)
    next(stale)
    fresh = iter(loader)
    with pytest.raises(RuntimeError, match="closed when its loader started the next epoch"):
        next(stale)
    del stale
    assert sum(len(batch["x"]) for batch in fresh) == 2000
    iterator = iter(loader)
    next(iterator)
    iterator = None  # type: ignore[assignment]
    assert collate_threads() == loader_threads() == []
    loader.close()
    assert current_bytes(loader) == {}
    with pytest.raises(RuntimeError, match="closed"):
        iter(loader)


def test_a_hundred_abandoned_iterators(data: str) -> None:
    """Clause 17: no thread and no byte is left, also where iterators die in a cycle."""
    loader = collating(data)
    for number in range(100):
        iterator = iter(loader)
        if number % 2:
            next(iterator)
        if number % 10 == 0:
            cycle: list[Any] = [iterator]
            cycle.append(cycle)
            del cycle
        del iterator
    gc.collect()
    assert collate_threads() == loader_threads() == []
    assert set(current_bytes(loader)) == {"metadata"}


def test_close_while_user_code_runs(data: str) -> None:
    """Invariant 6: close() by another thread ends a wait for collate_fn as soon as that returns."""
    is_entered, may_return = threading.Event(), threading.Event()
    errors: list[str] = []

    def collate(batch: Any) -> Any:
        is_entered.set()
        assert may_return.wait(60)
        return batch

    loader = collating(data, collate_fn=collate)

    def consume() -> None:
        try:
            next(iter(loader))
        except RuntimeError as error:
            errors.append(str(error))

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert is_entered.wait(60)
    closer = threading.Thread(target=loader.close)
    closer.start()
    wait_until(lambda: loader._core.is_closed)
    may_return.set()
    closer.join()
    consumer.join()
    assert errors == ["the loader is closed"]
    assert current_bytes(loader) == {}


def test_user_code_may_close_its_loader(data: str) -> None:
    """Invariant 6: a collate_fn that closes its own loader does not wait for itself."""

    def collate(batch: Any) -> Any:
        loader.close()
        return batch

    loader = collating(data, collate_fn=collate)
    with pytest.raises(RuntimeError, match="the loader is closed"):
        next(iter(loader))
    assert current_bytes(loader) == {}


def test_one_thread_at_a_time(data: str) -> None:
    """Threads: a second thread in next() is told so, and the first goes on."""
    is_entered, may_return = threading.Event(), threading.Event()

    def finalize(batch: Any) -> Any:
        is_entered.set()
        assert may_return.wait(60)
        return batch

    loader = collating(data, finalize_fn=finalize)
    iterator = iter(loader)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(next(iterator)))
    thread.start()
    assert is_entered.wait(60)
    with pytest.raises(RuntimeError, match="another thread is taking a batch"):
        next(iterator)
    with pytest.raises(RuntimeError, match="another thread is taking a batch"):
        iter(loader)
    may_return.set()
    thread.join()
    assert got == [list(range(100))]
    assert [x for values in iterator for x in values] == list(range(100, 2000))


# --- Processes --------------------------------------------------------------------------------------------

SETUP = """
    import gc, os, signal, sys, threading, time, warnings
    warnings.simplefilter("ignore", RuntimeWarning)
    import penstock as ps
    path, code = sys.argv[1], int(sys.argv[2])
    entered = threading.Event()
    def collate(batch):
        entered.set()
        return batch["x"].copy()
    def slow(batch):
        entered.set()
        time.sleep(0.05)
        return batch["x"]
    def make(collate_fn=collate, **options):
        return ps.Loader(path, 100, format="numpy", num_workers=2, collate_fn=collate_fn, **options)
    loader = make()
"""
ENDS = {
    "in mid-epoch": "it = iter(loader); kept = next(it); sys.exit(code)",
    "in the loop": "for batch in loader: sys.exit(code)",
    "while collate_fn runs": "it = iter(make(slow)); entered.wait(); sys.exit(code)",
    "in a cycle": "kept = [iter(loader)]; next(kept[0]); kept.append(kept); gc.disable(); sys.exit(code)",
    "kept by a module": "import json; json.it = iter(loader); next(json.it); sys.exit(code)",
    "next() at exit": "import atexit; it = iter(loader); atexit.register(lambda: next(it)); sys.exit(code)",
    "a thread that is joined at exit": (
        "def f():\n    threading.main_thread().join(); assert sum(len(x) for x in loader) == 2000\n"
        "threading.Thread(target=f).start(); sys.exit(code)"
    ),
    "daemon threads in next()": (
        "def f(entered):\n    for x in make(lambda batch: (entered.set(), slow(batch))[1]): pass\n"
        "all_entered = [threading.Event() for _ in range(3)]\n"
        "for each in all_entered: threading.Thread(target=f, args=(each,), daemon=True).start()\n"
        "for each in all_entered: each.wait()\nsys.exit(code)"
    ),
    "os._exit": "it = iter(make(slow)); next(it); os._exit(code)",
    "charged and kept": "kept = list(loader); ps.kept = (kept, iter(loader)); sys.exit(code)",
}


def script(code: str) -> str:
    return "\n".join(line[4:] for line in SETUP.splitlines()) + "\n" + code


@pytest.mark.parametrize("end", ENDS)
def test_the_interpreters_end(data: str, end: str) -> None:
    """Clause 21: leaving in mid-epoch keeps the exit code, prints nothing and does not hang."""
    done = run_python(script(ENDS[end]), data, "41")
    assert (done.returncode, done.stdout, done.stderr) == (41, b"", b"")


def test_ctrl_c_ends_a_wait_for_user_code(data: str) -> None:
    """Clause 20: SIGINT in a next() that waits for collate_fn ends it as soon as that returns."""
    code = """
def collate_long(batch):
    if not entered.is_set():
        entered.set()
        os.kill(os.getpid(), signal.SIGINT)
        interrupted.wait(0.5)
    return batch["x"]
interrupted = threading.Event()
loader = make(collate_long)
try:
    next(iter(loader))
    sys.exit("not interrupted")
except KeyboardInterrupt:
    pass
assert not [t for t in threading.enumerate() if "collate" in t.name]
assert sum(len(x) for x in loader) == 2000
sys.exit(code)
"""
    done = run_python(script(code), data, "7")
    assert (done.returncode, done.stderr) == (7, b"")


def test_use_after_fork(data: str) -> None:
    """Clause 21: in a forked child the iterator and the loader say so; the parent goes on."""
    code = """
it = iter(loader)
kept = [next(it) for _ in range(3)]
pid = os.fork()
if pid == 0:
    signal.alarm(100)
    for use in [lambda: next(it), lambda: iter(loader), lambda: list(loader)]:
        try:
            use()
        except RuntimeError as error:
            assert "fork" in str(error), error
        else:
            raise AssertionError("no error")
    kept.clear()
    del it
    gc.collect()
    loader.close()
    assert sum(len(x) for x in make()) == 2000
    sys.exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
assert sum(len(x) for x in it) == 1700
"""
    done = run_python(script(code), data, "30")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
