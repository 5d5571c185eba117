"""Ops written in Python: what they get, what they may give, their errors, and how they end."""

from __future__ import annotations

import gc
import pickle
import threading
import weakref
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support import current_bytes, quiet_loader, rows_of, run_python, wait_until

WORKERS = pytest.mark.parametrize("num_workers", [0, 1, 4])


def twice(rows: pa.Array) -> Any:
    return rows.to_numpy() * 2


def loader_of(path: str, fn: Any, dtype: str = "int64", shape: Any = (), **options: Any) -> ps.Loader:
    transforms = {"x": ps.ops.python(fn, dtype, shape)}
    return quiet_loader(path, **{"columns": ["x"], "transforms": transforms, "batch_size": 64, **options})


# --- What goes in and comes out ---------------------------------------------------------------------------


@WORKERS
def test_every_row_goes_through_once_and_in_order(numbers: str, num_workers: int) -> None:
    seen: list[int] = []

    def fn(rows: pa.Array) -> Any:
        seen.extend(rows.to_pylist())
        return twice(rows)

    loader = loader_of(numbers, fn, num_workers=num_workers)
    for _ in range(2):
        seen.clear()
        assert rows_of(loader) == [2 * x for x in range(1000)]
        assert sorted(seen) == list(range(1000))


@pytest.mark.parametrize(
    "give",
    [
        lambda x: x.astype(np.float32),
        lambda x: x.astype(np.float64),
        lambda x: x.tolist(),
        lambda x: pa.array(x),
        lambda x: pa.chunked_array([pa.array(x[:1]), pa.array(x[1:])]),
        lambda x: pytest.importorskip("torch").tensor(x),
    ],
    ids=["float32", "float64", "list", "arrow", "chunked", "torch"],
)
def test_arrays_of_every_library_are_taken(numbers: str, give: Any) -> None:
    loader = loader_of(numbers, lambda rows: give(rows.to_numpy()), "float32")
    assert loader.schema["x"].dtype == "float32"
    assert rows_of(loader) == list(range(1000))


def test_rows_have_the_shape_that_was_promised(numbers: str) -> None:
    def fn(rows: pa.Array) -> Any:
        x = rows.to_numpy()
        return np.stack([x, x + 1, x + 2, x + 3, x + 4, x + 5], axis=1).reshape(-1, 2, 3).transpose(0, 2, 1)

    loader = loader_of(numbers, fn, shape=(3, 2))
    assert loader.schema["x"].shape == (3, 2)
    (first, *_rest) = loader
    assert first["x"][10].tolist() == [[10, 13], [11, 14], [12, 15]]
    as_arrow = loader_of(
        numbers, lambda rows: pa.FixedSizeListArray.from_arrays(twice(rows).repeat(2), 2), shape=2
    )
    assert rows_of(as_arrow) == [[2 * x, 2 * x] for x in range(1000)]


def test_native_ops_follow_and_nothing_goes_before(numbers: str) -> None:
    op = ps.ops.python(twice, "int64")
    loader = quiet_loader(
        numbers, columns=["x"], transforms={"x": op | ps.ops.clip(upper=10) | ps.ops.scale(0, 4)}
    )
    assert rows_of(loader) == [min(2 * x, 10) / 4 for x in range(1000)]
    with pytest.raises(
        ValueError, match=r"python\(twice\) takes the column as it is .* must be the first op"
    ):
        quiet_loader(numbers, transforms={"x": ps.ops.cast("int8") | op})


COLUMNS: dict[str, Any] = {
    "text": pa.array(["a", None, "ccc"]),
    "view": pa.array(["a long string that is not inlined", None, "b"], pa.string_view()),
    "list": pa.array([[1], None, [2, 3]]),
    "struct": pa.array([{"a": 1}, None, {"a": 3}]),
    "dictionary": pa.array(["x", None, "y"]).dictionary_encode(),
    "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int8())),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_rows_come_as_they_are_in_the_file_and_may_be_kept(write_parquet: Any, name: str) -> None:
    values = pa.concat_arrays([COLUMNS[name]] * 100)
    path = write_parquet({"x": values}, row_group_size=50)
    kept: list[pa.Array] = []

    def fn(rows: pa.Array) -> Any:
        kept.append(rows)
        return np.arange(len(rows))

    with loader_of(path, fn, num_workers=1) as loader:
        assert len(rows_of(loader)) == 300
        source_type = loader.schema["x"].source_type  # Parquet names the items of lists in its own way.
    assert current_bytes(loader) == {}
    del loader
    gc.collect()
    for rows in kept:
        rows.validate(full=True)
    assert {rows.type for rows in kept} == {source_type}
    assert source_type.id == values.type.id
    assert [value for rows in kept for value in rows.to_pylist()] == values.to_pylist()


def test_partition_columns_and_filters(write_parquet: Any, tmp_path: Any) -> None:
    for key in "ab":
        write_parquet({"x": list(range(30))}, name=f"data/key={key}/f.parquet")
    lengths = ps.ops.python(lambda rows: [ord(value) for value in rows.to_pylist()], "uint8")
    loader = quiet_loader(
        tmp_path / "data",
        columns=["x"],
        transforms={"x": ps.ops.python(twice, "int64"), "key": lengths},
        filter=pc.field("x") > 20,
        batch_size=100,
    )
    (batch,) = loader
    assert batch["x"].tolist() == [2 * x for x in range(21, 30)] * 2
    assert batch["key"].tolist() == [97] * 9 + [98] * 9


# --- Results that are none --------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [2, 4])
def test_of_several_errors_the_first_in_the_order_of_rows_is_raised(numbers: str, num_workers: int) -> None:
    later_failed = threading.Event()

    def fn(rows: pa.Array) -> Any:
        if rows[0].as_py() >= 100:
            later_failed.set()
        assert later_failed.wait(60)
        raise ValueError(f"at row {rows[0].as_py()}")

    with pytest.raises(ValueError, match=r"at row 0$"):
        list(loader_of(numbers, fn, num_workers=num_workers))


@pytest.mark.parametrize(
    ("give", "dtype", "error", "message"),
    [
        (lambda x: None, "int64", TypeError, "returned None"),
        (lambda x: x[:-1], "int64", ValueError, r"shape \(99,\) for 100 rows"),
        (lambda x: x.reshape(-1, 1), "int64", ValueError, r"shape \(100, 1\) for 100 rows"),
        (lambda x: 5, "int64", ValueError, r"shape \(\) for 100 rows"),
        (lambda x: x + 0.5, "int64", TypeError, "float64, which does not convert to int64"),
        (lambda x: x + 200, "int8", ValueError, "200, which does not fit int8"),
        (lambda x: x - 1, "uint8", ValueError, "-1, which does not fit uint8"),
        (lambda x: x * 1e300, "float32", ValueError, "which does not fit float32"),
        (lambda x: x, "bool", TypeError, "int64, which does not convert to bool"),
        (lambda x: ["a"] * len(x), "int64", TypeError, "which does not convert to int64"),
        (lambda x: [[1]] + [[1, 2]] * (len(x) - 1), "int64", TypeError, "a list, which makes no"),
        (lambda x: pa.array([None] * len(x), pa.int64()), "int64", ValueError, "100 nulls"),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_what_came(
    numbers: str, give: Any, dtype: str, error: Any, message: str
) -> None:
    loader = loader_of(numbers, lambda rows: give(rows.to_numpy()), dtype, num_workers=0)
    with pytest.raises(error, match=message) as caught:
        list(loader)
    if hasattr(caught.value, "__notes__"):
        (note,) = caught.value.__notes__
        assert "row group 0, column 'x': rows 0 to 99: python(" in note


# --- Errors in the function -------------------------------------------------------------------------------


class RefusalError(Exception):
    pass


@WORKERS
def test_an_error_comes_once_in_its_place_and_all_is_given_back(numbers: str, num_workers: int) -> None:
    fails_at: int | None = None

    def fn(rows: pa.Array) -> Any:
        if fails_at in rows.to_pylist():
            raise RefusalError(fails_at)
        return twice(rows)

    loader = loader_of(numbers, fn, num_workers=num_workers)
    idle = current_bytes(loader)
    for fails_at in (0, 64, 450, 999):
        got: list[int] = []
        iterator = iter(loader)

        def consume(iterator: Any = iterator, got: list[int] = got) -> None:
            for batch in iterator:
                got.extend(batch["x"].tolist())

        with pytest.raises(RefusalError) as caught:
            consume()
        assert caught.value.args == (fails_at,)
        assert "fn" in {entry.name for entry in caught.traceback}
        if hasattr(caught.value, "__notes__"):
            (note,) = caught.value.__notes__
            assert f"data.parquet', row group {fails_at // 100}, column 'x': " in note
        assert got == [2 * x for x in range(len(got))]
        assert len(got) <= fails_at
        assert list(iterator) == []
        del caught  # Its traceback shows the last batch.
        wait_until(lambda: current_bytes(loader) == idle)
    fails_at = None
    assert rows_of(loader) == [2 * x for x in range(1000)]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, OSError(5, "disk")])
def test_exceptions_keep_their_type(numbers: str, num_workers: int, error: Any) -> None:
    def fn(rows: pa.Array) -> Any:
        raise error

    with pytest.raises(error if isinstance(error, type) else type(error)) as caught:
        list(loader_of(numbers, fn, num_workers=num_workers))
    if not isinstance(error, type):
        assert caught.value is error


def test_stop_iteration_does_not_end_the_loop_in_silence(numbers: str) -> None:
    def fn(rows: pa.Array) -> Any:
        raise StopIteration

    with pytest.raises(RuntimeError, match="fn raised StopIteration"):
        list(loader_of(numbers, fn))


# --- Life and death ---------------------------------------------------------------------------------------


def test_close_waits_for_the_function_and_the_gil_is_free_meanwhile(numbers: str) -> None:
    entered, may_go = threading.Event(), threading.Event()

    def fn(rows: pa.Array) -> Any:
        entered.set()
        may_go.wait()
        return twice(rows)

    loader = loader_of(numbers, fn, num_workers=2)
    iterator = iter(loader)
    entered.wait()
    closing = threading.Thread(target=loader.close)
    closing.start()
    assert closing.is_alive()
    may_go.set()
    closing.join()
    assert current_bytes(loader) == {}
    with pytest.raises(RuntimeError, match="closed"):
        next(iterator)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_leaving_early_is_no_error(numbers: str, num_workers: int) -> None:
    loader = loader_of(numbers, twice, num_workers=num_workers)
    for _ in range(5):
        for batch in loader:
            assert batch["x"][1] == 2
            break


def test_a_function_that_knows_its_loader_dies_with_it(numbers: str) -> None:
    """A circle through the native loader is found by the garbage collector."""

    class Holder:
        loader: Any = None

        def fn(self, rows: pa.Array) -> Any:
            return twice(rows)

    holder = Holder()
    holder.loader = loader_of(numbers, holder.fn, num_workers=2)
    iterator = iter(holder.loader)
    next(iterator)
    died = weakref.ref(holder)
    del holder, iterator
    gc.collect()
    assert died() is None


def test_the_loader_can_be_pickled_if_the_function_can(numbers: str) -> None:
    loader = pickle.loads(pickle.dumps(loader_of(numbers, twice)))
    assert rows_of(loader) == [2 * x for x in range(1000)]
    op = ps.ops.python(twice, "int64", 3)
    assert pickle.loads(pickle.dumps(op)) == op
    assert repr(op) == "python(twice, dtype='int64', shape=(3,))"
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(loader_of(numbers, lambda rows: twice(rows)))


PROGRAM = """
    import os, signal, sys, threading, time
    import penstock as ps
    entered = threading.Event()
    def fn(rows):
        entered.set()
        time.sleep(0.02)
        return rows.to_numpy()
    loader = ps.Loader(
        sys.argv[1],
        columns=["x"],
        transforms={"x": ps.ops.python(fn, "int64")},
        num_workers=int(sys.argv[2]),
        batch_size=50,
        format="numpy",
    )
"""


def test_the_interpreter_ends_while_the_function_runs(numbers: str) -> None:
    code = """
    iterator = iter(loader)
    entered.wait()
    print("end")
    """
    ended = run_python(PROGRAM + code, numbers, "2")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"end\n", b"")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_ctrl_c_while_the_function_runs(numbers: str, num_workers: int) -> None:
    code = """
    def interrupt():
        entered.wait()
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        list(loader)
    except KeyboardInterrupt:
        print("interrupted", len(list(loader)))
    """
    ended = run_python(PROGRAM + code, numbers, str(num_workers))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"interrupted 20\n", b"")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ps.ops.python(3, "int8"), TypeError, "fn is a function"),
        (lambda: ps.ops.python(twice, "string"), ValueError, "choose one of"),
        (lambda: ps.ops.python(twice, "int8", (3, 0)), ValueError, "extent"),
        (lambda: ps.ops.python(twice, "int8", 1.5), TypeError, "extent"),
    ],
)
def test_wrong_arguments_are_refused_at_once(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()
