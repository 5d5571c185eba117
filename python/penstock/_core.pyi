"""The native part of penstock. Not public: use the names in `penstock`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


def end_of_python() -> None:
    """Say that the interpreter is about to end."""

def parse_bytes(text: str) -> int:
    """
    Bytes in a size such as '256MiB', '1.5 GB' or '4096'; ValueError where it is none.
    """

def format_bytes(size_bytes: int) -> str:
    """A size in bytes as people read it: 268435456 -> '256.0 MiB'."""

def version() -> str:
    """The version of the library, '1.2.3'."""

def available_cores() -> int:
    """Cores that this process may use (affinity, cgroup quota), >= 1."""

def available_memory_bytes() -> int:
    """Memory that this process may use (cgroup limit), in bytes."""

def cast_targets() -> tuple[str, ...]:
    """Names of the types that Cast can make."""

class Cast:
    def __init__(self, to: str) -> None: ...

class FillNull:
    def __init__(self, value: float, text: bytes | None, integer: int | None) -> None: ...

class HashBucket:
    def __init__(self, buckets: int) -> None: ...

class Lookup:
    def __init__(self, vocabulary: object, missing: int | None) -> None: ...

class Scale:
    def __init__(self, mean: float, std: float) -> None: ...

class Clip:
    def __init__(self, lower: float | None, upper: float | None) -> None: ...

class Spin:
    def __init__(self, mean_us: float, sigma: float, heavy_every: int, heavy_factor: float, is_sleep: bool) -> None: ...

class PadList:
    def __init__(self, length: int, value: FillNull, side: str, truncate: str | None) -> None: ...

class Pack:
    def __init__(self, length: int, value: FillNull) -> None: ...

class ListLength:
    def __init__(self) -> None: ...

class Custom:
    """An op of the user's own."""

def load_custom_op(path: str, symbol: str, params: Mapping[str, str]) -> Custom:
    """The op that a shared object exports."""

def python_op(run: Callable[[ArrowExport], object], name: str, dtype: str, shape: Sequence[int]) -> Custom:
    """
    An op written in Python; `run` gives a C-contiguous buffer of as many rows as it gets.
    """

class ImageStep:
    """A step on an image; what strings mean is checked in Python."""

    @staticmethod
    def decode(mode: str, use_orientation: bool, max_pixels: int) -> ImageStep: ...

    @staticmethod
    def resize(height: int, width: int) -> ImageStep: ...

    @staticmethod
    def center_crop(height: int, width: int) -> ImageStep: ...

    @staticmethod
    def random_crop(height: int, width: int) -> ImageStep: ...

    @staticmethod
    def random_resized_crop(height: int, width: int, scale: Sequence[float], ratio: Sequence[float]) -> ImageStep: ...

    @staticmethod
    def random_horizontal_flip(p: float) -> ImageStep: ...

    @staticmethod
    def to_float(dtype: str) -> ImageStep: ...

    @staticmethod
    def normalize(mean: Sequence[float], std: Sequence[float]) -> ImageStep: ...

    @staticmethod
    def layout(order: str) -> ImageStep: ...

class ImagePlan:
    """Steps, compiled."""

    def __init__(self, steps: Sequence[ImageStep]) -> None: ...

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> list[int]: ...

    def apply(self, encoded: bytes, out: object, seed: int, epoch: int, file: int, row: int) -> None:
        """One image, written to `out`."""

    def draw(self, height: int, width: int, seed: int, epoch: int, file: int, row: int) -> list[tuple[int, int, int, int, int, bool]]:
        """(step, top, left, height, width, is_flipped) of each random step."""

    def op(self) -> Custom: ...

class ArrowExport:
    """
    Arrow data on its way to a library that speaks the Arrow PyCapsule interface.
    """

    def __arrow_c_schema__(self) -> object: ...

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

class SlotView:
    """
    Bytes of a slot that a NumPy array looks at; the slot stays as long as this object does.
    """

def summarize(paths: Sequence[str], filesystem: object | None) -> dict[str, Any]:
    """What the files hold, from their footers (all are read), as a dict."""

class OrderChoices:
    """What says which rows a loader gives."""

    def __init__(self, *, rank: int, world_size: int, repeat: bool, balance: bool, epochs: int, seed: int, shuffle: bool, shuffle_window_bytes: int, shuffle_window_rows: int, skips_errors: bool, max_errors: int) -> None: ...

class EpochState:
    """Where the user of a loader is."""

    def __init__(self) -> None: ...

    @property
    def version(self) -> int: ...

    @version.setter
    def version(self, arg: int, /) -> None: ...

    @property
    def data(self) -> tuple[int, int, int, str, int, str]:
        """Files, bytes, rows, digest of names, footers, their digest."""

    @data.setter
    def data(self, arg: tuple[int, int, int, str, int, str], /) -> None: ...

    @property
    def columns(self) -> str: ...

    @columns.setter
    def columns(self, arg: str, /) -> None: ...

    @property
    def filter(self) -> str: ...

    @filter.setter
    def filter(self, arg: str, /) -> None: ...

    @property
    def part(self) -> str: ...

    @part.setter
    def part(self, arg: str, /) -> None: ...

    @property
    def batch_size(self) -> int: ...

    @batch_size.setter
    def batch_size(self, arg: int, /) -> None: ...

    @property
    def shuffle(self) -> bool: ...

    @shuffle.setter
    def shuffle(self, arg: bool, /) -> None: ...

    @property
    def seed(self) -> int: ...

    @seed.setter
    def seed(self, arg: int, /) -> None: ...

    @property
    def shuffle_window(self) -> int: ...

    @shuffle_window.setter
    def shuffle_window(self, arg: int, /) -> None: ...

    @property
    def repeat(self) -> bool: ...

    @repeat.setter
    def repeat(self, arg: bool, /) -> None: ...

    @property
    def limit(self) -> int | None: ...

    @limit.setter
    def limit(self, value: int | None) -> None: ...

    @property
    def balance(self) -> str: ...

    @balance.setter
    def balance(self, arg: str, /) -> None: ...

    @property
    def epoch(self) -> int: ...

    @epoch.setter
    def epoch(self, arg: int, /) -> None: ...

    @property
    def epochs_left(self) -> int: ...

    @epochs_left.setter
    def epochs_left(self, arg: int, /) -> None: ...

    @property
    def rank(self) -> int: ...

    @rank.setter
    def rank(self, arg: int, /) -> None: ...

    @property
    def history(self) -> list[tuple[int, int, list[list[tuple[int, int]]]]]:
        """
        (world_size, rows that each rank has had, or for each rank the rows of its share).
        """

    @history.setter
    def history(self, arg: Sequence[tuple[int, int, Sequence[Sequence[tuple[int, int]]]]], /) -> None: ...

    @property
    def given_rows(self) -> int: ...

    @given_rows.setter
    def given_rows(self, arg: int, /) -> None: ...

    @property
    def given_items(self) -> int: ...

    @given_items.setter
    def given_items(self, arg: int, /) -> None: ...

class Charge:
    """Bytes in an account of a loader, until this dies or is released."""

    def release(self) -> None:
        """Give the bytes back. Idempotent."""

class Loader:
    """The native loader behind penstock.Loader."""

    def __init__(self, *, paths: Sequence[str], table: object | None, stream: object | None, is_one_shot: bool, partitions: object | None, filesystem: object | None, batch_size: int, drop_last: bool, columns: Sequence[str] | None, filter: bytes | None, transforms: Sequence[tuple[str, str, Sequence[Cast | FillNull | HashBucket | Lookup | Scale | Clip | Spin | PadList | Pack | ListLength | Custom]]], mask_nulls: bool, fill_nulls: Mapping[str, FillNull], format: str, num_workers: int, prefetch_batches: int, memory_budget_bytes: int, in_order: bool, limit: int | None, sample: tuple[int, float, float] | None, collate_workers: int, collate_batches: int, pin_memory: str, pin_device: int, waits_for_copies: bool, order: OrderChoices, direct_decode: bool) -> None: ...

    def schema(self) -> tuple[list[tuple[Any, ...]], ArrowExport, ArrowExport]:
        """
        Fields as (name, dtype or None, shape, has_mask, vocabulary or None, arrays, lists, tensor_ndim); their Arrow types; their types in the files.
        """

    def num_batches(self) -> int: ...

    def state(self) -> EpochState: ...

    def resume(self, states: Sequence[EpochState]) -> None:
        """Make the next epoch go on from one state, or from those of all ranks."""

    def set_epoch(self, epoch: int) -> None: ...

    def explain(self) -> tuple[str, dict[str, Any]]:
        """The explanation as (text, dict)."""

    def stats(self) -> tuple[str, dict[str, Any]]:
        """The statistics as (text, dict)."""

    def memory(self) -> dict[str, Any]: ...

    def charge(self, account: str, bytes: int) -> Charge:
        """Charge what already exists to "python", "device" or "shuffle"."""

    def consumer_called(self) -> None:
        """Say that the consumer asked for its next batch."""

    def consumer_returned(self, rows: int) -> None:
        """Say what the consumer got; 0 rows at the end of the epoch."""

    def add_user_code(self, stage: str, busy_ns: int) -> None:
        """Add what "collate" or "finalize" took for one batch."""

    def close(self) -> None: ...

    def close_at_exit(self) -> None: ...

    @property
    def num_workers(self) -> int: ...

    def take_pin_refusal(self) -> str:
        """
        Why slots are not page-locked that were to be where possible, once; empty where none was refused.
        """

    @property
    def held_batches(self) -> int: ...

    @property
    def made_batches(self) -> int: ...

    @property
    def is_closed(self) -> bool: ...

class EpochIterator(Iterator[Any]):
    """One epoch of a loader."""

    def __iter__(self) -> EpochIterator: ...

    def __next__(self) -> Any: ...

    def __init__(self, loader: object) -> None: ...

    def take(self, is_last_try: bool) -> tuple[Any, int] | None:
        """
        The next batch and its number of rows, on any thread; None where only the consumer could free memory.
        """

    def stop(self) -> None:
        """End the epoch, also where another thread is in take(). Idempotent."""

    def close(self) -> None:
        """End the epoch now: workers are stopped and joined. Idempotent."""
