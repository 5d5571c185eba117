"""Calls of Ray's own that run through Penstock: what they give is what Ray gives."""

from __future__ import annotations

import itertools
import threading
import warnings
from typing import Any

import numpy as np
import pandas as pd
import penstock as ps
import pyarrow as pa
import pytest

from on_ray.ray_support import Numbers, values, wait_until


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which iterations have run through Penstock."""
    from penstock.ray import _enabled

    runs: list[str] = []
    plain = _enabled.iterate

    def iterate(iterator: Any, recipe: Any) -> Any:
        runs.append(type(iterator).__name__)
        return plain(iterator, recipe)

    monkeypatch.setattr(_enabled, "iterate", iterate)
    return runs


@pytest.fixture
def mixed(node: Any) -> Any:
    """Columns of many types, in blocks of odd sizes."""
    rng = np.random.default_rng(0)

    def table(begin: int, rows: int) -> pa.Table:
        numbers = np.arange(begin, begin + rows)
        images = rng.integers(0, 255, (rows, 2, 3)).astype(np.uint8)
        return pa.table(
            {
                "i": numbers,
                "f": pa.array([None if n % 5 == 0 else n / 2 for n in numbers], pa.float32()),
                "n": pa.array([None if n % 7 == 0 else int(n) for n in numbers], pa.int32()),
                "b": numbers % 2 == 0,
                "s": [f"row {n}" for n in numbers],
                "t": pa.array(numbers * 10**6, pa.timestamp("us")),
                "l": [list(range(n % 3)) for n in numbers],
                "m": pa.ExtensionArray.from_storage(
                    pa.fixed_shape_tensor(pa.uint8(), (2, 3)),
                    pa.FixedSizeListArray.from_arrays(images.ravel(), 6),
                ),
            }
        )

    return node.data.from_arrow([table(0, 10), table(10, 3), table(13, 20)])


def assert_same(got: Any, want: Any) -> None:
    assert type(got) is type(want)
    if isinstance(want, dict):
        assert list(got) == list(want)
        for name in want:
            assert_same(got[name], want[name])
    elif isinstance(want, np.ndarray):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        if want.dtype == object:
            assert [str(each) for each in got] == [str(each) for each in want]
        else:
            np.testing.assert_array_equal(got, want)
    elif isinstance(want, pa.Table):
        assert got.schema.equals(want.schema)
        assert got.equals(want)
    elif isinstance(want, pd.DataFrame):
        pd.testing.assert_frame_equal(got.reset_index(drop=True), want.reset_index(drop=True))
    else:
        assert got.dtype == want.dtype
        assert got.tolist() == want.tolist()


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow", "default"])
def test_iter_batches_gives_what_ray_gives(mixed: Any, ran: list[str], batch_format: str) -> None:
    arguments: dict[str, Any] = {"batch_size": 8, "batch_format": batch_format, "prefetch_batches": 1}
    want = list(mixed.iter_batches(**arguments))
    with ps.ray.enabled():
        got = list(mixed.iter_batches(**arguments))
    assert ran == ["DataIteratorImpl"]
    assert len(got) == len(want)
    for each, other in zip(got, want, strict=True):
        assert_same(each, other)


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow", None])
def test_whole_blocks(mixed: Any, ran: list[str], batch_format: str | None) -> None:
    want = list(mixed.iter_batches(batch_size=None, batch_format=batch_format))
    with ps.ray.enabled():
        got = list(mixed.iter_batches(batch_size=None, batch_format=batch_format))
    assert ran == ["DataIteratorImpl"]
    for each, other in zip(got, want, strict=True):
        assert_same(each, other)


NUMBERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "halffloat", "float", "double"]


@pytest.mark.parametrize(("kind", "has_nulls"), [("bool", False), *itertools.product(NUMBERS, [False, True])])
def test_tensors_of_numbers_are_those_of_ray(node: Any, ran: list[str], kind: str, has_nulls: bool) -> None:
    def column(begin: int, end: int) -> pa.Array:
        rows = [None if has_nulls and row == 12 else row % 2 for row in range(begin, end)]
        return pa.array(rows, pa.int8()).cast(pa.float32()).cast(kind)

    data = node.data.from_arrow(
        [pa.table({"x": column(a, b), "y": pa.array(range(a, b))}) for a, b in ((0, 10), (10, 21))]
    )
    want = list(data.iter_torch_batches(batch_size=8))
    with ps.ray.enabled():
        got = list(data.iter_torch_batches(batch_size=8))
    assert ran == ["DataIteratorImpl"]
    assert len(got) == len(want) == 3
    for each, other in zip(got, want, strict=True):
        assert list(each) == list(other) == ["x", "y"]
        for name in each:
            assert each[name].dtype == other[name].dtype
            np.testing.assert_array_equal(each[name].numpy(), other[name].numpy())


def fixed(shape: tuple[int, ...], begin: int, end: int) -> pa.Array:
    size = int(np.prod(shape))
    values = pa.array(np.arange(begin * size, end * size, dtype=np.int32))
    storage = pa.FixedSizeListArray.from_arrays(values, size)
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int32(), shape), storage)


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("made_by", ["arrow", "ray"])
def test_tensor_columns_are_those_of_ray(
    node: Any, ran: list[str], shape: tuple[int, ...], made_by: str
) -> None:
    parts = ((0, 10), (10, 21))
    if made_by == "arrow":
        data = node.data.from_arrow([pa.table({"x": fixed(shape, *part)}) for part in parts])
    else:
        data = node.data.from_numpy([fixed(shape, *part).to_numpy_ndarray() for part in parts])
    want = list(data.iter_torch_batches(batch_size=8))
    with ps.ray.enabled():
        got = list(data.iter_torch_batches(batch_size=8))
    assert ran == ["DataIteratorImpl"]
    for each, other in zip(got, want, strict=True):
        assert_same(each, other)


def test_a_row_that_lacks_its_tensor_is_the_error_that_it_is_with_ray(node: Any) -> None:
    whole, last = fixed((2,), 0, 10), fixed((2,), 10, 20)
    storage = pa.FixedSizeListArray.from_arrays(
        last.storage.flatten(), 2, mask=pa.array([True] + [False] * 9)
    )
    holed = pa.ExtensionArray.from_storage(last.type, storage)
    data = node.data.from_arrow([pa.table({"x": whole}), pa.table({"x": holed})])
    with pytest.raises(pa.ArrowInvalid) as want:
        list(data.iter_torch_batches(batch_size=5))
    with ps.ray.enabled(), pytest.raises(pa.ArrowInvalid) as got:
        list(data.iter_torch_batches(batch_size=5))
    assert str(got.value) == str(want.value)


def test_a_column_that_is_called_as_the_mask_of_another(node: Any) -> None:
    data = node.data.from_arrow(pa.table({"x": range(10), "x_mask": range(10, 20)}))
    with ps.ray.enabled():
        (batch,) = data.iter_torch_batches(batch_size=10)
    assert {name: values.tolist() for name, values in batch.items()} == {
        "x": [*range(10)],
        "x_mask": [*range(10, 20)],
    }


def test_tensors_of_numbers_need_none_of_rays_code(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a thread to collate on, until something is missing."""
    from ray.data.collate_fn import DefaultCollateFn

    calls: list[Any] = []
    plain = DefaultCollateFn.__call__
    monkeypatch.setattr(
        DefaultCollateFn, "__call__", lambda self, batch: calls.append(0) or plain(self, batch)
    )
    tables = [
        pa.table({"x": pa.array([None if row == hole else row for row in range(10)], pa.int64())})
        for hole in (-1, -1, 3)
    ]
    data = node.data.from_arrow(tables)
    with ps.ray.enabled():
        for _batch in data.iter_torch_batches(batch_size=5, prefetch_batches=4):
            assert "penstock-collate" not in " ".join(each.name for each in threading.enumerate())
    assert len(calls) == 1


@pytest.mark.parametrize("drop_last", [False, True])
def test_iter_torch_batches_gives_what_ray_gives(mixed: Any, ran: list[str], drop_last: bool) -> None:
    import torch

    data = mixed.select_columns(["i", "f", "b", "m"])
    arguments: dict[str, Any] = {
        "batch_size": 8,
        "drop_last": drop_last,
        "dtypes": {"i": torch.int32, "m": torch.float32, "f": torch.float64, "b": torch.bool},
    }
    want = list(data.iter_torch_batches(**arguments))
    with ps.ray.enabled():
        got = list(data.iterator().iter_torch_batches(**arguments))
    assert ran == ["DataIteratorImpl"]
    assert len(got) == len(want)
    for each, other in zip(got, want, strict=True):
        for name in other:
            assert (each[name].dtype, each[name].shape) == (other[name].dtype, other[name].shape)
            assert torch.equal(each[name].nan_to_num(), other[name].nan_to_num())


@pytest.mark.parametrize("kind", ["Arrow", "Numpy", "Pandas"])
def test_collate_classes_get_their_own_form(mixed: Any, ran: list[str], kind: str) -> None:
    import ray.data.collate_fn as collate

    base = getattr(collate, f"{kind}BatchCollateFn")
    seen = []

    class Collate(base):  # type: ignore[misc, valid-type]
        def __call__(self, batch: Any) -> Any:
            seen.append(type(batch))
            import torch

            return torch.as_tensor(np.asarray(batch["i"]).copy())

    want = [each.tolist() for each in mixed.iter_torch_batches(batch_size=8, collate_fn=Collate())]
    types = set(seen)
    seen.clear()
    with ps.ray.enabled():
        got = [each.tolist() for each in mixed.iter_torch_batches(batch_size=8, collate_fn=Collate())]
    assert got == want
    assert set(seen) == types
    assert [batch.tolist() for batch in ps.ray.Loader(mixed, 8, collate_fn=Collate())] == want
    assert len(ran) == 1


def test_shards_in_threads(numbers: Numbers, ran: list[str]) -> None:
    shards = numbers(8, 32).streaming_split(2, equal=True)
    got: list[list[int]] = [[], []]

    def consume(rank: int) -> None:
        got[rank] = values(shards[rank].iter_torch_batches(batch_size=16))

    with ps.ray.enabled():
        threads = [threading.Thread(target=consume, args=(rank,)) for rank in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert sorted(got[0] + got[1]) == list(range(256))
    assert len(got[0]) == len(got[1])
    assert ran == ["StreamSplitDataIterator"] * 2


def test_local_shuffle_keeps_batches_whole(numbers: Numbers, ran: list[str]) -> None:
    data = numbers(5, 30)
    with ps.ray.enabled():
        batches = data.iter_batches(batch_size=8, local_shuffle_buffer_size=40, local_shuffle_seed=3)
        first = [batch["x"].tolist() for batch in batches]
        second = [batch["x"].tolist() for batch in batches]
    assert [len(batch) for batch in first] == [8] * 18 + [6]
    assert sorted(sum(first, [])) == list(range(150))  # noqa: RUF017
    assert first != second
    assert len(ran) == 2


def test_a_window_that_has_no_room_is_mixed_outside_the_budget_with_a_warning(
    numbers: Numbers, ran: list[str]
) -> None:
    data = numbers(4, 64, 4096)
    with (
        ps.ray.enabled(memory_budget="16MiB"),
        pytest.warns(RuntimeWarning, match="too small for shuffle windows of 1024 rows"),
    ):
        rows = values(data.iter_torch_batches(batch_size=16, local_shuffle_buffer_size=1024))
    assert sorted(rows) == list(range(256))
    assert rows != sorted(rows)
    assert len(ran) == 1


def test_what_is_not_taken_over_runs_through_ray_with_one_warning(numbers: Numbers, ran: list[str]) -> None:
    data = numbers(2, 10)
    with ps.ray.enabled():
        with pytest.warns(RuntimeWarning, match="batch_format=None with a batch_size is not taken over"):
            want = [len(batch) for batch in data.iter_batches(batch_size=5, batch_format=None)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert want == [len(batch) for batch in data.iter_batches(batch_size=5, batch_format=None)]
    assert ran == []


def test_outside_of_the_context_ray_is_as_it_was(numbers: Numbers, ran: list[str]) -> None:
    from ray.data import DataIterator

    plain = DataIterator._iter_batches
    with ps.ray.enabled(), ps.ray.enabled():
        assert DataIterator._iter_batches is not plain
    assert DataIterator._iter_batches is plain
    with pytest.raises(KeyError), ps.ray.enabled():
        raise KeyError
    assert DataIterator._iter_batches is plain
    next(iter(numbers(2, 10).iter_batches()))
    assert ran == []


def test_statistics_of_ray_are_filled(numbers: Numbers) -> None:
    iterator = numbers(4, 64).iterator()
    opened = []
    plain = iterator._to_ref_bundle_iterator
    iterator._to_ref_bundle_iterator = lambda: opened.append(plain()) or opened[-1]
    with ps.ray.enabled():
        for _ in iterator.iter_batches(batch_size=32):
            pass
    stats = opened[0][1]
    assert (stats.iter_batches_total, stats.iter_rows_total) == (8, 256)
    for name in ("initialize", "total", "get_ref_bundles", "get", "next_batch", "format_batch", "user"):
        assert getattr(stats, f"iter_{name}_s").get() > 0, name
    assert stats.iter_total_blocked_s.get() >= stats.iter_time_to_first_batch_s.get() > 0
    assert stats.iter_prefetched_bytes == 0


def test_metrics_are_told_where_the_consumer_does_not_wait_for_it(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.ray import _blocks, _meter
    from ray.data._internal.stats import _StatsManager

    told: list[tuple[str, int]] = []

    def tell(stats: Any, *_: Any) -> None:
        told.append((threading.current_thread().name, stats.iter_rows_total))

    for module in (_blocks, _meter):
        monkeypatch.setattr(module, "TELL_EVERY_S", 0.01)
    monkeypatch.setattr(_StatsManager, "update_iteration_metrics", staticmethod(tell))
    with ps.ray.enabled():
        batches = iter(numbers(1, 512).iter_batches(batch_size=32))
        next(batches)
        wait_until(lambda: len(told) > 2)  # Although there is no reference left to take.
        for _ in batches:
            pass
    *during, end = told
    assert {name for name, _ in during} == {"penstock-ray"}
    assert end == (threading.current_thread().name, 512)
    rows = [each for _, each in told]
    assert rows == sorted(rows)


def test_a_generator_that_is_left_open_is_closed_by_its_end(numbers: Numbers) -> None:
    with ps.ray.enabled():
        batches = iter(numbers(6, 64).iter_batches(batch_size=16))
        next(batches)
        del batches  # No thread is left: see conftest.


# --- Types that Arrow would change ------------------------------------------------------------------------

DICTIONARIES = [
    pa.table({"d": pa.array(["a", "b", "b", "a"]).dictionary_encode(), "x": [1, 2, 3, 4]}),
    pa.table({"d": pa.array(["c", "b", "c"]).dictionary_encode(), "x": [5, 6, 7]}),
]
FRAMES = [
    pd.DataFrame({"i": range(begin, begin + 5), "f": [0.5, None, 2, 3, 4], "s": ["a", None, "b", "c", "d"]})
    for begin in (0, 5)
]
TYPELESS = [pa.table({"x": pa.nulls(5)}), pa.table({"x": [1, 2, 3]}), pa.table({"x": [0.5, 1.5]})]


def made_from(node: Any, blocks: list[Any]) -> Any:
    return (node.data.from_arrow if isinstance(blocks[0], pa.Table) else node.data.from_pandas)(blocks)


def taken_over(run: Any) -> tuple[list[Any], list[str]]:
    """The batches under `enabled`, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ps.ray.enabled():
            batches = list(run())
            list(run())
    return batches, [str(each.message) for each in caught if "penstock" in str(each.message)]


# Of Ray's own code.
pandas_warns = pytest.mark.filterwarnings("ignore:The inplace keyword")


@pandas_warns
@pytest.mark.parametrize("batch_size", [3, None])
@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow", "default"])
@pytest.mark.parametrize(
    ("blocks", "warned"),
    [
        (DICTIONARIES, {"pandas", "pyarrow"}),
        (FRAMES, {"numpy", "default", "pandas"}),
        ([frame.astype({"s": "category"}) for frame in FRAMES], {"numpy", "default", "pandas", "pyarrow"}),
        ([frame[["i", "f"]] for frame in FRAMES], {"pandas"}),
        ([frame.dropna().astype(object) for frame in FRAMES], {"numpy", "default", "pandas", "pyarrow"}),
        ([frame.convert_dtypes() for frame in FRAMES], {"numpy", "default", "pandas", "pyarrow"}),
        (TYPELESS, {"numpy", "default", "pandas", "pyarrow"}),
    ],
    ids=["dictionaries", "frames", "categories", "numbers", "objects", "nullable", "typeless"],
)
def test_types_are_those_of_ray(
    node: Any, blocks: list[Any], warned: set[str], batch_format: str, batch_size: int | None
) -> None:
    """Where they cannot be in Arrow's rows of one schema, Ray's code makes the batches, with one warning."""
    data = made_from(node, blocks)

    def run() -> Any:
        return data.iter_batches(batch_size=batch_size, batch_format=batch_format)

    want = list(run())
    got, messages = taken_over(run)
    assert len(got) == len(want)
    for each, other in zip(got, want, strict=True):
        assert_same(each, other)
    assert len(messages) == (batch_size is not None and batch_format in warned)
    assert all("made by Ray's own code, outside the memory budget" in message for message in messages)


@pandas_warns
def test_the_loader_in_rays_forms_keeps_types(node: Any) -> None:
    data = made_from(node, FRAMES)
    want = list(data.iter_batches(batch_size=4, batch_format="pandas"))
    loader = ps.ray.Loader(data, batch_size=4, batch_format="pandas")
    with pytest.warns(RuntimeWarning, match="pandas data frames, whose types are not Arrow's"):
        got = list(loader)
    for each, other in zip(got, want, strict=True):
        assert_same(each, other)


@pandas_warns
def test_what_rays_code_makes_is_shuffled_and_of_exact_size(node: Any) -> None:
    data = made_from(node, FRAMES)

    def run() -> Any:
        return data.iter_batches(
            batch_size=4, batch_format="pandas", local_shuffle_buffer_size=6, drop_last=True
        )

    got, _ = taken_over(run)
    assert [len(batch) for batch in got] == [4, 4]
    rows = [row for batch in got for row in batch["i"]]
    assert len(set(rows)) == 8


def test_a_copy_of_a_frame_shares_no_memory_with_it() -> None:
    """A deep copy of pandas' shares the memory of strings, which would stay mapped."""
    from penstock.ray._forms import own_copy_of_block

    def addresses(frame: pd.DataFrame) -> set[int]:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        chunks = [chunk for column in table.columns for chunk in column.chunks]
        return {buffer.address for chunk in chunks for buffer in chunk.buffers() if buffer is not None}

    frame = pd.DataFrame({"s": ["a", "b"], "i": [1, 2]})
    copy = own_copy_of_block(frame)
    pd.testing.assert_frame_equal(copy, frame)
    assert not addresses(copy) & addresses(frame)


# --- Blocks whose schemas differ --------------------------------------------------------------------------


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
@pytest.mark.parametrize(
    "blocks",
    [
        [pa.table({"x": pa.nulls(2)}), pa.table({"x": [1, 2]})],
        [pa.table({"x": [1, 2], "y": [1, 2]}), pa.table({"x": [3]}), pa.table({"x": [3], "z": ["a"]})],
        [pa.table({"x": [1, 2]}), pa.table({"x": [0.5]}), pa.table({"x": ["text"]})],
    ],
    ids=["null then int", "columns", "types"],
)
def test_whole_blocks_need_no_common_schema(node: Any, blocks: list[Any], batch_format: str) -> None:
    data = node.data.from_arrow(blocks)

    def run() -> Any:
        return data.iter_batches(batch_size=None, batch_format=batch_format)

    want = list(run())
    got, messages = taken_over(run)
    assert messages == []
    for each, other in zip(got, want, strict=True):
        assert_same(each, other)


@pytest.mark.parametrize(
    "later",
    [{"x": pa.nulls(2), "y": [3, 4]}, {"y": [3, 4]}, {"y": [3, 4], "x": pa.array([None, None], pa.int64())}],
    ids=["no type", "no column", "another order"],
)
def test_later_blocks_without_values_are_brought_to_the_first_ones_types(
    node: Any, later: dict[str, Any]
) -> None:
    data = node.data.from_arrow([pa.table({"x": [1, 2], "y": [1, 2]}), pa.table(later)])

    def run() -> Any:
        return data.iter_batches(batch_size=4, batch_format="pyarrow")

    got, messages = taken_over(run)
    assert messages == []
    assert [batch.to_pydict() for batch in got] == [{"x": [1, 2, None, None], "y": [1, 2, 3, 4]}]
    assert [batch.to_pydict() for batch in run()] == [{"x": [1, 2, None, None], "y": [1, 2, 3, 4]}]


def test_whole_numbers_after_fractions_are_brought_to_their_type(node: Any) -> None:
    data = node.data.from_arrow([pa.table({"x": [0.5, 1.5]}), pa.table({"x": [2, 3]})])
    got, _ = taken_over(lambda: data.iter_batches(batch_size=4))
    assert got[0]["x"].dtype == np.float64
    assert got[0]["x"].tolist() == [0.5, 1.5, 2, 3]


def test_a_column_that_the_first_block_lacks_is_an_error_with_a_remedy(node: Any) -> None:
    data = node.data.from_arrow([pa.table({"x": [1]}), pa.table({"x": [2], "y": [3]})])
    with (
        ps.ray.enabled(),
        pytest.raises(TypeError, match="first lacks 'y'; let the map functions return the same"),
    ):
        list(data.iter_batches(batch_size=2))


def test_a_collate_fn_may_return_nothing(numbers: Numbers, ran: list[str]) -> None:
    data = numbers(2, 10)
    seen: list[list[int]] = []

    def run() -> list[Any]:
        return list(data.iter_torch_batches(batch_size=8, collate_fn=lambda batch: seen.append(batch["x"])))

    want = run()
    with ps.ray.enabled():
        assert run() == want == [None] * 3
    assert len(ran) == 1
    assert [len(each) for each in seen] == [8, 8, 4] * 2


def test_a_collate_class_of_the_loader_may_return_nothing(numbers: Numbers) -> None:
    from ray.data.collate_fn import NumpyBatchCollateFn

    class Collate(NumpyBatchCollateFn):  # type: ignore[misc, valid-type]
        def __call__(self, batch: Any) -> Any:
            return None

    assert list(ps.ray.Loader(numbers(2, 10), 8, collate_fn=Collate())) == [None] * 3
