"""ps.ops.pack over random documents, files and options: the rows, positions and places that NumPy gives."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from penstock import ops
from support import assert_within_budget, current_bytes, quiet_loader, write_row_groups

# Mostly short ones, some empty, and some that go over many rows, batches and pieces.
LENGTHS = st.one_of(st.just(0), st.integers(0, 12), st.integers(0, 100), st.sampled_from([2000, 30000]))
FILES = st.lists(st.lists(st.lists(LENGTHS, max_size=7), max_size=3), min_size=1, max_size=3)
OPTIONS = st.fixed_dictionaries(
    {
        "batch_size": st.sampled_from([1, 2, 7, 64]),
        "drop_last": st.booleans(),
        "limit": st.none() | st.integers(0, 400),
        "num_workers": st.integers(0, 4),
        "prefetch_batches": st.sampled_from(["auto", 0, 3]),
        "in_order": st.booleans(),
    }
)


def write_files(folder: Path, files: list[list[list[int]]]) -> list[int]:
    """Documents of these lengths by file and row group; the items count from 0. Returns all lengths."""
    lengths = [length for file in files for group in file for length in group]
    first_row, first_item = 0, 0
    for number, file in enumerate(files):
        sizes = [len(group) for group in file]
        of_file = lengths[first_row : first_row + sum(sizes)]
        offsets = np.cumsum([0, *of_file])
        items = np.arange(first_item, first_item + offsets[-1])
        tokens = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(items, pa.int32()))
        labels = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(-items, pa.int64()))
        write_row_groups(folder / f"{number}.parquet", pa.table({"tokens": tokens, "labels": labels}), sizes)
        first_row += len(of_file)
        first_item += int(offsets[-1])
    return lengths


def assume_few_batches(files: list[list[list[int]]], batch_items: int) -> None:
    """The watchdog runs."""
    assume(sum(length for file in files for group in file for length in group) < 300 * batch_items)


def reference(lengths: list[int], length: int) -> dict[str, np.ndarray]:
    """All rows, the last one padded."""
    total = sum(lengths)
    missing = -total % length
    items = np.arange(total)
    starts = np.repeat(np.cumsum([0, *lengths])[:-1], lengths)
    positions = np.minimum(items - starts, items % length)
    columns = {
        "tokens": np.concatenate([items, np.full(missing, 7)]),
        "labels": np.concatenate([-items, np.full(missing, -100)]),
        "tokens_positions": np.concatenate([positions, np.arange(missing)]),
    }
    return {name: column.reshape(-1, length) for name, column in columns.items()}


def rows_wanted(rows: int, items: int, length: int, options: dict[str, Any]) -> int:
    if options["limit"] is not None:
        rows = min(rows, options["limit"])
        items = min(items, options["limit"] * length)
    if options["drop_last"]:
        return items // (options["batch_size"] * length) * options["batch_size"]
    return rows


# The same examples in each run; what fails is printed. It is not made smaller: that outlasts the watchdog.
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(FILES, st.sampled_from([1, 5, 64, 1000]), OPTIONS)
def test_rows_are_the_items_in_order(files: list[list[list[int]]], length: int, options: Any) -> None:
    assume_few_batches(files, length * options["batch_size"])
    with tempfile.TemporaryDirectory() as folder:
        lengths = write_files(Path(folder), files)
        transforms = {"tokens": ops.pack(length, value=7), "labels": ops.pack(length, value=-100)}
        loader = quiet_loader(folder, transforms=transforms, memory_budget="24MiB", **options)
        batches = [{name: array.copy() for name, array in batch.items()} for batch in loader]
        assert_within_budget(loader)
        loader.close()
        assert current_bytes(loader) == {}
    wanted = reference(lengths, length)
    rows = rows_wanted(len(wanted["tokens"]), sum(lengths), length, options)
    sizes = [len(batch["tokens"]) for batch in batches]
    assert all(size == options["batch_size"] for size in sizes[:-1])
    assert sum(sizes) == rows
    if not options["in_order"]:
        batches.sort(key=lambda batch: batch["tokens"][0, 0])
    for name, column in wanted.items():
        got = np.concatenate([column[:0], *(batch[name] for batch in batches)])
        np.testing.assert_array_equal(got, column[:rows], err_msg=name)
    for batch in batches:
        positions = batch["tokens_positions"]
        offsets = [*np.flatnonzero(positions.ravel() == 0), positions.size]
        assert np.array_equal(batch["tokens_offsets"], offsets)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(FILES, st.sampled_from([2, 5, 64]), st.integers(0, 8), st.integers(0, 4), st.integers(1, 3))
def test_a_state_goes_on_anywhere(
    files: list[list[list[int]]], length: int, steps: int, num_workers: int, epochs: int
) -> None:
    assume_few_batches(files, 3 * length)
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), files)

        def make() -> Any:
            return quiet_loader(
                folder,
                columns=["tokens"],
                transforms={"tokens": ops.pack(length)},
                batch_size=3,
                num_workers=num_workers,
                epochs=epochs,
            )

        whole = make()
        batches = iter(whole)
        for _ in range(steps):
            next(batches, None)
        state = whole.state_dict()
        again = make()
        again.load_state_dict(state)
        is_over = state["epoch"] >= epochs
        rest = [] if is_over else [batch["tokens"].tolist() for batch in again]
        assert rest == [batch["tokens"].tolist() for batch in batches]
