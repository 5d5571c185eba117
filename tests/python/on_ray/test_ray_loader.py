"""Batches out of Ray Data: every row once, in order, and nothing held that is not needed."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import penstock as ps
import pyarrow as pa
import pytest
from conftest import own_threads
from fake_cuda import has_driver

from on_ray.ray_support import MIB, Numbers, values, wait_until


class TestLoader:
    def test_every_row_comes_once_in_order_and_sizes_are_exact(self, numbers: Numbers) -> None:
        loader = ps.ray.Loader(numbers(7, 100), batch_size=64)
        for _ in range(2):
            batches = list(loader)
            assert [len(batch["x"]) for batch in batches] == [64] * 10 + [60]
            assert values(batches) == list(range(700))

    @pytest.mark.parametrize("form", ["torch", "numpy", "arrow", "pandas"])
    def test_formats_are_those_of_penstock(self, node: Any, form: Any) -> None:
        want = next(iter(ps.Loader(pa.table({"x": range(10)}), format=form)))
        got = next(iter(ps.ray.Loader(node.data.range(10).rename_columns(["x"]), format=form)))
        assert type(got) is type(want)
        assert list(got["x"]) == list(want["x"])

    def test_takes_iterators_and_shards(self, numbers: Numbers) -> None:
        data = numbers(8, 50)
        assert values(ps.ray.Loader(data.iterator(), batch_size=64)) == list(range(400))
        got: list[list[int]] = [[], []]

        def consume(rank: int, shard: Any) -> None:
            got[rank] = [len(batch["x"]) for batch in ps.ray.Loader(shard, batch_size=32, drop_last=True)]

        shards = data.streaming_split(2, equal=True)
        for _ in range(2):
            threads = [threading.Thread(target=consume, args=each) for each in enumerate(shards)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            assert got == [[32] * 6] * 2

    @pytest.mark.skipif(has_driver(), reason="there is a driver here")
    def test_pin_memory_locks_the_batches_themselves(self, numbers: Numbers) -> None:
        with pytest.raises(RuntimeError, match="leave pin_memory out"):
            next(iter(ps.ray.Loader(numbers(1, 10), pin_memory=True)))

    def test_options_of_the_loader(self, numbers: Numbers) -> None:
        import pyarrow.compute as pc

        loader = ps.ray.Loader(
            numbers(4, 50),
            batch_size=32,
            columns=["x"],
            filter=pc.field("x") >= 20,
            transforms={"x": ps.ops.cast("float32")},
            limit=100,
            collate_fn=lambda batch: batch["x"] * 2,
            finalize_fn=lambda batch: batch.tolist(),
        )
        assert [value for batch in loader for value in batch] == [2.0 * x for x in range(20, 120)]

    def test_late_transforms_run_in_the_consumer(self, node: Any) -> None:
        from photos import jpeg

        jpegs = [jpeg((40 + side, 30)) for side in range(6)]
        loader = ps.ray.Loader(
            node.data.from_arrow(pa.table({"image": jpegs})),
            batch_size=4,
            transforms={"image": ps.image.decode() | ps.image.resize(8) | ps.image.center_crop(8)},
        )
        assert [tuple(batch["image"].shape) for batch in loader] == [(4, 3, 8, 8), (2, 3, 8, 8)]

    def test_each_epoch_draws_anew_as_set_epoch_says(self, numbers: Numbers) -> None:
        data = numbers(2, 64)
        loader = ps.ray.Loader(data, 32, local_shuffle_buffer_size=64, local_shuffle_seed=7)
        first, second = values(loader), values(loader)
        assert first != second
        loader.set_epoch(0)
        assert values(loader) == first


class TestRelease:
    def test_a_block_goes_with_its_last_row(self, numbers: Numbers) -> None:
        blocks, rows, width = 4, 64, 16384  # 4 MiB each, 16 batches.
        loader = ps.ray.Loader(
            numbers(blocks, rows, width), batch_size=4, memory_budget="8MiB", prefetch_batches=0
        )
        store = []
        for number, batch in enumerate(loader):
            assert batch["x"].tolist() == list(range(number * 4, number * 4 + 4))
            store.append(loader.memory()["store"]["current_bytes"])
        assert max(store) <= 33 * MIB
        memory = loader.memory()
        assert memory["store"]["current_bytes"] == 0
        assert memory["store"]["peak_bytes"] >= rows * width * 4
        assert memory["total"]["peak_bytes"] <= 8 * MIB

    def test_one_large_block_at_a_time(self, numbers: Numbers) -> None:
        rows, width = 40, 1 << 18  # 40 MiB each.
        loader = ps.ray.Loader(numbers(3, rows, width), batch_size=8, prefetch_batches=1)
        assert values(loader) == list(range(3 * rows))
        assert 40 * MIB <= loader.memory()["store"]["peak_bytes"] < 41 * MIB

    def test_what_is_mapped_is_referenced(self, node: Any, numbers: Numbers) -> None:
        """By Ray's own accounts nothing is kept for a batch's sake that Ray believes deleted."""
        from ray._private.internal_api import node_stats

        (here,) = node.nodes()

        def mapped() -> list[Any]:
            reply = node_stats(here["NodeManagerAddress"], here["NodeManagerPort"])
            (own,) = [each for each in reply.core_workers_stats if each.pid == os.getpid()]
            return [each for each in own.object_refs if each.pinned_in_memory]

        # One block at a time: each is larger than what is fetched ahead.
        loader = ps.ray.Loader(numbers(3, 40, 1 << 17), batch_size=8, prefetch_batches=0, num_workers=0)
        kept = []
        for batch in loader:
            kept.append(batch["x"])  # A view, as long as its batch.
            now = mapped()
            assert len(now) <= 1
            assert all(each.local_ref_count > 0 for each in now)
        assert len(kept) == 15
        assert mapped() == []

    def test_references_ahead_are_fewer_where_batches_lie_ahead(self, node: Any) -> None:
        from penstock.ray._blocks import BlockStream
        from penstock.ray._meter import Meter

        table = pa.table({"x": range(10)})
        entry = SimpleNamespace(
            ref=node.put(table), metadata=SimpleNamespace(size_bytes=8 * MIB, num_rows=10)
        )
        asked: list[int] = []

        def bundles() -> Any:
            for number in range(20):
                asked.append(number)
                yield SimpleNamespace(blocks=[entry])

        stream = BlockStream(bundles(), threading.Event(), 40, Meter(None, {}, 0.0), lambda _: None)
        given = [next(stream) for _ in range(6)]
        # 16 MiB of references, and no more: 60 rows lie in batches.
        wait_until(lambda: len(asked) == 8 and not stream._has_room())
        stream.counts_unused = False  # As with a filter, where batches have fewer rows than their blocks.
        assert stream._has_room()
        stream.counts_unused = True
        stream.use(50)
        wait_until(lambda: len(asked) == 9 and not stream._has_room())  # 10 in batches and 30 in blocks.
        stream.use(10)
        wait_until(lambda: len(asked) == 10)
        stream.stop()
        stream.join()
        del given
        assert stream.held_bytes == 0

    def test_what_is_held_is_reported_to_the_resource_manager(
        self, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ray.data._internal.execution.streaming_executor import StreamingExecutor

        told: list[int] = []
        plain = StreamingExecutor.set_external_consumer_bytes

        def tell(self: Any, held_bytes: int) -> None:
            told.append(held_bytes)
            plain(self, held_bytes)

        monkeypatch.setattr(StreamingExecutor, "set_external_consumer_bytes", tell)
        # Without workers, and with room for few batches: a block is let go within next() alone.
        loader = ps.ray.Loader(numbers(6, 64, 4096), batch_size=2, num_workers=0, memory_budget="300KiB")
        block_bytes = 64 * 4096 * 4
        most_mapped = 0
        for _ in loader:
            mapped = loader.memory()["store"]["current_bytes"]
            assert told[-1] >= mapped
            most_mapped = max(most_mapped, mapped)
        assert most_mapped >= block_bytes
        assert told[-1] == 0
        told.clear()
        for _ in ps.ray.Loader(numbers(6, 64, 4096), batch_size=2):
            pass
        assert max(told) >= block_bytes
        assert told[-1] == 0

    def test_leaving_early_leaves_no_thread_and_no_block(
        self, numbers: Numbers, store_bytes: Callable[[], int]
    ) -> None:
        data = numbers(12, 64, 16384)
        gc.collect()
        threads = set(threading.enumerate())
        for _ in range(3):
            for batch in ps.ray.Loader(data, batch_size=16):
                del batch
                break
            assert own_threads() <= threads
            wait_until(lambda: set(threading.enumerate()) <= threads)
        wait_until(lambda: store_bytes() < 4 * MIB)

    def test_a_shard_that_is_left_early(self, numbers: Numbers) -> None:
        shards = numbers(8, 64, 1024).streaming_split(2, equal=True)
        done: list[int] = []

        def consume(shard: Any) -> None:
            for _ in range(2):
                for batch in ps.ray.Loader(shard, batch_size=16):
                    done.append(len(batch["x"]))
                    break

        threads = [threading.Thread(target=consume, args=(shard,)) for shard in shards]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert done == [16] * 4

    def test_the_next_iteration_closes_the_one_before(self, numbers: Numbers) -> None:
        with ps.ray.Loader(numbers(4, 50), batch_size=16) as loader:
            first = iter(loader)
            next(first)
            assert values(loader) == list(range(200))
            with pytest.raises(StopIteration):
                next(first)
            second = iter(loader)
            next(second)
        with pytest.raises(StopIteration):
            next(second)


class TestBlocks:
    def test_tensor_columns(self, node: Any) -> None:
        images = np.arange(10 * 2 * 3).reshape(10, 2, 3).astype(np.uint8)
        batch = next(iter(ps.ray.Loader(node.data.from_numpy(images), batch_size=10, format="numpy")))
        np.testing.assert_array_equal(batch["data"], images)

    def test_pandas_blocks(self, node: Any) -> None:
        frames = [pd.DataFrame({"x": range(i, i + 5), "s": ["a", "b", None, "d", "e"]}) for i in (0, 5)]
        loader = ps.ray.Loader(node.data.from_pandas(frames), batch_size=4, format="arrow", nulls="mask")
        table = pa.Table.from_batches(list(loader))
        assert table["x"].to_pylist() == list(range(10))
        assert table["s"].to_pylist() == ["a", "b", None, "d", "e"] * 2
        assert loader.memory()["store"]["peak_bytes"] == 0

    def test_empty_blocks_are_passed_over(self, numbers: Numbers) -> None:
        data = numbers(10, 10).filter(lambda row: 20 <= row["x"] < 25 or row["x"] >= 95)
        assert values(ps.ray.Loader(data, batch_size=4)) == [*range(20, 25), *range(95, 100)]

    def test_no_rows_at_all(self, numbers: Numbers) -> None:
        assert list(ps.ray.Loader(numbers(2, 5).filter(lambda row: False))) == []

    def test_columns_without_values_take_the_type_of_the_first_block(self, node: Any) -> None:
        tables = [pa.table({"s": ["a", "b"]}), pa.table({"s": pa.nulls(2)}), pa.table({"s": ["c"]})]
        loader = ps.ray.Loader(node.data.from_arrow(tables), format="arrow", nulls="mask")
        assert [batch["s"].to_pylist() for batch in loader] == [["a", "b", None, None, "c"]]

    def test_blocks_of_other_types_say_which_column(self, node: Any) -> None:
        tables = [pa.table({"s": [1, 2]}), pa.table({"s": ["x"]})]
        with pytest.raises(TypeError, match=r"'s' is int64 in the first block .* and string in a later one"):
            list(ps.ray.Loader(node.data.from_arrow(tables)))

    def test_blocks_of_other_columns(self, node: Any) -> None:
        tables = [pa.table({"x": [1, 2]}), pa.table({"y": [1]})]
        with pytest.raises(TypeError, match="differ in their columns: the first lacks 'y'"):
            list(ps.ray.Loader(node.data.from_arrow(tables)))

    def test_dictionaries_become_their_values(self, node: Any) -> None:
        table = pa.table({"s": pa.array(["a", "b", "a"]).dictionary_encode()})
        (batch,) = ps.ray.Loader(node.data.from_arrow(table), format="arrow")
        assert batch["s"].to_pylist() == ["a", "b", "a"]


def test_a_collate_function_of_ray_gets_the_types_of_the_blocks(node: Any) -> None:
    from ray.data.collate_fn import DefaultCollateFn

    data = node.data.from_arrow(pa.table({"x": range(10), "y": np.arange(10, dtype=np.float32)}))
    for transforms in (None, {"x": ps.ops.cast("float32")}):
        loader = ps.ray.Loader(
            data, 4, transforms=transforms, collate_fn=DefaultCollateFn(combine_chunks=True)
        )
        batches = list(loader)
        assert [batch["x"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert {str(batch["x"].dtype) for batch in batches} == {"torch.int64"}
        assert {str(batch["y"].dtype) for batch in batches} == {"torch.float32"}


class TestShuffle:
    def test_batches_keep_their_size_and_rows_come_once(self, node: Any) -> None:
        data = node.data.from_arrow(
            [pa.table({"x": range(i, i + n)}) for i, n in ((0, 30), (30, 10), (40, 50))]
        )
        loader = ps.ray.Loader(data, 8, local_shuffle_buffer_size=20, local_shuffle_seed=0)
        batches = [batch["x"].tolist() for batch in loader]
        assert [len(batch) for batch in batches] == [8] * 11 + [2]
        rows = [row for batch in batches for row in batch]
        assert rows != sorted(rows)
        for begin in range(0, 90, 20):
            window = rows[begin : begin + 20]
            assert sorted(window) == list(range(begin, min(begin + 20, 90)))

    @pytest.mark.parametrize(
        "options", [{}, {"transforms": {"x": ps.ops.clip(0, 1000)}}, {"limit": 50}, {"columns": ["x"]}]
    )
    def test_other_options_go_with_it(self, node: Any, options: dict[str, Any]) -> None:
        data = node.data.from_arrow([pa.table({"x": range(i, i + 30)}) for i in (0, 30, 60)])
        loader = ps.ray.Loader(data, 8, local_shuffle_buffer_size=20, local_shuffle_seed=0, **options)
        rows = values(loader)
        wanted = options.get("limit", 90)
        for begin in range(0, wanted, 20):
            assert sorted(rows[begin : begin + 20]) == list(range(begin, min(begin + 20, wanted)))
        assert rows != sorted(rows)
        assert loader.memory()["total"]["current_bytes"] == 0

    def test_a_window_that_has_no_room_is_refused(self, numbers: Numbers) -> None:
        loader = ps.ray.Loader(
            numbers(2, 64, 4096), 16, local_shuffle_buffer_size=1024, memory_budget="16MiB"
        )
        with pytest.raises(ValueError, match="too small for shuffle windows of 1024 rows"):
            values(loader)

    def test_the_window_is_counted(self, numbers: Numbers) -> None:
        loader = ps.ray.Loader(numbers(4, 64, 4096), 16, local_shuffle_buffer_size=128)
        assert sorted(values(loader)) == list(range(256))
        memory = loader.memory()
        assert memory["shuffle"]["peak_bytes"] >= 64 * 4096 * 4
        assert memory["shuffle"]["current_bytes"] == 0
