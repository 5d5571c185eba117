"""Ranks: who gets which rows, how the rank is found out, what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import PROPERTY, quiet_loader, rows_of, run_python, write_row_groups

ROWS = 1000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("ranks")
    for number, begin in enumerate(range(0, ROWS, 250)):
        table = pa.table({"x": range(begin, begin + 250), "y": [1.5] * 250})
        write_row_groups(folder / f"part-{number}.parquet", table, [70, 0, 100, 80])
    return str(folder)


@given(
    world_size=st.integers(1, 12),
    batch_size=st.integers(1, 90),
    uneven=st.sampled_from(["drop", "repeat"]),
    limit=st.none() | st.integers(12, 1200),
)
@PROPERTY
def test_ranks_partition_the_rows_in_batches_of_equal_number_and_size(
    path: str, world_size: int, batch_size: int, uneven: str, limit: int | None
) -> None:
    rows, sizes = [], set()
    for rank in range(world_size):
        with quiet_loader(
            path,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            uneven=uneven,
            limit=limit,
            num_workers=1,
        ) as loader:
            batches = list(loader)
            assert len(loader) == len(batches)
        rows += rows_of(batches)
        sizes.add(tuple(len(batch["x"]) for batch in batches))
    assert len(sizes) == 1
    total = ROWS if limit is None else min(limit, ROWS)
    if uneven == "drop":
        assert rows == list(range(total // world_size * world_size))
    else:
        again = -total % world_size
        assert rows == [*range(total), *range(again)]


def test_what_is_dropped_and_repeated_is_counted(path: str) -> None:
    for uneven, key, rows in (("drop", "rows_dropped", ROWS % 7), ("repeat", "rows_repeated", -ROWS % 7)):
        loader = quiet_loader(path, rank=2, world_size=7, uneven=uneven)
        next(iter(loader))
        assert loader.stats().to_dict()[key] == rows
        list(loader)
        assert loader.stats().to_dict()[key] == rows
        assert f"{rows} " in next(line for line in str(loader.stats()).splitlines() if "ranks" in line)
    assert "ranks" not in str(quiet_loader(path).stats())


def bytes_read(loader: ps.Loader) -> int:
    return int(loader.stats().to_dict()["stages"]["read"]["bytes"])


@pytest.mark.parametrize("world_size", [4, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_rank_reads_its_own_row_groups_alone(tmp_path: Path, world_size: int, shuffle: bool) -> None:
    """But for the footers, and what it shares with its neighbours: row groups, and windows."""
    groups = 40
    values = [int.from_bytes(os.urandom(7), "little") for _ in range(groups * 2000)]
    table = pa.table({"x": pa.array(values, pa.int64())})
    path = write_row_groups(
        tmp_path / "x.parquet", table, [2000] * groups, use_dictionary=False, compression="none"
    )
    share = len(values) // world_size
    order: dict[str, Any] = {"shuffle": shuffle, "shuffle_window": "128KiB"}
    with quiet_loader(path, batch_size=500, **order) as loader:
        whole = rows_of(loader)
        window = loader.explain().to_dict()["shuffle_window_rows"] if shuffle else 0
    assert window < share / 4
    for rank in range(world_size):
        loader = quiet_loader(path, batch_size=500, rank=rank, world_size=world_size, **order)
        len(loader)
        before = bytes_read(loader)
        assert rows_of(loader) == whole[rank * share : (rank + 1) * share]
        footer = before // 2
        # At each end a part of a window and of a row group that are others'.
        needed = share + 2 * window + (2 * 2000 if share % 2000 or shuffle else 0)
        assert bytes_read(loader) - before <= 8 * (needed + 1000) + 2 * footer
        loader.close()


def test_files_of_other_ranks_are_opened_once_for_their_footers(path: str) -> None:
    with quiet_loader(path, rank=0, world_size=4, batch_size=50) as loader:
        len(loader)
        reads = loader.stats().to_dict()["stages"]["read"]["items"]
        assert rows_of(loader) == list(range(250))
        # The footer of the one file again, and its three row groups' columns.
        assert loader.stats().to_dict()["stages"]["read"]["items"] - reads <= 1 + 3 * 2 * 3


FILTER = pc.bit_wise_and(pc.field("x"), 7) > 4


def test_a_filter_without_balance_warns_and_loses_no_row_but_those_before_it(path: str) -> None:
    rows = []
    for rank in range(3):
        with pytest.warns(RuntimeWarning, match="different numbers of batches"):
            loader = ps.Loader(path, format="numpy", filter=FILTER, rank=rank, world_size=3, num_workers=1)
        rows += rows_of(loader)
    assert rows == [x for x in range(999) if x & 7 > 4]


def test_balance_gives_each_rank_as_many_rows_that_pass(path: str) -> None:
    rows, sizes = [], set()
    for rank in range(4):
        loader = quiet_loader(path, batch_size=30, filter=FILTER, rank=rank, world_size=4, balance="rows")
        batches = list(loader)
        assert len(loader) == len(batches)
        sizes.add(tuple(len(batch["x"]) for batch in batches))
        rows += rows_of(batches)
    passing = [x for x in range(ROWS) if x & 7 > 4]
    assert len(sizes) == 1
    assert rows == passing[: len(passing) // 4 * 4]


def test_balance_counts_by_the_filters_columns_alone(tmp_path: Path) -> None:
    table = pa.table({"x": range(20_000), "wide": [os.urandom(100) for _ in range(20_000)]})
    path = write_row_groups(tmp_path / "x.parquet", table, [5000] * 4, compression="none")
    options: dict[str, Any] = {"filter": FILTER, "rank": 0, "world_size": 2, "balance": "rows"}
    with quiet_loader(path, batch_size=100, columns=["wide"], format="arrow", **options) as loader:
        assert len(loader) == -(-(20_000 * 3 // 8 // 2) // 100)
        assert bytes_read(loader) < table["wide"].nbytes / 4


def test_one_row_and_many_ranks(tmp_path: Path) -> None:
    path = write_row_groups(tmp_path / "one.parquet", pa.table({"x": [7]}), [1])
    with pytest.raises(ValueError, match="1 rows, fewer than the 3 ranks"):
        iter(quiet_loader(path, rank=1, world_size=3))
    assert rows_of(quiet_loader(path, rank=2, world_size=3, uneven="repeat")) == [7]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"rank": 3, "world_size": 3}, ValueError, "rank must be at least 0 and below world_size=3, got 3"),
        ({"rank": -1, "world_size": 3}, ValueError, "rank must be at least 0"),
        ({"rank": 0, "world_size": 0}, ValueError, "world_size must be at least 1"),
        ({"rank": 1}, ValueError, "rank=1 needs a world_size"),
        ({"world_size": 2}, ValueError, "world_size=2 needs a rank"),
        ({"rank": 1.0, "world_size": 2}, TypeError, "rank is an int"),
        ({"uneven": "keep"}, ValueError, "uneven is 'drop' or 'repeat'"),
        ({"balance": "bytes"}, ValueError, "balance is 'rows' or None"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": 2**64}, ValueError, "seed must be at most"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
    ],
)
def test_bad_arguments_say_what_is_wrong(
    path: str, options: dict[str, object], error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(error, match=words):
        quiet_loader(path, **options)


def test_the_rank_comes_from_the_environment(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    loader = quiet_loader(path)
    assert "rank=1, world_size=4" in repr(loader)
    assert rows_of(loader) == list(range(250, 500))
    assert rows_of(quiet_loader(path, rank=3)) == list(range(750, 1000))
    assert rows_of(quiet_loader(path, rank=0, world_size=1)) == list(range(1000))
    monkeypatch.setenv("WORLD_SIZE", "four")
    with pytest.raises(ValueError, match="WORLD_SIZE='four'"):
        quiet_loader(path)


def test_the_rank_comes_from_torch_distributed(path: str) -> None:
    run_python(
        """
        import sys, tempfile
        import torch.distributed as dist
        import penstock as ps
        with tempfile.NamedTemporaryFile() as store:
            dist.init_process_group("gloo", init_method=f"file://{store.name}", rank=0, world_size=1)
            import os
            os.environ["RANK"], os.environ["WORLD_SIZE"] = "1", "2"
            loader = ps.Loader(sys.argv[1], format="numpy")
            assert sum(len(batch["x"]) for batch in loader) == 1000, repr(loader)
            dist.destroy_process_group()
        """,
        path,
    )


def test_without_ranks_there_is_one(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    loader = quiet_loader(path)
    assert "rank=" not in repr(loader)
    assert rows_of(loader) == list(range(ROWS))


@pytest.mark.parametrize(("rank", "world_size"), [("1", None), (None, "2")])
def test_half_an_environment_is_a_warning(
    path: str, monkeypatch: pytest.MonkeyPatch, rank: str | None, world_size: str | None
) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", world_size)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.warns(RuntimeWarning, match="reads all rows"):
        ps.Loader(path, batch_size=10, num_workers=1).close()


def test_a_shuffle_counts_what_passes_the_filter_so_nothing_is_warned_of(path: str) -> None:
    options: dict[str, Any] = {"filter": pc.field("x") > 5, "rank": 1, "world_size": 2, "num_workers": 1}
    ps.Loader(path, batch_size=10, shuffle=True, **options).close()
    with pytest.warns(RuntimeWarning, match="balance"):
        ps.Loader(path, batch_size=10, **options).close()
