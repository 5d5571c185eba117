"""ps.ops.pack over random documents, files and options: the rows, positions and places that NumPy gives."""

from __future__ import annotations

import json
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
    """Documents of these lengths by file and row group; numbers and items from 0. Returns all lengths."""
    lengths = [length for file in files for group in file for length in group]
    first_row, first_item = 0, 0
    for number, file in enumerate(files):
        sizes = [len(group) for group in file]
        of_file = lengths[first_row : first_row + sum(sizes)]
        offsets = np.cumsum([0, *of_file])
        items = np.arange(first_item, first_item + offsets[-1])
        tokens = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(items, pa.int32()))
        numbers = pa.array(range(first_row, first_row + len(of_file)), pa.int64())
        labels = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(-items, pa.int64()))
        write_row_groups(
            folder / f"{number}.parquet",
            pa.table({"tokens": tokens, "labels": labels, "number": numbers}),
            sizes,
        )
        first_row += len(of_file)
        first_item += int(offsets[-1])
    return lengths


def assume_few_batches(files: list[list[list[int]]], batch_items: int) -> None:
    """The watchdog runs."""
    assume(sum(length for file in files for group in file for length in group) < 300 * batch_items)


def reference(lengths: list[int], length: int, documents: list[int] | None = None) -> dict[str, np.ndarray]:
    """All rows of some documents (all of them, in order), the last one padded."""
    begins = np.cumsum([0, *lengths])
    documents = list(range(len(lengths))) if documents is None else documents
    items = np.concatenate([begins[:0], *(np.arange(begins[d], begins[d + 1]) for d in documents)])
    of_documents = np.concatenate([begins[:0], *(np.arange(lengths[d]) for d in documents)])
    missing = -len(items) % length
    positions = np.minimum(of_documents, np.arange(len(items)) % length)
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
        loader = quiet_loader(
            folder,
            columns=["tokens", "labels"],
            transforms=transforms,
            memory_budget="24MiB",
            **options,
        )
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


SHUFFLES = st.fixed_dictionaries(
    {
        "batch_size": st.sampled_from([1, 3, 8]),
        "_shuffle_window_rows": st.sampled_from([1, 2, 7, 33, 200]),
        "epochs": st.integers(1, 3),
        "limit": st.none() | st.integers(0, 200),
        "seed": st.integers(0, 5),
        "uneven": st.sampled_from(["drop", "repeat"]),
    }
)
RANKS = st.sampled_from([(0, 1), (0, 1), (0, 2), (1, 3), (2, 3)])


def rows_of_all(columns: dict[str, np.ndarray]) -> list[list[Any]]:
    """A row as lists: tokens, labels, positions."""
    names = ("tokens", "labels", "tokens_positions")
    return [list(row) for row in zip(*(columns[name].tolist() for name in names), strict=True)]


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(FILES, st.sampled_from([2, 5, 64]), SHUFFLES, RANKS, st.integers(0, 12), st.integers(0, 4))
def test_shuffled_rows_are_mixed_within_windows_and_a_state_goes_on_anywhere(
    files: list[list[list[int]]],
    length: int,
    options: dict[str, Any],
    ranks: tuple[int, int],
    steps: int,
    num_workers: int,
) -> None:
    """The documents that are packed come as they do with a window of one row, in which nothing is mixed."""
    assume_few_batches(files, length * options["batch_size"])
    assume(sum(len(group) for file in files for group in file) >= ranks[1])
    batch_size, limit = options["batch_size"], options["limit"]
    if options["epochs"] > 1 or ranks[1] > 1:
        options["limit"] = limit = None
    options = {"shuffle": True, "rank": ranks[0], "world_size": ranks[1], **options}
    with tempfile.TemporaryDirectory() as folder:
        lengths = write_files(Path(folder), files)

        def make(workers: int = num_workers, drop_last: bool = False) -> Any:
            return quiet_loader(
                folder,
                columns=["tokens", "labels"],
                transforms={"tokens": ops.pack(length, value=7), "labels": ops.pack(length, value=-100)},
                memory_budget="24MiB",
                num_workers=workers,
                drop_last=drop_last,
                **options,
            )

        numbers = quiet_loader(
            folder, columns=["number"], **{**options, "_shuffle_window_rows": 1, "limit": None}
        )
        documents = [number for batch in numbers for number in batch["number"].tolist()]
        batches = []
        loader = make()
        state = loader.state_dict()
        for batch in loader:
            positions = batch["tokens_positions"]
            offsets = [*np.flatnonzero(positions.ravel() == 0), positions.size]
            assert np.array_equal(batch["tokens_offsets"], offsets)
            batches.append(rows_of_all(batch))
            if len(batches) == steps:
                state = loader.state_dict()
            del batch, positions
        window = loader.explain().to_dict()["shuffle_window_rows"]
        assert_within_budget(loader)
        loader.close()
        assert current_bytes(loader) == {}
        again = make((num_workers + 3) % 5)
        again.load_state_dict(json.loads(json.dumps(state)))
        rest = batches[steps:] if steps <= len(batches) else batches
        assert [rows_of_all(batch) for batch in again] == rest
        full = [row for batch in make(drop_last=True) for row in rows_of_all(batch)]
    got = [row for batch in batches for row in batch]
    assert all(len(batch) == batch_size for batch in batches[:-1])
    wanted = rows_of_all(reference(lengths, length, documents))[:limit]
    assert len(got) == len(wanted)
    for begin in range(0, len(wanted), window):
        assert sorted(got[begin : begin + window]) == sorted(wanted[begin : begin + window])
    items = sum(lengths[document] for document in documents)
    is_padded = items < len(wanted) * length
    assert not is_padded or got[-1] == wanted[-1]
    assert full == got[: (len(wanted) - is_padded) // batch_size * batch_size]
