"""on_error="skip": what is bad is left out or filled, counted and named, and no other batch changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support import quiet_loader, values_of, write_row_groups

ROWS, BATCH = 600, 50
BAD = {3, 49, 50, 299, *range(400, 450), 599}  # One batch among them is lost as a whole.
CAST = {"n": ps.ops.cast("int32")}


def table_of(begin: int, end: int, bad: set[int] = BAD) -> pa.Table:
    """Numbers as text, some of which are none, beside columns of every layout."""
    rows = range(begin, end)
    return pa.table({
        "x": pa.array(rows, pa.int64()),
        "n": ["oops" if row in bad else str(row) for row in rows],
        "s": ["" if row % 5 == 0 else f"row {row}" for row in rows],
        "l": pa.array([None if row % 7 == 0 else list(range(row % 4)) for row in rows], pa.list_(pa.int32())),
        "b": pa.array([None if row % 3 == 0 else row % 2 == 0 for row in rows]),
        "d": pa.array([{"deep": [f"{row}"] * (row % 3)} for row in rows]),
    })  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("on_error")
    for number, begin in enumerate(range(0, ROWS, 200)):
        write_row_groups(folder / f"part-{number}.parquet", table_of(begin, begin + 200), [90, 0, 110])
    return str(folder)


def skipping(source: Any, **options: Any) -> ps.Loader:
    return quiet_loader(source, **{"batch_size": BATCH, "on_error": "skip", "nulls": "mask", **options})


def planned(rows: list[int], batch: int = BATCH) -> list[list[int]]:
    """The rows of each batch where nothing is left out."""
    return [rows[at : at + batch] for at in range(0, len(rows), batch)]


def without(batches: list[list[int]], bad: set[int]) -> list[list[int]]:
    left = [[row for row in batch if row not in bad] for batch in batches]
    return [batch for batch in left if batch]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_bad_rows_are_left_out_of_their_batches(path: str, workers: int, shuffle: bool) -> None:
    """Every other row stays in its batch, whatever the workers, shuffled or not."""
    order = {"shuffle": shuffle, "seed": 5, "shuffle_window": "64KiB"}
    with quiet_loader(path, batch_size=BATCH, columns=["x"], **order) as loader:
        plan = [values_of(batch) for batch in loader]
    with skipping(path, columns=["x", "n"], transforms=CAST, num_workers=workers, **order) as loader:
        batches = list(loader)
        stats = loader.stats().to_dict()
        text = str(loader.stats())
    assert [values_of(batch) for batch in batches] == without(plan, BAD)
    assert all(values_of(batch, "n") == values_of(batch) for batch in batches)
    assert (stats["skipped"], stats["filled"], stats["errors"]) == (len(BAD), 0, len(BAD))
    assert len(stats["error_messages"]) == 10
    for part in ["part-0.parquet', row group 0", "column 'n'", "row 3", "oops"]:
        assert any(part in message for message in stats["error_messages"]) or workers > 1, part
    assert f"{len(BAD)} rows" in text


@pytest.mark.parametrize("format", ["numpy", "torch", "arrow", "pandas"])
def test_columns_of_every_layout_close_the_gap(path: str, format: str) -> None:
    """Strings, lists, masks and structs of the rows that stay are what they were."""
    columns = ["x", "n", "s", "b"] + (["l", "d"] if format in ("arrow", "pandas") else ["l"])
    transforms = CAST | ({} if format in ("arrow", "pandas") else {"s": ps.ops.hash_bucket(1000)})
    good = [row for row in range(ROWS) if row not in BAD]
    whole = table_of(0, ROWS).take(good)
    with skipping(path, columns=columns, transforms=transforms, format=format) as loader:
        batches = list(loader)
    if format in ("numpy", "torch"):
        values = {
            name: np.concatenate([np.asarray(batch[name]) for batch in batches]) for name in ("x", "b", "l")
        }
        mask = np.concatenate([np.asarray(batch["l_mask"]) for batch in batches])
        lists = whole["l"].combine_chunks()
        assert values["x"].tolist() == good
        assert values["l"].tolist() == lists.flatten().to_pylist()
        assert mask.tolist() == lists.is_null().to_pylist()
        lengths = np.concatenate([np.diff(np.asarray(batch["l_offsets"])) for batch in batches])
        assert lengths.tolist() == [0 if row is None else len(row) for row in lists.to_pylist()]
        assert all(batch["l_offsets"][0] == 0 for batch in batches)
        return
    tables = [pa.Table.from_pandas(b) if format == "pandas" else pa.Table.from_batches([b]) for b in batches]
    for name in ("x", "s", "l", "b", "d"):
        got = [value for table in tables for value in table[name].to_pylist()]
        assert got == whole[name].to_pylist(), name


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_fill_value_keeps_the_row(path: str, shuffle: bool) -> None:
    with skipping(path, columns=["x", "n"], transforms=CAST, nulls={"n": -1}, shuffle=shuffle) as loader:
        batches = list(loader)
        stats = loader.stats().to_dict()
    assert [len(batch["x"]) for batch in batches] == [BATCH] * (ROWS // BATCH)
    got = {x: n for batch in batches for x, n in zip(values_of(batch), values_of(batch, "n"), strict=True)}
    assert got == {row: -1 if row in BAD else row for row in range(ROWS)}
    assert (stats["skipped"], stats["filled"]) == (0, len(BAD))


@pytest.mark.parametrize("format", ["numpy", "arrow"])
def test_a_missing_value_is_an_error_like_others(tmp_path: Path, format: str) -> None:
    values = [None if row % 10 == 4 else [row] for row in range(95)]
    target = tmp_path / "m.parquet"
    pq.write_table(pa.table({"x": range(95), "l": values}), target, row_group_size=40)
    nulls = "error"
    with skipping(str(target), nulls=nulls, format=format) as loader:
        got = [values_of(batch) for batch in loader]
        errors = loader.stats().to_dict()["errors"]
    bad = {row for row in range(95) if row % 10 == 4} if format == "numpy" else set()
    assert got == without(planned(list(range(95))), bad)
    assert errors == len(bad)


def corrupt_page(path: Path, column: str, row_group: int, part: float) -> None:
    """Flips bits within a column chunk, `part` of the way into it."""
    metadata = pq.ParquetFile(path).metadata
    index = metadata.schema.to_arrow_schema().get_field_index(column)
    chunk = metadata.row_group(row_group).column(index)
    at = chunk.data_page_offset + int(chunk.total_compressed_size * part)
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["x", "s"])
def test_of_a_row_group_the_rows_from_the_bad_page_on(tmp_path: Path, name: str) -> None:
    """They follow from the data alone: workers and budget change nothing."""
    target = tmp_path / "pages.parquet"
    rows = list(range(9000))
    table = pa.table({"x": rows, "s": [f"row {row}" for row in rows]})
    pages: Any = {"data_page_size": 1024, "write_batch_size": 64, "write_page_checksum": True}
    pq.write_table(table, target, row_group_size=3000, use_dictionary=False, compression="none", **pages)
    corrupt_page(target, name, 1, 0.5)
    begins = set()
    for limits in [{}, {"memory_budget": "400KiB", "num_workers": 1}, {"num_workers": 0}, {"num_workers": 3}]:
        with skipping(str(target), format="arrow", **limits) as loader:
            got = [values_of(batch) for batch in loader]
            stats = loader.stats().to_dict()
        begin = [row for batch in got for row in batch][-3001] + 1
        assert got == without(planned(rows), set(range(begin, 6000)))
        assert (stats["skipped"], stats["errors"]) == (6000 - begin, 1)
        (message,) = stats["error_messages"]
        assert "pages.parquet', row group 1" in message
        assert f"'{name}'" in message
        begins.add(begin)
    (begin,) = begins
    assert 4000 < begin < 5000
    assert (begin - 3000) % 64 == 0


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """9,000 rows in three row groups of many pages; the same with a bad page in the second."""
    folders = [tmp_path_factory.mktemp(name) for name in ("whole", "damaged")]
    table = pa.table({"x": pa.array(range(9000), pa.int64()), "y": pa.array(range(9000), pa.int32())})
    pages: Any = {"data_page_size": 1024, "write_batch_size": 64, "write_page_checksum": True}
    for folder in folders:
        target = folder / "pages.parquet"
        pq.write_table(table, target, row_group_size=3000, use_dictionary=False, compression="none", **pages)
    corrupt_page(folders[1] / "pages.parquet", "y", 1, 0.5)
    return str(folders[0]), str(folders[1])


def lost_rows(damaged: str) -> set[int]:
    with skipping(damaged) as loader:
        lost = set(range(9000)) - {row for batch in loader for row in values_of(batch)}
    assert lost == set(range(min(lost), 6000))
    return lost


ORDERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shuffle": {"shuffle": True, "seed": 3, "shuffle_window": "64KiB"},
    "shuffle in one window": {"shuffle": True, "seed": 4},
    "epochs": {"epochs": 2},
    "no order": {"in_order": False},
    "part": {"part": 1},
    "shuffled part": {"part": 0, "shuffle": True, "seed": 5, "shuffle_window": "64KiB"},
}


def source_of(path: str, order: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    options = dict(order)
    part = options.pop("part", None)
    return path if part is None else ps.split(path, [0.3, 0.7], seed=2)[part], options


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_rows_that_cannot_be_read_move_no_other(
    damaged: tuple[str, str], order: dict[str, Any], workers: int
) -> None:
    """In any order; len() counts the batches as they were planned."""
    lost = lost_rows(damaged[1])
    source, options = source_of(damaged[0], order)
    with quiet_loader(source, batch_size=BATCH, nulls="mask", **options) as loader:
        plan = [values_of(batch) for batch in loader]
    source, options = source_of(damaged[1], order)
    with skipping(source, num_workers=workers, **options) as loader:
        got = [values_of(batch) for batch in loader]
        stats = loader.stats().to_dict()
        assert len(loader) == len(plan)
    expected = without(plan, lost)
    assert sorted(got) == sorted(expected)
    assert got == expected or not order.get("in_order", True)
    assert stats["skipped"] == sum(row in lost for batch in plan for row in batch)
    assert stats["errors"] == options.get("epochs", 1)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_resume_around_rows_that_cannot_be_read(damaged: tuple[str, str], order: dict[str, Any]) -> None:
    """Before, within and behind them."""
    source, options = source_of(damaged[1], order)
    with skipping(source, **options) as loader:
        undisturbed = [values_of(batch) for batch in loader]
    for taken in range(0, len(undisturbed), 1 + len(undisturbed) // 12):
        with skipping(source, **options) as loader:
            batches = iter(loader)
            got = [values_of(next(batches)) for _ in range(taken)]
            state = json.loads(json.dumps(loader.state_dict()))
        with skipping(source, num_workers=taken % 4, **options) as loader:
            loader.load_state_dict(state)
            got += [values_of(batch) for batch in loader]
        assert sorted(got) == sorted(undisturbed)
        assert got == undisturbed or not order.get("in_order", True)


@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_stay_in_step_where_rows_that_cannot_be_read_are_filled(
    damaged: tuple[str, str], shuffle: bool
) -> None:
    lost = lost_rows(damaged[1])
    nulls = {"x": -7, "y": -7}
    for rank in range(3):
        order = {"rank": rank, "world_size": 3, "shuffle": shuffle, "seed": 1, "shuffle_window": "64KiB"}
        with quiet_loader(damaged[0], batch_size=BATCH, nulls=nulls, **order) as loader:
            plan = [values_of(batch) for batch in loader]
        with skipping(damaged[1], nulls=nulls, **order) as loader:
            got = [values_of(batch, "y") for batch in loader]
            filled = loader.stats().to_dict()["filled"]
        assert got == [[-7 if row in lost else row for row in batch] for batch in plan]
        mine = sum(row in lost for batch in plan for row in batch)
        # Windows that ranks share are read whole by each.
        assert mine <= filled <= len(lost) if shuffle else filled == mine


def test_behind_a_filter_rows_that_cannot_be_read_have_no_place(damaged: tuple[str, str]) -> None:
    """How many would have passed? Batches close up; where places are needed, it is an error."""
    lost = lost_rows(damaged[1])
    options: Any = {"filter": pc.field("x") >= 100}
    with skipping(damaged[1], **options) as loader:
        got = [values_of(batch) for batch in loader]
    assert got == planned([row for row in range(100, 9000) if row not in lost])
    for places in [
        {"shuffle": True},
        {"rank": 0, "world_size": 2, "balance": "rows"},
        {"epochs": 2},
    ]:
        with (
            skipping(damaged[1], **options, **places) as loader,
            pytest.raises(OSError, match=r"pages\.parquet', row group 1"),
        ):
            list(loader)


def test_rows_that_cannot_be_read_are_filled_where_all_their_columns_have_a_value(tmp_path: Path) -> None:
    target = tmp_path / "pages.parquet"
    table = pa.table({"x": pa.array(range(3000), pa.int32())})
    pq.write_table(table, target, row_group_size=1000, use_dictionary=False, write_page_checksum=True)
    corrupt_page(target, "x", 1, 0.5)
    with skipping(str(target), nulls={"x": -7}, batch_size=100) as loader:
        batches = [values_of(batch) for batch in loader]
        stats = loader.stats().to_dict()
    assert [row for batch in batches for row in batch] == [*range(1000), *[-7] * 1000, *range(2000, 3000)]
    assert (stats["skipped"], stats["filled"], stats["errors"]) == (0, 1000, 1)


@pytest.mark.parametrize("order", [{}, {"shuffle": True}, {"rank": 1, "world_size": 2}])
def test_files_that_cannot_be_opened_have_no_rows(tmp_path: Path, order: Any) -> None:
    for number in range(4):
        begin = 100 * number
        pq.write_table(pa.table({"x": range(begin, begin + 100)}), tmp_path / f"{number}.parquet")
    whole = (tmp_path / "2.parquet").read_bytes()
    (tmp_path / "2.parquet").write_bytes(whole[:-40])
    with skipping(str(tmp_path), **order) as loader:
        got = [value for _ in range(2) for batch in loader for value in values_of(batch)]
        stats = loader.stats().to_dict()
        state = json.loads(json.dumps(loader.state_dict()))
    rows = [row for row in range(400) if row // 100 != 2]
    mine = rows[150:] if "rank" in order else rows
    assert sorted(got) == sorted(mine * 2)
    assert (stats["errors"], len(stats["error_messages"])) == (1, 1)
    assert "2.parquet" in stats["error_messages"][0]
    with skipping(str(tmp_path), **order) as loader:
        loader.load_state_dict(state)
        assert sorted(value for batch in loader for value in values_of(batch)) == mine
    if not order:
        with (
            pytest.raises(Exception, match=r"2\.parquet"),
            quiet_loader(str(tmp_path), batch_size=7) as loader,
        ):
            list(loader)


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("collate", [None, dict])
def test_resume_is_exact(path: str, in_order: bool, collate: Any) -> None:
    """Before, in and after a batch that is lost as a whole."""
    options: Any = {"columns": ["x", "n"], "transforms": CAST, "in_order": in_order, "collate_fn": collate}
    with skipping(path, **options) as loader:
        undisturbed = [values_of(batch) for batch in loader]
    assert sorted(undisturbed) == without(planned(list(range(ROWS))), BAD)
    for taken in range(len(undisturbed) + 1):
        with skipping(path, **options) as loader:
            batches = iter(loader)
            got = [values_of(next(batches)) for _ in range(taken)]
            state = loader.state_dict()
        with skipping(path, **options) as loader:
            loader.load_state_dict(json.loads(json.dumps(state)))
            rest = [values_of(batch) for batch in loader]
        if taken == len(undisturbed):
            assert rest == [] or sorted(rest) == sorted(undisturbed)
        else:
            assert sorted(got + rest) == sorted(undisturbed)


def test_more_errors_than_max_errors_are_the_end(path: str) -> None:
    """Counted anew in each iteration."""
    options: Any = {"columns": ["x", "n"], "transforms": CAST}
    with skipping(path, max_errors=len(BAD), **options) as loader:
        for _ in range(2):
            assert sum(len(batch["x"]) for batch in loader) == ROWS - len(BAD)
    with (
        skipping(path, max_errors=2, num_workers=0, **options) as loader,
        pytest.raises(ValueError, match=r"max_errors=2 .*part-0\.parquet.*column 'n'.*oops"),
    ):
        list(loader)


def test_ranks_must_stay_in_step(path: str) -> None:
    options: Any = {"columns": ["x", "n"], "transforms": CAST, "rank": 1, "world_size": 2}
    with skipping(path, **options) as loader, pytest.raises(ValueError, match="out of step"):
        list(loader)
    with skipping(path, **options | {"nulls": {"n": 0}}) as loader:
        assert [len(batch["x"]) for batch in loader] == [BATCH] * 6


def test_a_filter_goes_first(path: str) -> None:
    """Rows that do not pass are no errors; batches are made of those that pass."""
    options: Any = {"columns": ["x", "n"], "transforms": CAST, "filter": pc.field("x") >= 40}
    with skipping(path, **options) as loader:
        got = [values_of(batch) for batch in loader]
        stats = loader.stats().to_dict()
    assert got == without(planned(list(range(40, ROWS))), BAD)
    assert stats["errors"] == len(BAD - {3})


def test_what_python_raises_is_not_skipped(path: str) -> None:
    def fail(_: Any) -> Any:
        raise ZeroDivisionError("mine")

    op = ps.ops.python(fail, "int64", [])
    with (
        skipping(path, columns=[], transforms={"x": op}) as loader,
        pytest.raises(ZeroDivisionError, match="mine"),
    ):
        list(loader)


def test_broken_photos(tmp_path: Path) -> None:
    """Left out, or filled where there is a value."""
    image = pytest.importorskip("PIL.Image")
    good = tmp_path / "good.jpg"
    image.new("RGB", (20, 20), (200, 30, 30)).save(good)
    photos = [good.read_bytes() if row % 4 else b"no photo" for row in range(20)]
    target = tmp_path / "photos.parquet"
    pq.write_table(pa.table({"x": range(20), "image": photos}), target)
    steps = [ps.image.decode(), ps.image.resize((8, 8)), ps.image.to_float()]
    options: Any = {"batch_size": 8, "transforms": {"image": steps}}
    with skipping(str(target), nulls="error", **options) as loader:
        batches = list(loader)
        stats = loader.stats().to_dict()
    assert [len(batch["image"]) for batch in batches] == [6, 6, 3]
    assert [row for batch in batches for row in values_of(batch)] == [row for row in range(20) if row % 4]
    assert all((batch["image"] != 0).all() for batch in batches)
    assert stats["skipped"] == 5
    assert "column 'image'" in stats["error_messages"][0]
    with skipping(str(target), nulls={"image": 0.5}, **options) as loader:
        batches = list(loader)
    assert [len(batch["image"]) for batch in batches] == [8, 8, 4]
    images = np.concatenate([batch["image"] for batch in batches])
    assert [(image == 0.5).all() for image in images] == [row % 4 == 0 for row in range(20)]


def test_arguments_are_checked(path: str) -> None:
    for options in [{"on_error": "ignore"}, {"on_error": True}, {"max_errors": -1}]:
        with pytest.raises(ValueError, match=next(iter(options))):
            quiet_loader(path, batch_size=1, **options)


def test_packed_rows_cannot_be_left_out(tmp_path: Path) -> None:
    target = tmp_path / "tokens.parquet"
    pq.write_table(pa.table({"t": [[1, 2], [3]]}), target)
    with pytest.raises(ValueError, match=r"on_error.*pack"):
        quiet_loader(str(target), batch_size=1, transforms={"t": ps.ops.pack(2)}, columns=[], on_error="skip")


def test_a_limit_of_errors_needs_skipping(numbers: str) -> None:
    with pytest.raises(
        ValueError, match=r"max_errors is a limit of on_error='skip', and on_error is 'raise'"
    ):
        ps.Loader(numbers, max_errors=3)
