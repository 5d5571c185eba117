"""What goes wrong on a cluster is said, with the remedy, and nothing is left behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import penstock as ps
import pyarrow as pa
import pytest

from on_ray.ray_support import Numbers, values


def notes(error: BaseException) -> str:
    return " ".join(getattr(error, "__notes__", []))


def collect(loader: ps.ray.Loader, column: str, seen: list[int]) -> None:
    for batch in loader:
        seen += batch[column].tolist()


needs_notes = pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.mark.parametrize("use", [lambda: ps.ray.Loader([]), lambda: ps.ray.enabled().__enter__()])
def test_without_ray(no_ray: None, use: Callable[[], Any]) -> None:
    with pytest.raises(ImportError, match=r"penstock.ray needs Ray: pip install 'penstock\[ray\]'"):
        use()


@pytest.mark.parametrize("version", ["2.56.1", "2.61.0", "3.0.0.dev0", "unknown"])
def test_an_unsupported_version(node: Any, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(node, "__version__", version)
    with pytest.raises(ImportError, match=f"Ray 2.57 to 2.60, and Ray {version} is installed: pip install"):
        ps.ray.Loader([])


def test_a_build_that_lacks_a_hook(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(node.data.DataIterator, "_on_iteration_end")
    with pytest.raises(ImportError, match="lacks _on_iteration_end"):
        ps.ray.Loader([])


def test_ray_is_not_initialised(numbers: Numbers, node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = ps.ray.Loader(numbers(1, 1))
    monkeypatch.setattr(node, "is_initialized", lambda: False)
    with pytest.raises(RuntimeError, match=r"not initialised in this process .* call ray.init\(\)"):
        next(iter(loader))


def test_other_sources_are_refused(node: Any, numbers: Numbers) -> None:
    with pytest.raises(TypeError, match=r"got Table; for files, tables .* use penstock.Loader"):
        ps.ray.Loader(pa.table({"x": [1]}))
    with pytest.raises(TypeError, match=r"list of shards: .* shards\[rank\]"):
        ps.ray.Loader(numbers(2, 2).streaming_split(2))


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"rank": 0, "world_size": 2}, "rank has no meaning .*streaming_split"),
        ({"uneven": "drop"}, "equal=True"),
        ({"epochs": 2}, "iterate again"),
        ({"shuffle": True}, "local_shuffle_buffer_size"),
        ({"filesystem": None}, "Ray reads"),
        ({"format": "numpy", "batch_format": "numpy"}, "not both"),
        ({"batch_format": "cudf"}, "batch_format is 'numpy'"),
        ({"dtypes": "float32", "collate_fn": len}, "dtypes cannot be used with collate_fn"),
        ({"local_shuffle_buffer_size": 0}, "must be at least 1"),
        ({"batch_size": None, "local_shuffle_buffer_size": 4}, "needs a batch_size"),
        ({"batch_size": None}, "pass batch_format"),
        ({"batch_size": None, "batch_format": "numpy", "columns": ["x"]}, "columns needs a batch_size"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"memory_budget": "many"}, "many"),
    ],
)
def test_arguments_are_checked_at_once(numbers: Numbers, arguments: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        ps.ray.Loader(numbers(1, 1), **arguments)


def test_what_a_stream_has_not(numbers: Numbers) -> None:
    loader = ps.ray.Loader(numbers(1, 4))
    with pytest.raises(TypeError, match="no argument 'batchsize'"):
        ps.ray.Loader(numbers(1, 4), batchsize=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no length"):
        len(loader)
    for call in (loader.state_dict, lambda: loader.load_state_dict({})):
        with pytest.raises(ValueError, match="save the model and the number of the epoch"):
            call()
    with pytest.raises(RuntimeError, match="no iteration has begun"):
        loader.stats()


def test_pickling_keeps_the_arguments(numbers: Numbers, node: Any) -> None:
    loader = ps.ray.Loader(numbers(2, 8).iterator(), batch_size=4)
    first = values(loader)
    assert values(pickle.loads(node.cloudpickle.dumps(loader))) == first


def test_an_error_of_the_users_comes_in_its_place(node: Any) -> None:
    def fail(batch: dict[str, Any]) -> dict[str, Any]:
        if 5 in batch["id"]:
            raise KeyError("five")
        return batch

    data = node.data.range(8, override_num_blocks=8).map_batches(fail, batch_size=None)
    seen: list[int] = []
    with pytest.raises(Exception, match="five"):
        collect(ps.ray.Loader(data, batch_size=1), "id", seen)
    assert seen == list(range(len(seen)))
    assert len(seen) <= 5


def test_a_system_exit_in_the_stream_ends_it_with_an_error(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    iterator = numbers(4, 16).iterator()
    bundles, *rest = iterator._to_ref_bundle_iterator()

    def exiting() -> Any:
        yield next(bundles)
        raise SystemExit(3)

    monkeypatch.setattr(iterator, "_to_ref_bundle_iterator", lambda: (exiting(), *rest))
    with pytest.raises(SystemExit):
        list(ps.ray.Loader(iterator, batch_size=4))


def test_errors_of_collate_and_finalize(numbers: Numbers) -> None:
    def fail(batch: Any) -> Any:
        raise ZeroDivisionError

    for name in ("collate_fn", "finalize_fn"):
        with pytest.raises(ZeroDivisionError):
            list(ps.ray.Loader(numbers(4, 16), batch_size=8, **{name: fail}))


def test_a_column_that_cannot_be_a_tensor_names_it(node: Any) -> None:
    data = node.data.from_arrow(pa.table({"s": pa.nulls(2)}))
    with pytest.raises((TypeError, ValueError), match="column 's'"):
        list(ps.ray.Loader(data, format="numpy"))


def test_a_block_of_no_known_type_names_the_remedy(node: Any) -> None:
    from penstock.ray._forms import sliced

    with pytest.raises(TypeError, match=r"type list cannot become batches: return a pyarrow.Table"):
        sliced([1, 2], 0, None)


@needs_notes
def test_a_lost_object_says_what_to_do(node: Any, numbers: Numbers, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes before the lost block is given."""
    from penstock.ray._blocks import BlockStream

    plain, seen_refs = BlockStream._get, []

    def get(self: Any, refs: list[Any]) -> Any:
        if len(refs) > 1 or seen_refs:
            raise node.exceptions.ObjectLostError(refs[0].hex(), b"", "")
        seen_refs.append(refs[0])
        return plain(self, refs)

    monkeypatch.setattr(BlockStream, "_get", get)
    seen: list[int] = []
    with pytest.raises(node.exceptions.ObjectLostError) as caught:
        collect(ps.ray.Loader(numbers(2, 50), batch_size=25), "x", seen)
    assert seen in (list(range(50)), [])  # The second block may have been asked for first.
    assert "a block was lost" in notes(caught.value)


FULL_STORE = """
import threading
import numpy as np, penstock as ps, ray
ray.init(
    num_cpus=1, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False,
    _system_config={"local_fs_capacity_threshold": 0.001},  # As if the disk were full.
)
ray.data.DataContext.get_current().enable_progress_bars = False
blocks = ray.data.range(2, override_num_blocks=2)
data = blocks.map_batches(lambda _: {"x": np.zeros((1, 120 << 20), np.uint8)})
loader = ps.ray.Loader(data, batch_size=1, format="numpy")
try:
    list(loader)
except ray.exceptions.OutOfDiskError as error:
    print(*error.__notes__)
print([each.name for each in threading.enumerate() if each.name.startswith("penstock")])
"""


@needs_notes
@pytest.mark.slow
def test_a_full_store_and_a_full_disk_say_what_to_do() -> None:
    """A block that fits neither: a Ray of its own, whose settings are those of the process."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'penstock[ray]'")
    done = subprocess.run([sys.executable, "-c", FULL_STORE], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    told, threads = done.stdout.splitlines()
    assert "object store is full, and so is the disk" in told
    assert "object_spilling_directory" in told
    assert threads == "[]"


@needs_notes
@pytest.mark.filterwarnings("ignore:.ray_remote_args_fn. is deprecated")
def test_a_worker_that_is_killed_says_so(node: Any) -> None:
    def die(batch: dict[str, Any]) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return batch

    data = node.data.range(4, override_num_blocks=2).map_batches(
        die, batch_size=None, ray_remote_args_fn=lambda: {"max_retries": 0}
    )
    with pytest.raises(Exception, match="died") as caught:
        list(ps.ray.Loader(data, batch_size=2))
    assert "a worker process died" in notes(caught.value)


def test_closing_from_another_thread_ends_a_wait(node: Any) -> None:
    """A stream that never gives its first block can be left."""
    from penstock.ray._blocks import BlockStream
    from penstock.ray._meter import Meter

    stop, asked = threading.Event(), threading.Event()

    def never() -> Any:
        asked.set()
        stop.wait()
        yield from ()

    stream = BlockStream(never(), stop, 1, Meter(None, {}, 0.0), lambda _: None)
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(next(stream, "over")))
    waiting.start()
    asked.wait()
    stream.stop()
    stream.join()
    waiting.join()
    assert got == ["over"]
