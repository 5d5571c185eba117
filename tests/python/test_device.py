"""`device=`: with stand-ins for CUDA's streams and events, and on a real device where there is one."""

from __future__ import annotations

import dataclasses
import pickle
from collections import UserDict, namedtuple
from typing import Any

import penstock as ps
import pytest
from support import current_bytes, quiet_loader, rows_of

torch = pytest.importorskip("torch")

from penstock._device import DeviceCopier, map_tensors  # noqa: E402
from penstock._epoch import Epoch, UserCode  # noqa: E402

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


# --- Without CUDA -----------------------------------------------------------------------------------------


def test_the_cpu_is_no_device_to_copy_to(numbers: str) -> None:
    """device="cpu": batches are views of the slot, as without it; repr and pickle keep it."""
    loader = ps.Loader(numbers, 100, device="cpu", num_workers=1)
    batch = next(iter(loader))
    assert "user" in current_bytes(loader)
    assert "device" not in current_bytes(loader)
    assert batch["x"].device.type == "cpu"
    assert "device='cpu'" in repr(pickle.loads(pickle.dumps(loader)))


def test_wrong_devices(numbers: str) -> None:
    """Another kind of device, and a format without tensors, are refused when the loader is made."""
    for wrong in ("meta", "cudaa", 1.5):
        with pytest.raises(ValueError, match="device is 'cpu', 'cuda' or 'cuda:N'"):
            ps.Loader(numbers, device=wrong)
    with pytest.raises(ValueError, match="needs format='torch'"):
        ps.Loader(numbers, device="cuda", format="numpy")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_no_cuda(numbers: str) -> None:
    """CUDA is looked for at run time; where there is none, the error says what to do."""
    with pytest.raises(RuntimeError, match=r"torch finds no CUDA here.*leave device out"):
        ps.Loader(numbers, device="cuda")


@dataclasses.dataclass
class Pair:
    """A dataclass with a tensor in it."""

    tensor: Any
    name: str


Point = namedtuple("Point", "x y")


def test_tensors_are_found_wherever_they_are() -> None:
    """map_tensors(): dicts, lists, tuples, named tuples, other mappings, dataclasses; the rest stays."""
    one = torch.ones(1)
    value = {
        "a": [one, 3],
        "b": Point(one, "y"),
        "c": Pair((one,), "n"),
        "d": UserDict({"e": one}),
        "f": None,
    }
    moved = map_tensors(value, lambda tensor: tensor + 1)
    assert moved["a"][0].item() == moved["b"].x.item() == moved["c"].tensor[0].item() == 2
    assert moved["d"]["e"].item() == 2
    assert type(moved["b"]) is Point
    assert type(moved["d"]) is UserDict
    assert (moved["a"][1], moved["b"].y, moved["c"].name, moved["f"]) == (3, "y", "n", None)


# --- With stand-ins ---------------------------------------------------------------------------------------


class FakeCuda:
    """Writes down what is asked of streams and events. Copies go to torch's device "meta"."""

    def __init__(self, loader: ps.Loader) -> None:
        self.loader = loader
        self.log: list[str] = []
        self.most_ahead = 0
        self.copied = self.delivered = 0
        self.fail_at = -1


class FakeStream:
    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_event(self, event: FakeEvent) -> None:
        assert event.is_recorded
        self.cuda.log.append(f"{self.name} waits")
        self.cuda.delivered += 1

    def __enter__(self) -> None:
        self.cuda.log.append(f"on {self.name}")

    def __exit__(self, *error: object) -> None:
        pass


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.is_recorded = cuda, False

    def record(self, stream: FakeStream) -> None:
        self.is_recorded = True
        self.cuda.log.append(f"recorded on {stream.name}")

    def synchronize(self) -> None:
        # The copy is in flight until here: the slot that it reads must be held.
        assert current_bytes(self.cuda.loader)["user"] > 0
        self.cuda.log.append("copied")
        self.cuda.copied += 1
        # The one in the consumer's hand was delivered; beyond it one may be ahead.
        self.cuda.most_ahead = max(self.cuda.most_ahead, self.cuda.copied - self.cuda.delivered)
        if self.cuda.copied == self.cuda.fail_at:
            raise RuntimeError("CUDA error: out of memory")


@pytest.fixture(params=[(0, None), (2, None), (2, dict)])
def loader(numbers: str, request: pytest.FixtureRequest) -> ps.Loader:
    num_workers, collate_fn = request.param
    return quiet_loader(
        numbers, batch_size=100, format="torch", num_workers=num_workers, collate_fn=collate_fn
    )


@pytest.fixture
def cuda(loader: ps.Loader, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda(loader)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream(fake, "side"))
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: FakeEvent(fake))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "device", lambda device: FakeStream(fake, "device"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeStream(fake, "consumer"))
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda tensor, stream: fake.log.append(f"kept for {stream.name}")
    )
    return fake


def epoch_on_meta(loader: ps.Loader) -> Epoch:
    """An epoch whose batches are copied to the device "meta", which every torch has."""
    code = dataclasses.replace(loader._user_code, device=torch.device("meta"))
    return Epoch(loader._core, code)


def test_streams_and_events(loader: ps.Loader, cuda: FakeCuda) -> None:
    """Copies go on the side stream, the consumer's stream waits on the event, the allocator learns of it."""
    batches = epoch_on_meta(loader)
    batch = next(batches)
    assert batch["x"].device.type == batch["y"].device.type == "meta"
    first = ["on device", "on side", "recorded on side", "copied"]
    assert cuda.log[:4] == first
    given = cuda.log.index("consumer waits")
    assert cuda.log[given:][:3] == ["consumer waits", "kept for consumer", "kept for consumer"]
    assert len(list(batches)) == 9
    assert cuda.copied == cuda.delivered == 10


def test_at_most_one_batch_ahead(loader: ps.Loader, cuda: FakeCuda) -> None:
    """On the device there is the consumer's batch and at most one more; bytes are charged beside the sum."""
    batch_bytes = 100 * (8 + 4)
    for number, batch in enumerate(epoch_on_meta(loader)):  # noqa: B007 - it is held.
        assert cuda.copied <= number + 2
        charged = loader.memory()["device"]["current_bytes"]
        assert charged >= batch_bytes
        assert charged <= 3 * batch_bytes
    assert cuda.most_ahead <= 2  # Until it is delivered, the consumer's next is ahead too.
    del batch
    memory = loader.memory()
    assert memory["device"]["current_bytes"] == 0
    assert memory["device"]["peak_bytes"] <= 3 * batch_bytes
    assert set(current_bytes(loader)) == {"metadata"}


def test_an_error_of_the_device(loader: ps.Loader, cuda: FakeCuda) -> None:
    """What a copy raises is raised in its place; nothing is left behind."""
    cuda.fail_at = 4
    batches = epoch_on_meta(loader)
    assert len([next(batches) for _ in range(3)]) == 3
    with pytest.raises(RuntimeError, match="CUDA error: out of memory"):
        next(batches)
    assert next(batches, None) is None
    assert set(current_bytes(loader)) == {"metadata"}


def test_leaving_early(loader: ps.Loader, cuda: FakeCuda) -> None:
    """Invariant 6: no thread and no byte is left, on either side."""
    for _ in range(10):
        batches = epoch_on_meta(loader)
        next(batches)
        del batches
    assert set(current_bytes(loader)) == {"metadata"}


def test_finalize_gets_what_is_on_the_device(numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """finalize_fn runs last."""
    calls: list[str] = []
    loader = quiet_loader(numbers, batch_size=100, format="torch", num_workers=1)
    monkeypatch.setattr(DeviceCopier, "__init__", lambda self, core, device: None)
    monkeypatch.setattr(DeviceCopier, "copy", lambda self, batch: (calls.append("copy") or batch, None))
    monkeypatch.setattr(DeviceCopier, "deliver", lambda self, batch, event: calls.append("deliver") or batch)
    code = UserCode(finalize_fn=lambda batch: calls.append("finalize") or batch, device=torch.device("meta"))
    assert rows_of(Epoch(loader._core, code)) == list(range(1000))
    assert [call for call in calls if call != "copy"] == ["deliver", "finalize"] * 10


# --- With CUDA --------------------------------------------------------------------------------------------


@needs_cuda
def test_on_a_real_device(numbers: str) -> None:
    """Values are right on the device, also when the consumer's kernels lag behind."""
    with ps.Loader(numbers, 100, device="cuda") as loader:
        for _ in range(3):
            sums = []
            for batch in loader:
                assert batch["x"].is_cuda
                torch.cuda._sleep(1_000_000)
                sums.append(batch["x"].sum())
            assert [int(total) for total in sums] == [sum(range(i, i + 100)) for i in range(0, 1000, 100)]
        del batch
        assert loader.memory()["device"]["current_bytes"] == 0
        assert loader.memory()["device"]["peak_bytes"] > 0
