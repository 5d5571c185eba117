"""Clauses 20, 21, 23 and 24 of the checklist, invariants 2 and 6: how loaders, batches and processes end."""

from __future__ import annotations

import gc
import pickle
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import penstock as ps
import pyarrow as pa
import pytest
from conftest import loader_threads
from support import current_bytes, quiet_loader, rows_of, run_python, values_of, wait_until, write_row_groups

FORMATS = ["torch", "numpy", "arrow"]


@pytest.fixture
def data(tmp_path: Path) -> str:
    """2,000 rows of x = 0, 1, 2, ... in row groups of 250."""
    table = pa.table({"x": np.arange(2000), "y": np.arange(2000, dtype=np.float32)})
    return write_row_groups(tmp_path / "data.parquet", table, [250] * 8)


def skip_without_torch(format: str) -> None:
    if format == "torch":
        pytest.importorskip("torch")


# --- Threads ----------------------------------------------------------------------------------------------

FEW_THREADS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
static int most = 1 << 30;
void allow(int threads) { most = threads; }
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
  if (most-- <= 0) return EAGAIN;
  int (*create)() = (int (*)())dlsym(RTLD_NEXT, "pthread_create");
  return create(thread, attributes, run, argument);
}
"""


def test_the_system_refuses_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that says so, whichever thread it is; nothing stays held, and the loader still goes on."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "few.c").write_text(FEW_THREADS)
    library = str(tmp_path / "few.so")
    subprocess.run(
        [compiler, "-w", "-shared", "-fPIC", "-o", library, str(tmp_path / "few.c"), "-ldl"],
        check=True,
        timeout=100,
    )
    monkeypatch.setenv("LD_PRELOAD", library)
    code = """
import ctypes, sys
import numpy as np
import penstock as ps
import pyarrow as pa
from support import current_bytes, quiet_loader, rows_of

allow = ctypes.CDLL(sys.argv[1]).allow
table = pa.table({"x": np.arange(2000)})
for options, threads in ({}, 2), ({"shuffle": True}, 5):  # Two workers; with a filler and two mixers.
    for allowed in range(threads):
        loader = quiet_loader(table, batch_size=100, num_workers=2, **options)
        first = list(next(iter(loader))["x"])
        loader.load_state_dict(loader.state_dict())
        allow(allowed)
        try:
            next(iter(loader))
        except RuntimeError as error:
            assert "a thread cannot be started" in str(error) and "lower num_workers" in str(error), error
        else:
            raise AssertionError(f"no error with {allowed} threads")
        assert set(current_bytes(loader)) <= {"metadata"}
        allow(1 << 30)
        assert sorted([*first, *rows_of(loader)]) == list(range(2000))
        loader.close()
"""
    result = run_python(code, library)
    assert result.returncode == 0, result.stderr.decode()


# --- The interpreter's end --------------------------------------------------------------------------------

SETUP = """
    import gc, os, sys, threading, warnings
    warnings.simplefilter("ignore", RuntimeWarning)
    import penstock as ps
    path, format, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    def make(mean_us=0.0, batch_size=100, **options):
        spin = {"x": ps.testing.spin(mean_us, 0, is_sleep=True)} if mean_us else None
        options = dict(format=format, num_workers=workers, columns=["x"], transforms=spin, **options)
        return ps.Loader(path, batch_size, **options)
    loader = make()
"""
ENDS = {
    "falls off the end": ("it = iter(loader); kept = next(it)", 0),
    "exit code": ("it = iter(loader); kept = next(it); sys.exit(41)", 41),
    "exit within the loop": ("for batch in loader: sys.exit(42)", 42),
    "exit while rows are being made": ("it = iter(make(2000.0)); next(it); sys.exit(43)", 43),
    "os._exit": ("it = iter(make(2000.0)); next(it); os._exit(44)", 44),
    "exit in a function's frame": ("def f():\n    for batch in loader: sys.exit(45)\nf()", 45),
    "views in a cycle": ("kept = [next(iter(loader))]; kept.append(kept); gc.disable(); sys.exit(46)", 46),
    "kept by a module": (
        "import json; json.kept = [b for b in loader]; json.it = iter(loader); next(json.it)",
        0,
    ),
    "kept by the package": (
        "ps.kept = (loader, iter(loader)); ps.batch = next(ps.kept[1]); sys.exit(47)",
        47,
    ),
    "views outlive the loader": ("kept = list(loader); del loader; gc.collect(); sys.exit(48)", 48),
    "next() at exit": (
        "import atexit; it = iter(loader); atexit.register(lambda: next(it)); sys.exit(49)",
        49,
    ),
    "a finalizer that looks at batches": (
        "class F:\n    def __del__(self): assert len(self.batch['x']) == 100\n"
        "f = F(); f.batch = next(iter(loader)); sys.exit(50)",
        50,
    ),
    "a hundred loaders": (
        "its = [iter(make()) for _ in range(100)]; kept = [next(i) for i in its]; sys.exit(51)",
        51,
    ),
    "a file system in Python that knows the loader": (
        "from support import watched_files\n"
        "def before_read(path): assert sys\n"
        "loader = make(filesystem=watched_files(before_read)); it = iter(loader); next(it); sys.exit(55)",
        55,
    ),
    "a thread that is joined at exit": (
        "def f():\n    threading.main_thread().join(); assert sum(len(b['x']) for b in loader) == 2000\n"
        "threading.Thread(target=f).start(); sys.exit(52)",
        52,
    ),
    "daemon threads in next()": (
        "def f():\n    for b in make(300.0, 200): pass\n"
        "for _ in range(3): threading.Thread(target=f, daemon=True).start()\nsys.exit(53)",
        53,
    ),
    "daemon threads that leave early": (
        "def f():\n    while True:\n        next(iter(make()))\n"
        "for _ in range(3): threading.Thread(target=f, daemon=True).start()\n"
        "next(iter(make(100.0))); sys.exit(54)",
        54,
    ),
}


# Each end with two workers; those about batches with other formats too, those about threads with none.
ABOUT_BATCHES = [
    "views in a cycle",
    "kept by a module",
    "views outlive the loader",
    "a finalizer that looks at batches",
]
ABOUT_THREADS = ["exit while rows are being made", "next() at exit", "daemon threads in next()"]


@pytest.mark.parametrize(
    ("end", "format", "num_workers"),
    [
        *((end, "numpy", 2) for end in ENDS),
        *((end, format, 1) for end in ABOUT_BATCHES for format in ("torch", "arrow")),
        *((end, "numpy", 0) for end in ABOUT_THREADS),
    ],
)
def test_the_interpreters_end(data: str, end: str, format: str, num_workers: int) -> None:
    """Clause 21: leaving in mid-epoch keeps the exit code, prints nothing, does not hang, whoever holds
    batches."""
    skip_without_torch(format)
    code, expected = ENDS[end]
    done = run_python(
        "\n".join(line[4:] for line in SETUP.splitlines()) + "\n" + code, data, format, str(num_workers)
    )
    assert (done.returncode, done.stdout, done.stderr) == (expected, b"", b"")


def test_an_exception_in_the_loop_is_all_that_is_shown(data: str) -> None:
    """Clause 21: an uncaught exception ends the process as without a loader, code 1 and its own traceback."""
    code = (
        "\n".join(line[4:] for line in SETUP.splitlines()) + "\nfor batch in loader: raise ValueError('mine')"
    )
    done = run_python(code, data, "numpy", "2")
    assert (done.returncode, done.stdout) == (1, b"")
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "ValueError: mine"


def test_a_signal_that_ends_the_process(data: str) -> None:
    """Clause 21: SIGTERM ends a process in mid-epoch as it ends any other."""
    code = "\n".join(line[4:] for line in SETUP.splitlines())
    code += "\nimport signal\nfor batch in make(1000.0): os.kill(os.getpid(), signal.SIGTERM)"
    done = run_python(code, data, "numpy", "2")
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, b"")


# --- Ctrl-C -----------------------------------------------------------------------------------------------

CTRL_C = """
    import signal, time
    from support import items_done, wait_until
    slow = make(5000.0, batch_size=2000 if workers else 20)
    kicked = []
    def kick():
        wait_until(lambda: items_done(slow, "transform") >= done + 3)
        kicked.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    for _ in range(3):
        done = items_done(slow, "transform")
        thread = threading.Thread(target=kick)
        thread.start()
        try:
            for batch in slow: pass
            sys.exit("not interrupted")
        except KeyboardInterrupt:
            ms = 1000 * (time.perf_counter() - kicked.pop())
        thread.join()
        print(f"{ms:.0f} ms")
        user = slow.memory()["user"]["current_bytes"]
        assert slow.memory()["total"]["current_bytes"] - slow.memory()["metadata"]["current_bytes"] == user
        # A new loader and this one are both usable.
        assert sum(len(b["x"]) for b in loader) == 2000
    slow.close()
    quick = make(1.0)
    assert sum(len(b["x"]) for b in quick) == 2000
    sys.exit(7)
"""


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_ctrl_c_ends_a_wait(data: str, num_workers: int) -> None:
    """Clause 20: SIGINT within a next() of 10 s and more ends it as soon as the running rows allow, three
    times."""
    done = run_python(SETUP + CTRL_C, data, "numpy", str(num_workers))
    print(done.stdout.decode())
    assert (done.returncode, done.stderr) == (7, b"")
    latencies = [int(line.split()[0]) for line in done.stdout.decode().splitlines()]
    assert len(latencies) == 3
    assert min(latencies) < 1000


def test_ctrl_c_that_nobody_catches(data: str) -> None:
    """Clauses 20, 21: the process ends as Python's rules say, by SIGINT, with the traceback of
    KeyboardInterrupt."""
    code = "\n".join(line[4:] for line in SETUP.splitlines())
    code += "\nimport signal\nfor batch in make(1000.0): os.kill(os.getpid(), signal.SIGINT)"
    done = run_python(code, data, "numpy", "2")
    assert done.returncode == -signal.SIGINT
    assert done.stderr.decode().splitlines()[-1] == "KeyboardInterrupt"


# --- fork -------------------------------------------------------------------------------------------------

FORK = """
    it = iter(loader)
    kept = [next(it) for _ in range(3)]
    def values(batch):
        return batch["x"].to_pylist() if format == "arrow" else batch["x"].tolist()
    def child(number):
        assert values(kept[1]) == list(range(100, 200))
        for use in [lambda: next(it), lambda: iter(loader), lambda: list(loader), lambda: len(loader)]:
            try:
                use()
            except RuntimeError as error:
                assert "fork" in str(error), error
            else:
                raise AssertionError("no error")
        loader.stats(), loader.memory(), repr(loader), loader.schema
        kept.pop(0)
        if number % 4 == 0: loader.close()
        if number % 4 == 1: globals().pop("it"); gc.collect()
        if number % 4 == 2: kept.clear()
        mine = make()
        assert sum(len(b["x"]) for b in mine) == 2000
        sys.exit(30 + number)
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            signal.alarm(100)
            child(number)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 30 + number
        assert values(kept[1]) == list(range(100, 200))
    rest = [v for batch in it for v in values(batch)]
    assert rest == list(range(300, 2000))
    kept.clear(); batch = None
    assert sum(len(b["x"]) for b in loader) == 2000
    loader.close()
    assert loader.memory()["total"]["current_bytes"] == loader.memory()["user"]["current_bytes"]
    print("parent is well")
"""


@pytest.mark.parametrize(("format", "num_workers"), [("numpy", 2), ("torch", 2), ("arrow", 2), ("numpy", 0)])
def test_use_after_fork(data: str, format: str, num_workers: int) -> None:
    """Clause 21: in a forked child the loader says so, batches are readable, a new loader works, the end is
    clean."""
    skip_without_torch(format)
    done = run_python(SETUP + FORK, data, format, str(num_workers))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"parent is well\n", b"")


# --- Threads ----------------------------------------------------------------------------------------------


def test_two_loaders_at_once(data: str) -> None:
    """Clause 21: loaders share nothing: interleaved, and each in a thread of its own."""
    loaders = [quiet_loader(data, batch_size=size, num_workers=2) for size in (10, 10, 10)]
    for batches in zip(*loaders, strict=True):
        assert len({tuple(values_of(batch)) for batch in batches}) == 1
    rows: dict[int, list[int]] = {}

    def consume(number: int) -> None:
        rows[number] = [x for _ in range(3) for batch in loaders[number] for x in values_of(batch)]

    threads = [threading.Thread(target=consume, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows == {number: list(range(2000)) * 3 for number in range(3)}


def test_an_iterator_may_change_threads(data: str) -> None:
    """Clause 21: one thread at a time, but not always the same."""
    iterator = iter(quiet_loader(data, batch_size=100))
    seen: list[int] = []
    for _ in range(20):
        thread = threading.Thread(target=lambda: seen.extend(values_of(next(iterator))))
        thread.start()
        thread.join()
    assert seen == list(range(2000))


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_close_wakes_a_thread_in_next(data: str, num_workers: int) -> None:
    """Invariant 6: close() ends a next() of 10 s and more that another thread is in, as soon as the rows in
    work allow."""
    spin = {"x": ps.testing.spin(5000, 0, is_sleep=True)}
    loader = quiet_loader(data, batch_size=2000, columns=["x"], transforms=spin, num_workers=num_workers)
    errors: list[str] = []

    def consume() -> None:
        try:
            next(iter(loader))
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=consume)
    thread.start()
    wait_until(lambda: loader.stats().to_dict()["stages"]["transform"]["items"] >= 2)
    loader.close()
    thread.join()
    assert len(errors) == 1
    assert "closed" in errors[0]
    assert current_bytes(loader) == {}


def test_a_stale_iterators_death_does_not_touch_the_new_epoch(data: str) -> None:
    """Clause 10, invariant 6: only the current epoch's iterator ends it."""
    loader = quiet_loader(data, batch_size=100)
    stale = iter(loader)
    next(stale)
    fresh = iter(loader)
    assert values_of(next(fresh)) == list(range(100))
    stale.close()  # type: ignore[attr-defined]
    del stale
    gc.collect()
    assert rows_of(fresh) == list(range(100, 2000))


# --- Tensors that stay ------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("backwards", [True, False])
def test_each_release_runs_exactly_once(data: str, format: str, backwards: bool) -> None:
    """Clause 24, invariant 2: batches outlive the loader; each one that dies lowers the account once, the
    last to zero."""
    skip_without_torch(format)
    loader = quiet_loader(
        data, batch_size=250, format=format, prefetch_batches=0, memory_budget="8MiB", nulls="mask"
    )
    kept = list(loader)
    memory = loader.memory  # The ledger lives on with the batches.
    loader.close()
    sizes = []
    for _ in range(len(kept)):
        sizes.append(memory()["user"]["current_bytes"])
        batch = kept.pop(-1 if backwards else 0)
        views = [batch["x"][i : i + 1] for i in range(100)]
        del batch
        assert memory()["user"]["current_bytes"] == sizes[-1]
        del views
    assert sizes == sorted(sizes, reverse=True)
    assert memory()["user"]["current_bytes"] == 0
    assert memory()["total"]["current_bytes"] == 0


@pytest.mark.parametrize("format", FORMATS)
def test_batches_survive_everything_else(data: str, format: str) -> None:
    """Clause 24: values stay right while the loader, its file and its epochs go."""
    skip_without_torch(format)
    loader = quiet_loader(data, batch_size=100, format=format)
    kept = list(loader)
    first = next(iter(loader))
    Path(data).unlink()
    del loader
    gc.collect()
    assert loader_threads() == []
    assert [x for batch in kept for x in values_of(batch)] == list(range(2000))
    assert values_of(first) == list(range(100))


def test_loaders_and_batches_travel_to_other_processes(data: str) -> None:
    """Clause 24: a pickled loader is a new one of the same configuration, in mid-epoch too; batches pickle
    as copies."""
    loader = quiet_loader(
        data, batch_size=100, format="numpy", num_workers=1, memory_budget="8MiB", limit=1500
    )
    iterator = iter(loader)
    batch = next(iterator)
    text = pickle.dumps((loader, batch))
    code = """
        import pickle, sys
        loader, batch = pickle.loads(sys.stdin.buffer.read())
        assert loader.stats().to_dict()["batches"] == 0
        print(repr(loader), batch["x"].sum(), sum(b["x"].sum() for b in loader))
    """
    done = run_python(code, stdin=text)
    assert (done.stdout.decode().strip(), done.stderr) == (
        f"{loader!r} {sum(range(100))} {sum(range(1500))}",
        b"",
    )
    assert sum(len(batch["x"]) for batch in iterator) == 1400
    with pytest.raises(TypeError):
        pickle.dumps(iterator)
    copy = pickle.loads(pickle.dumps(batch))
    del batch
    loader.close()
    assert current_bytes(loader) == {}
    assert values_of(copy) == list(range(100))
