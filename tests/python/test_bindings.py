"""The loader as Python sees it: arguments, batches as views, life and death, errors, the GIL."""

from __future__ import annotations

import ast
import ctypes
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pytest
from conftest import loader_threads, rows_of
from penstock import _core

PACKAGE = Path(ps.__file__).parent


def user_bytes(loader: ps.Loader) -> int:
    return int(loader.memory()["user"]["current_bytes"])


def run_python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *args],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


# --- What comes out ---------------------------------------------------------------------------------------


def test_every_row_once_in_order_in_every_epoch(numbers: str, tensor_format: str) -> None:
    loader = ps.Loader(numbers, batch_size=64, format=tensor_format)
    assert len(loader) == 16
    for _ in range(3):
        batches = [(len(batch["x"]), batch["x"].tolist()) for batch in loader]
        assert [size for size, _ in batches] == [64] * 15 + [40]
        assert [x for _, values in batches for x in values] == list(range(1000))


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_options_reach_the_native_side(numbers: str, num_workers: int) -> None:
    loader = ps.Loader(
        [numbers, Path(numbers)],
        batch_size=300,
        drop_last=True,
        columns=["y"],
        filter=pc.field("x") >= 500,
        limit=700,
        num_workers=num_workers,
        prefetch_batches=2,
        memory_budget="64MiB",
        format="numpy",
        _direct_decode=num_workers != 1,
    )
    with pytest.raises(TypeError, match="filter"):
        len(loader)
    batches = [batch["y"].tolist() for batch in loader]
    half = [i / 2 for i in range(500, 1000)]
    assert batches == [half[:300], half[300:] + half[:100]]
    assert list(loader.schema) == ["y"]
    assert loader.memory()["budget_bytes"] == 64 << 20


TYPES = ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float16"]


@pytest.mark.parametrize("name", [*TYPES, "float32", "float64"])
def test_numbers_keep_their_type(write_parquet: Any, tensor_format: str, name: str) -> None:
    values = np.array([0, 1, 1, 0, 1]).astype(name)
    loader = ps.Loader(write_parquet({"v": values}), batch_size=3, format=tensor_format)
    first, second = loader
    assert str(first["v"].dtype).removeprefix("torch.") == name == loader.schema["v"].dtype
    assert first["v"].tolist() + second["v"].tolist() == values.tolist()


@pytest.mark.parametrize("nested", [(3,), (2, 3)])
def test_fixed_size_lists_have_their_shape(
    write_parquet: Any, tensor_format: str, nested: tuple[int, ...]
) -> None:
    values = np.arange(4 * int(np.prod(nested)), dtype=np.float32)
    array: pa.Array = pa.array(values)
    for extent in reversed(nested):
        array = pa.FixedSizeListArray.from_arrays(array, extent)
    loader = ps.Loader(write_parquet({"v": array}), format=tensor_format)
    (batch,) = loader
    assert tuple(batch["v"].shape) == (4, *nested)
    assert loader.schema["v"].shape == nested
    assert batch["v"].tolist() == values.reshape(4, *nested).tolist()


def test_masks_say_what_is_missing(write_parquet: Any, tensor_format: str) -> None:
    path = write_parquet({"v": pa.array([1, None, 3], pa.int32()), "w": pa.array([True, False, None])})
    loader = ps.Loader(path, nulls="mask", format=tensor_format)
    (batch,) = loader
    assert list(batch) == ["v", "v_mask", "w", "w_mask"]
    assert batch["v_mask"].tolist() == [False, True, False]
    assert batch["w_mask"].tolist() == [False, False, True]
    assert str(batch["v_mask"].dtype).removeprefix("torch.") == "bool"
    assert loader.schema["v"].has_mask
    filled = ps.Loader(path, nulls={"v": -1, "w": True}, format=tensor_format)
    (batch,) = filled
    assert batch["v"].tolist() == [1, -1, 3]
    assert batch["w"].tolist() == [True, False, True]
    with pytest.raises(ValueError, match="v"):
        list(ps.Loader(path, format=tensor_format))


def test_arrow_batches_carry_nulls_and_types(write_parquet: Any) -> None:
    table = pa.table(
        {
            "v": pa.array([1, None, 3], pa.int32()),
            "b": pa.array([True, None, False]),
            "t": pa.array([1, 2, None], pa.timestamp("us")),
        }
    )
    loader = ps.Loader(write_parquet(table), batch_size=2, format="arrow")
    batches = list(loader)
    assert [type(batch) for batch in batches] == [pa.RecordBatch] * 2
    for batch in batches:
        batch.validate(full=True)
    got = pa.Table.from_batches(batches)
    assert got.to_pylist() == table.to_pylist()
    assert [loader.schema[name].arrow_type for name in got.column_names] == got.schema.types


def test_no_rows_give_no_batches(write_parquet: Any, tensor_format: str) -> None:
    loader = ps.Loader(write_parquet({"x": pa.array([], pa.int64())}), format=tensor_format)
    assert list(loader) == []
    assert len(loader) == 0


def test_schema_is_a_mapping_that_people_can_read(numbers: str) -> None:
    schema = ps.Loader(numbers, format="numpy").schema
    assert dict(schema) == {"x": schema["x"], "y": schema["y"]}
    assert schema["y"].source_type == pa.float32()
    assert schema["x"].vocabulary is None
    assert repr(schema) == "Schema:\n  <Field 'x': int64 from int64>\n  <Field 'y': float32 from float>"
    with pytest.raises(KeyError):
        schema["z"]


# --- Views hold their slot --------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["torch", "numpy", "arrow"])
def test_a_view_keeps_its_bytes_counted_until_it_dies(numbers: str, format: Any) -> None:
    if format == "torch":
        pytest.importorskip("torch")
    loader = ps.Loader(numbers, batch_size=100, format=format)
    iterator = iter(loader)
    batch = next(iterator)
    expected = batch["x"].tolist() if format != "arrow" else batch.column("x").to_pylist()
    part = batch["x"][2:3]
    del batch
    iterator.close()  # type: ignore[attr-defined]
    assert user_bytes(loader) > 0
    loader.close()
    accounts = {
        name: line["current_bytes"] for name, line in loader.memory().items() if isinstance(line, dict)
    }
    assert accounts.pop("total") == accounts.pop("user") > 0
    assert not any(accounts.values())
    assert part[0] == expected[2] if format != "arrow" else part.to_pylist() == expected[2:3]
    del part
    assert user_bytes(loader) == 0


def test_batches_outlive_their_loader(numbers: str, tensor_format: str) -> None:
    loader = ps.Loader(numbers, batch_size=100, format=tensor_format)
    batch = next(iter(loader))
    del loader
    gc.collect()
    assert batch["x"].tolist() == list(range(100))
    batch["x"][0] = 5
    assert batch["x"].tolist()[0] == 5


def test_tensors_may_die_on_any_thread(numbers: str, tensor_format: str) -> None:
    loader = ps.Loader(numbers, batch_size=10, format=tensor_format)
    for batch in loader:
        held = [batch]
        del batch
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
    loader.close()
    assert user_bytes(loader) == 0


def test_an_arrow_array_is_released_exactly_once(numbers: str) -> None:
    loader = ps.Loader(numbers, batch_size=100, format="arrow")
    batch = next(iter(loader))
    schema_capsule, array_capsule = batch.__arrow_c_array__()
    copy = pa.RecordBatch._import_from_c_capsule(schema_capsule, array_capsule)
    del batch, schema_capsule, array_capsule
    loader.close()
    assert user_bytes(loader) > 0
    assert copy.column(0).to_pylist() == list(range(100))
    del copy
    assert user_bytes(loader) == 0


def test_kept_batches_are_an_error_that_says_how_many(write_parquet: Any, tensor_format: str) -> None:
    path = write_parquet({"x": np.arange(4_000_000)}, row_group_size=100_000, use_dictionary=False)
    loader = ps.Loader(path, batch_size=100_000, memory_budget="16MiB", format=tensor_format)
    kept: list[Any] = []
    with pytest.raises(MemoryError) as error:
        kept.extend(iter(loader))
    assert f"{len(kept)} batches are still held" in str(error.value)
    kept.clear()
    assert sum(len(batch["x"]) for batch in loader) == 4_000_000


def test_batches_in_reference_cycles_are_collected(write_parquet: Any) -> None:
    path = write_parquet({"x": np.arange(4_000_000)}, row_group_size=100_000, use_dictionary=False)
    loader = ps.Loader(path, batch_size=100_000, memory_budget="16MiB", format="numpy")
    gc.disable()
    try:
        rows = 0
        for batch in loader:
            rows += len(batch["x"])
            cycle = [batch]
            cycle.append(cycle)  # type: ignore[arg-type]
    finally:
        gc.enable()
    assert rows == 4_000_000


# --- Iterators --------------------------------------------------------------------------------------------


def test_a_new_epoch_closes_the_iterator_that_is_open(numbers: str) -> None:
    loader = ps.Loader(numbers, batch_size=100, format="numpy")
    old = iter(loader)
    next(old)
    new = iter(loader)
    with pytest.raises(RuntimeError, match="closed when its loader started the next epoch"):
        next(old)
    del old
    assert next(new)["x"].tolist() == list(range(100))
    assert len(list(new)) == 9
    assert list(new) == []
    assert rows_of(loader) == list(range(1000))
    assert list(new) == []  # It had come to its end, and stays there.


def test_an_early_break_frees_threads_and_bytes(numbers: str) -> None:
    loader = ps.Loader(numbers, batch_size=10, format="numpy")
    for _ in range(20):
        for _batch in loader:
            break
        assert loader_threads() == []
    del _batch
    memory = loader.memory()
    assert memory["slots"]["current_bytes"] == memory["decode"]["current_bytes"] == 0
    assert user_bytes(loader) == 0


def test_an_iterator_keeps_its_loader_alive(numbers: str) -> None:
    assert sum(len(batch["x"]) for batch in iter(ps.Loader(numbers, format="numpy"))) == 1000


def test_a_closed_loader_says_so(numbers: str) -> None:
    with ps.Loader(numbers, format="numpy", batch_size=10) as loader:
        iterator = iter(loader)
        next(iterator)
    loader.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(iterator)
    with pytest.raises(RuntimeError, match="closed"):
        iter(loader)
    assert "Loader(" in repr(loader)
    assert loader.stats().to_dict()["batches"] == 1


def slow_loader(path: str, seconds: float = 30.0, **options: Any) -> ps.Loader:
    """The first row group takes so long that next() waits."""
    return ps.Loader(
        path,
        columns=["x"],
        transforms={"x": ps.testing.spin(mean_us=seconds * 1e6 / 100, sigma=0, is_sleep=True)},
        format="numpy",
        num_workers=1,
        **options,
    )


@pytest.mark.slow
def test_two_threads_cannot_take_batches_at_once(numbers: str) -> None:
    loader = slow_loader(numbers, seconds=3, batch_size=100)
    iterator = iter(loader)
    errors: list[BaseException] = []
    waits = threading.Event()

    def take() -> None:
        waits.set()
        try:
            next(iterator)
        except RuntimeError as error:
            errors.append(error)

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 1
    assert "one thread at a time" in str(errors[0])
    loader.close()


def test_close_ends_another_threads_wait(numbers: str) -> None:
    loader = slow_loader(numbers, seconds=0.5, batch_size=100)
    iterator = iter(loader)
    errors: list[BaseException] = []

    def take() -> None:
        try:
            while True:
                next(iterator)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    loader.close()
    thread.join()
    assert "closed" in str(errors[0])


def test_the_gil_is_free_while_waiting(numbers: str) -> None:
    loader = slow_loader(numbers, seconds=1, batch_size=100)
    ticks = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    iterator = iter(loader)
    thread.start()
    began = time.monotonic()
    next(iterator)
    ended = time.monotonic()
    stop.set()
    thread.join()
    assert sum(began < tick < ended for tick in ticks) > 30  # A look at signals lets it go 20 times.


# --- Arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"batch_size": 1.5}, TypeError, "batch_size is an int, got float"),
        ({"batch_size": True}, TypeError, "batch_size is an int, got a bool"),
        ({"batch_size": 2**63}, ValueError, "at most"),
        ({"limit": -1}, ValueError, "limit must be at least 0"),
        ({"num_workers": -1}, ValueError, "num_workers must be at least 0"),
        ({"num_workers": 1.0}, TypeError, "num_workers is an int, got float"),
        ({"num_workers": False}, TypeError, "num_workers is an int, got a bool"),
        ({"prefetch_batches": -1}, ValueError, "prefetch_batches must be at least 0"),
        ({"prefetch_batches": "many"}, ValueError, "'auto' or an int"),
        ({"memory_budget": "lots"}, ValueError, "lots.*256MiB"),
        ({"memory_budget": 0}, ValueError, "memory_budget must be at least 1"),
        ({"memory_budget": 1.5}, TypeError, "memory_budget is an int"),
        ({"memory_budget": 30_000}, ValueError, r"least.* \d+ bytes"),
        ({"memory_budget": 1000}, ValueError, r"\d+ bytes.* memory_budget"),
        ({"drop_last": 1}, TypeError, "drop_last is True or False"),
        ({"columns": "x"}, TypeError, "columns is a list of names"),
        ({"columns": ["nope"]}, ValueError, "nope"),
        ({"filter": "x > 3"}, TypeError, "pyarrow.compute expression"),
        ({"nulls": "skip"}, ValueError, "'error', 'mask'"),
        ({"nulls": 3}, TypeError, "'error', 'mask'"),
        ({"nulls": {"x": [1]}}, TypeError, "fill value"),
        ({"format": "jax"}, ValueError, "'torch', 'numpy', 'arrow' or 'pandas'"),
        ({"filesystem": "s3"}, TypeError, "pyarrow.fs.FileSystem or an fsspec"),
        ({"shufle": True}, TypeError, "unexpected keyword argument 'shufle'"),
        ({"shuffle": 1}, TypeError, "shuffle is True or False"),
    ],
)
def test_wrong_arguments_are_refused(
    numbers: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ps.Loader(numbers, **{"format": "numpy", **options})


@pytest.mark.parametrize("source", [3, None, b"data.parquet", {"a": 1}, ["a", 3], [b"a"]])
def test_other_sources_are_a_type_error_that_says_what_is_accepted(source: Any) -> None:
    with pytest.raises(TypeError, match="a path, a folder, a glob pattern or a URI"):
        ps.Loader(source, format="numpy")


def test_missing_files_are_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.parquet"):
        ps.Loader(tmp_path / "nothing.parquet", format="numpy")
    with pytest.raises(ValueError, match="empty list"):
        ps.Loader([], format="numpy")


def test_what_is_no_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.parquet").write_text("these are not the bytes that you are looking for")
    with pytest.raises((OSError, ValueError), match=r"notes\.parquet"):
        ps.Loader(tmp_path / "notes.parquet", format="numpy")


def test_numpy_ints_are_ints(numbers: str) -> None:
    loader = ps.Loader(numbers, batch_size=np.int64(500), limit=np.int32(600), format="numpy")  # type: ignore[arg-type]
    assert len(loader) == 2


def test_too_many_workers_and_too_much_memory_are_warned_of(numbers: str) -> None:
    with pytest.warns(RuntimeWarning, match="num_workers=10000 is more than") as caught:
        ps.Loader(numbers, num_workers=10_000, format="numpy")
    assert caught[0].filename == __file__
    with pytest.warns(RuntimeWarning, match=r"memory_budget is .* may use only"):
        ps.Loader(numbers, memory_budget="1000000GiB", format="numpy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ps.Loader(numbers, num_workers=_core.available_cores(), format="numpy")


def test_torch_is_needed_only_for_its_format(numbers: str) -> None:
    code = """
        import sys
        sys.modules["torch"] = None
        import penstock as ps
        assert len(list(ps.Loader(sys.argv[1], format="numpy"))) == 1
        try:
            ps.Loader(sys.argv[1])
        except ImportError as error:
            print(error)
    """
    done = run_python(code, numbers)
    assert done.returncode == 0, done.stderr
    assert "pip install torch" in done.stdout
    assert "format='numpy'" in done.stdout


def test_repr_and_pickle_keep_the_configuration(numbers: str) -> None:
    loader = ps.Loader(
        numbers,
        batch_size=7,
        filter=pc.field("x") < 20,
        transforms={"z": ps.col("x") | ps.ops.lookup(list(range(20)))},
        nulls={"y": 0},
        format="numpy",
        memory_budget="32MiB",
    )
    next(iter(loader))
    assert "batch_size=7" in repr(loader)
    assert "(x < 20)" in repr(loader)
    assert f"num_workers={_core.available_cores()}" in repr(loader)
    copy = pickle.loads(pickle.dumps(loader))
    assert repr(copy) == repr(loader)
    assert rows_of(copy, "z") == rows_of(loader, "z") == list(range(20))


# --- File systems -----------------------------------------------------------------------------------------


def test_local_file_systems_are_native(numbers: str) -> None:
    local = pyarrow.fs.LocalFileSystem()
    folder = pyarrow.fs.SubTreeFileSystem(str(Path(numbers).parent), local)
    loader = pickle.loads(pickle.dumps(ps.Loader(numbers, filesystem=local, format="numpy")))
    assert rows_of(loader) == list(range(1000))
    assert rows_of(ps.Loader("data.parquet", filesystem=folder, format="numpy")) == list(range(1000))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_python_file_systems_are_called_on_the_workers(numbers: str, num_workers: int) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/train/a.parquet", Path(numbers).read_bytes())
    memory.pipe("/train/b.parquet", Path(numbers).read_bytes())
    options: dict[str, Any] = {"filesystem": memory, "format": "numpy", "num_workers": num_workers}
    assert rows_of(ps.Loader("/train/a.parquet", **options)) == list(range(1000))
    loader = ps.Loader("/train", batch_size=10, **options)
    assert rows_of(loader) == [*range(1000), *range(1000)]
    for _ in range(5):  # Leaving early joins workers that may wait for the GIL.
        next(iter(loader))
    with pytest.raises(FileNotFoundError):
        ps.Loader("/train/c.parquet", **options)


def test_files_of_a_python_file_system_may_be_remote(numbers: str) -> None:
    dirfs = pytest.importorskip("fsspec.implementations.dirfs")
    local = pytest.importorskip("fsspec.implementations.local")
    folder = dirfs.DirFileSystem(str(Path(numbers).parent), local.LocalFileSystem())
    options: dict[str, Any] = {"batch_size": 10, "format": "numpy", "num_workers": 2}
    assert rows_of(ps.Loader("data.parquet", filesystem=folder, **options)) == list(range(1000))
    wrapped = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(folder))
    assert rows_of(ps.Loader(["data.parquet"] * 3, filesystem=wrapped, **options)) == [*range(1000)] * 3


def test_errors_of_a_python_file_system_are_raised_as_they_are(numbers: str) -> None:
    class RefusalError(Exception):
        pass

    class Handler(pyarrow.fs.FSSpecHandler):
        def open_input_file(self, path: str) -> Any:
            raise RefusalError("not today")

    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/refused.parquet", Path(numbers).read_bytes())
    filesystem = pyarrow.fs.PyFileSystem(Handler(memory))
    with pytest.raises(RefusalError, match="not today"):
        ps.Loader("/refused.parquet", filesystem=filesystem, format="numpy")


# --- Reports ----------------------------------------------------------------------------------------------


def test_reports_have_the_documented_names(numbers: str) -> None:
    loader = ps.Loader(numbers, batch_size=100, format="numpy")
    explanation = loader.explain()
    assert explanation.to_dict()["batches"] == 10
    assert explanation.to_dict()["least_budget_bytes"] > 0
    assert {column["name"] for column in explanation.to_dict()["columns"]} == {"x", "y"}
    assert len(list(loader)) == 10
    stats = loader.stats()
    values = stats.to_dict()
    assert (values["batches"], values["rows"], values["epochs"]) == (10, 1000, 1)
    assert set(values["wait_ms"]) == {"mean", "std", "p50", "p99", "max"}
    assert {"plan", "read", "decode", "transform", "slot", "budget", "work"} <= set(values["stages"])
    assert set(values["stages"]["read"]) == {"busy_s", "wait_s", "items", "bytes"}
    assert values["rows_per_s"] > 0
    assert 0 < values["peak_bytes"] <= values["budget_bytes"]
    assert values["skipped"] == 0
    assert values["bottleneck"] in str(stats) or values["bottleneck"] == "none"
    assert "\n" in str(stats)
    assert "10 batches" in repr(stats)
    assert "counted" in repr(explanation)
    assert "\n" in str(explanation)
    values["batches"] = 0
    assert stats.to_dict()["batches"] == 10


def test_memory_names_every_account(numbers: str) -> None:
    memory = ps.Loader(numbers, format="numpy").memory()
    accounts = [
        "metadata",
        "decode",
        "blocks",
        "slots",
        "shuffle",
        "user",
        "python",
        "device",
        "store",
        "total",
    ]
    assert list(memory) == [*accounts, "budget_bytes", "over_budget_bytes"]
    assert set(memory["slots"]) == {"current_bytes", "peak_bytes"}


# --- Signals, fork, exit ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 1])
def test_ctrl_c_ends_the_wait_and_leaves_the_loader_usable(numbers: str, num_workers: int) -> None:
    loader = ps.Loader(
        numbers,
        batch_size=500,
        columns=["x"],
        transforms={"x": ps.testing.spin(mean_us=2000, sigma=0, is_sleep=True)},
        format="numpy",
        num_workers=num_workers,
    )
    iterator = iter(loader)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))

    def wait() -> None:
        timer.start()
        next(iterator)

    with pytest.raises(KeyboardInterrupt):
        wait()
    timer.join()
    assert loader_threads() == []
    assert list(iterator) == []
    assert rows_of(loader) == list(range(1000))


EXIT = """
    import sys, threading
    import penstock as ps
    loader = ps.Loader(sys.argv[1], batch_size=10, format="numpy")
    other = ps.Loader(sys.argv[1], batch_size=10, format="numpy")
    iterators = [iter(loader), iter(other)]
    kept = [next(iterator) for iterator in iterators]
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(7)", 7), ("pass", 0), ("del loader, other; sys.exit(3)", 3), ("kept[0]['me'] = kept", 0)],
)
def test_leaving_in_mid_epoch_keeps_the_exit_code(numbers: str, end: str, code: int) -> None:
    done = run_python(textwrap.dedent(EXIT) + end, numbers)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_leaving_while_a_daemon_thread_waits_is_silent(numbers: str) -> None:
    end = """
    slow = ps.Loader(sys.argv[1], batch_size=1000, columns=["x"], format="numpy", num_workers=1,
                     transforms={"x": ps.testing.spin(mean_us=300, sigma=0, is_sleep=True)})
    threading.Thread(target=lambda: [None for _ in slow], daemon=True).start()
    sys.exit(5)
    """
    done = run_python(textwrap.dedent(EXIT) + textwrap.dedent(end), numbers)
    assert (done.returncode, done.stdout, done.stderr) == (5, "", "")


def test_a_thread_that_the_interpreter_waits_for_gets_all_batches(numbers: str) -> None:
    end = """
    def consume():
        threading.main_thread().join()
        print(sum(len(batch["x"]) for batch in loader))
    threading.Thread(target=consume).start()
    """
    done = run_python(textwrap.dedent(EXIT) + textwrap.dedent(end), numbers)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "1000", "")


def test_a_forked_child_is_told_to_make_its_own_loader(numbers: str) -> None:
    end = """
    import os
    child = os.fork()
    if child == 0:
        try:
            next(iterators[0])
        except RuntimeError as error:
            sys.exit(9 if "fork" in str(error) else 1)
        sys.exit(2)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(sum(len(batch["x"]) for batch in iterators[0]))
    sys.exit(code)
    """
    done = run_python(textwrap.dedent(EXIT) + textwrap.dedent(end), numbers)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (9, "990", "")


# --- The native module ------------------------------------------------------------------------------------


def stub_names(body: list[ast.stmt], prefix: str = "") -> set[str]:
    names: set[str] = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            names |= stub_names(node.body, f"{node.name}.")
    return names


def test_the_stub_names_what_the_module_has() -> None:
    stub = ast.parse((PACKAGE / "_core.pyi").read_text())
    expected = stub_names(stub.body)
    actual = set()
    for name, value in vars(_core).items():
        if name.startswith("__"):
            continue
        actual.add(name)
        if isinstance(value, type):
            shown = {member for member in vars(value) if not member.startswith("_nb")}
            actual |= {f"{name}.{member}" for member in shown if f"{name}.{member}" in expected}
            hidden = {member for member in shown if not member.startswith("__")}
            actual |= {f"{name}.{member}" for member in hidden}
    assert actual == expected


def test_one_arrow_is_loaded(numbers: str) -> None:
    maps = Path("/proc/self/maps").read_text()
    libraries = {line.split()[-1] for line in maps.splitlines() if "libarrow.so" in line}
    assert len(libraries) == 1


def test_torch_takes_the_memory_itself(numbers: str) -> None:
    pytest.importorskip("torch")
    batch = next(iter(ps.Loader(numbers, batch_size=10)))
    address = batch["x"].data_ptr()
    assert ctypes.c_int64.from_address(address + 8).value == 1
    ctypes.c_int64.from_address(address + 8).value = 42
    assert batch["x"].tolist()[1] == 42
    assert batch["x"].is_contiguous()
