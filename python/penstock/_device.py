"""Batches on a GPU: copied on a stream of their own, one ahead of the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from penstock import _core
from penstock._footprint import charge_at_death

__all__ = ["DeviceCopier", "check_device"]


def check_device(device: object, format: str) -> Any:
    """Return the CUDA device as torch has it, or None where nothing is to be copied.

    Raises
    ------
    ValueError
        If the device is of another kind, or the batches are no tensors.
    RuntimeError
        If there is no CUDA, or no such device.
    """
    if device is None:
        return None
    if format != "torch":
        raise ValueError(f"device={device!r} needs format='torch', not {format!r}")
    import torch

    try:
        chosen = torch.device(device)  # type: ignore[call-overload]
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device is 'cpu', 'cuda' or 'cuda:N', got {device!r}") from error
    if chosen.type == "cpu":
        return None
    if chosen.type != "cuda":
        raise ValueError(f"device is 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"device={device!r}, but torch finds no CUDA here: install a build of torch with CUDA, and a "
            "driver, or leave device out"
        )
    if chosen.index is not None and chosen.index >= torch.cuda.device_count():
        raise RuntimeError(f"device={device!r}, but there are only {torch.cuda.device_count()} CUDA devices")
    return chosen if chosen.index is not None else torch.device("cuda", torch.cuda.current_device())


class DeviceCopier:
    """Copies batches to a device on a side stream.

    `copy` runs on a thread of its own and returns when the copy has ended, so the batch that it comes from
    and its slot outlive the copy. `deliver` runs on the consumer's thread: the consumer's stream waits for
    the copy, and the memory is not used again before what that stream had queued is done.

    Parameters
    ----------
    core : _core.Loader
        Whose account "device" is charged.
    device : torch.device
        A CUDA device with its index.
    """

    def __init__(self, core: _core.Loader, device: Any) -> None:
        import torch

        self._torch = torch
        self._core = core
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, batch: Any) -> tuple[Any, Any]:
        """Return the batch on the device, and the event that ends its copy."""
        torch = self._torch
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            moved = map_tensors(batch, self._copy_tensor)
            event = torch.cuda.Event(blocking=True)  # To wait for it must not take a core from the workers.
            event.record(self._stream)
        event.synchronize()  # Without the GIL. Until here `batch` holds the memory that is read.
        return moved, event

    def _copy_tensor(self, tensor: Any) -> Any:
        moved = tensor.to(self._device, non_blocking=True)
        if moved is not tensor:
            storage = moved.untyped_storage()
            charge_at_death(self._core, "device", storage, storage.nbytes())
        return moved

    def deliver(self, moved: Any, event: Any) -> Any:
        """Return the batch for use on the consumer's current stream."""
        stream = self._torch.cuda.current_stream(self._device)
        stream.wait_event(event)

        def use(tensor: Any) -> Any:
            # The allocator must not give this memory to the next copy while the consumer's kernels read it.
            if tensor.device == self._device:
                tensor.record_stream(stream)
            return tensor

        return map_tensors(moved, use)


def map_tensors(value: Any, fn: Callable[[Any], Any]) -> Any:
    """Return `value` with each tensor in it replaced: in dicts, lists, tuples, named tuples and dataclasses.

    Everything else stays as it is.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return fn(value)
    if isinstance(value, dict):
        return {key: map_tensors(item, fn) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, fn) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(item, fn) for item in value)
    if isinstance(value, Mapping):
        try:
            items = {key: map_tensors(item, fn) for key, item in value.items()}
            return type(value)(items)  # type: ignore[call-arg]
        except TypeError:
            return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: map_tensors(getattr(value, f.name), fn) for f in dataclasses.fields(value) if f.init
        }
        return dataclasses.replace(value, **fields)
    return value
