"""state_dict and load_state_dict: exactly the batches that would have come, whatever changes meanwhile."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import PROPERTY, quiet_loader, rows_of, values_of, write_row_groups

ROWS = 720
FILTER = pc.bit_wise_and(pc.field("x"), 7) > 2


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("resume")
    for number, begin in enumerate(range(0, ROWS, 240)):
        table = pa.table({"x": range(begin, begin + 240), "s": [str(x) for x in range(begin, begin + 240)]})
        write_row_groups(folder / f"part-{number}.parquet", table, [100, 0, 7, 133])
    return str(folder)


def take(loader: ps.Loader, batches: int) -> list[list[Any]]:
    """The first batches of the next iteration, which is broken off."""
    taken: list[list[Any]] = []
    iterator = iter(loader)
    while len(taken) < batches:
        taken.append(values_of(next(iterator)))
    return taken


def rest_of(loader: ps.Loader) -> list[list[Any]]:
    return [values_of(batch) for batch in loader]


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(state)
    assert len(text.encode()) < 4096
    loaded: dict[str, Any] = json.loads(text)
    return loaded


ORDERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank": {"rank": 1, "world_size": 3},
    "repeat": {"rank": 6, "world_size": 7, "uneven": "repeat"},
    "filter": {"filter": FILTER},
    "filter and limit": {"filter": FILTER, "limit": 301},
    "filter, one rank of many": {"filter": FILTER, "rank": 2, "world_size": 3},
    "balance": {"filter": FILTER, "rank": 1, "world_size": 2, "balance": "rows"},
    "epochs": {"epochs": 3, "rank": 0, "world_size": 2},
    "limit": {"limit": 333},
    "strings": {"columns": ["x", "s"], "format": "arrow"},
    "strings and filter": {"columns": ["x", "s"], "format": "arrow", "filter": FILTER},
    "shuffle": {"shuffle": True, "seed": 3, "shuffle_window": "4KiB"},
    "shuffle in one window": {"shuffle": True, "seed": 4},
    "shuffle and filter": {"shuffle": True, "seed": 5, "shuffle_window": "4KiB", "filter": FILTER},
    "shuffle, a rank, repeat": {
        "shuffle": True,
        "seed": 6,
        "shuffle_window": "4KiB",
        "rank": 6,
        "world_size": 7,
        "uneven": "repeat",
    },
    "shuffle and epochs": {"shuffle": True, "seed": 7, "shuffle_window": "4KiB", "epochs": 3},
    "shuffle and limit": {"shuffle": True, "seed": 8, "shuffle_window": "4KiB", "limit": 333},
    "shuffled strings": {
        "shuffle": True,
        "seed": 9,
        "shuffle_window": "16KiB",
        "columns": ["x", "s"],
        "format": "arrow",
    },
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_resume_at_every_batch_is_exact(path: str, order: dict[str, Any]) -> None:
    """Also twice in a row, through JSON, and with other numbers of workers and batches ahead."""
    options = {"batch_size": 37, **order}
    whole = rest_of(quiet_loader(path, num_workers=2, **options))
    for had in range(0, len(whole) + 1, 1 if len(whole) < 12 else 3):
        first = quiet_loader(path, num_workers=2, prefetch_batches=5, **options)
        before = take(first, had)
        state = through_json(first.state_dict())
        second = quiet_loader(path, num_workers=had % 4, prefetch_batches=had % 3, **options)
        second.load_state_dict(state)
        assert second.state_dict()["history"] == state["history"]
        between = take(second, min(2, len(whole) - had))
        third = quiet_loader(path, num_workers=1, **options)
        third.load_state_dict(through_json(second.state_dict()))
        assert before + between + rest_of(third) == whole
        for loader in (first, second, third):
            loader.close()


@st.composite
def any_order(draw: st.DrawFn) -> dict[str, Any]:
    world_size = draw(st.integers(1, 5))
    has_filter = draw(st.booleans())
    is_one = world_size == 1
    epochs = draw(st.integers(1, 3))
    balance = draw(st.sampled_from([None, "rows"])) if has_filter else None
    shuffle = draw(st.booleans())
    is_limited = not has_filter or balance is not None or shuffle or (is_one and epochs == 1)
    return {
        "shuffle": shuffle,
        "seed": draw(st.integers(0, 9)),
        "shuffle_window": draw(st.sampled_from(["1KiB", "8KiB", "1MiB"])),
        "batch_size": draw(st.integers(1, 50)),
        "drop_last": draw(st.booleans()),
        "filter": FILTER if has_filter else None,
        "rank": draw(st.integers(0, world_size - 1)),
        "world_size": world_size,
        "uneven": draw(st.sampled_from(["drop", "repeat"])),
        "balance": balance,
        "epochs": epochs,
        "limit": draw(st.none() | st.integers(20, 400)) if is_limited else None,
    }


@given(
    files=st.lists(st.lists(st.integers(0, 70), min_size=1, max_size=5), min_size=1, max_size=4),
    order=any_order(),
    part=st.none() | st.integers(0, 1),
    data=st.data(),
)
@settings(PROPERTY, max_examples=30)
def test_resume_anywhere_over_any_files(
    files: list[list[int]], order: dict[str, Any], part: int | None, data: st.DataObject
) -> None:
    """Any row groups, order, part and place: what comes before and after is what comes undisturbed, with
    whatever threads."""
    with tempfile.TemporaryDirectory() as folder:
        begin = 0
        for number, sizes in enumerate([*files, [40, 40, 40]]):
            table = pa.table({"x": pa.array(range(begin, begin + sum(sizes)), pa.int64())})
            write_row_groups(Path(folder) / f"{number}.parquet", table, sizes)
            begin += sum(sizes)
        source: Any = folder if part is None else ps.split(folder, [0.5, 0.5], seed=1)[part]
        whole = rest_of(quiet_loader(source, **order))
        before: list[list[Any]] = []
        state: dict[str, Any] | None = None
        while True:
            loader = quiet_loader(source, num_workers=data.draw(st.integers(0, 3)), **order)
            if state is not None:
                loader.load_state_dict(state)
            steps = data.draw(st.integers(0, 12))
            before += take(loader, min(steps, len(whole) - len(before)))
            state = through_json(loader.state_dict())
            loader.close()
            if data.draw(st.booleans()):
                break
        loader = quiet_loader(source, **order)
        loader.load_state_dict(state)
        assert before + rest_of(loader) == whole
        assert loader.state_dict()["epoch"] == order["epochs"]


@given(had=st.integers(0, 19), more=st.integers(0, 5), workers=st.integers(0, 4), data=st.data())
@PROPERTY
def test_without_order_no_batch_comes_twice_and_none_is_missing(
    path: str, had: int, more: int, workers: int, data: st.DataObject
) -> None:
    options: dict[str, Any] = {"batch_size": 20, "filter": data.draw(st.sampled_from([None, FILTER]))}
    whole = rest_of(quiet_loader(path, **options))
    options["in_order"] = False
    loader = quiet_loader(path, num_workers=workers, **options)
    seen = take(loader, min(had, len(whole)))
    for count in (more, None):
        following = quiet_loader(path, num_workers=workers, **options)
        following.load_state_dict(through_json(loader.state_dict()))
        loader.close()
        loader = following
        seen += rest_of(loader) if count is None else take(loader, min(count, len(whole) - len(seen)))
    loader.close()
    assert sorted(seen) == whole


@given(
    phases=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=4),
    last=st.integers(1, 6),
    kind=st.sampled_from(["together", "filter", "balance", "out of order", "shuffled", "shuffled filter"]),
    batch_size=st.integers(1, 30),
)
@PROPERTY
def test_elastic_resume_reads_each_row_once(
    path: str, phases: list[tuple[int, int]], last: int, kind: str, batch_size: int
) -> None:
    options: dict[str, Any] = {"batch_size": batch_size, "num_workers": 1}
    if "filter" in kind or kind == "balance":
        options["filter"] = FILTER
    if "shuffled" in kind:
        options |= {"shuffle": True, "seed": batch_size, "shuffle_window": "4KiB"}
    if kind == "balance":
        options["balance"] = "rows"
    if kind == "out of order":
        options["in_order"] = False
    expected = rows_of(quiet_loader(path, **options))
    states: list[dict[str, Any]] = []
    rows: list[Any] = []
    for world_size, steps in [*phases, (last, 10**6)]:
        saved = []
        for rank in range(world_size):
            with quiet_loader(path, rank=rank, world_size=world_size, **options) as loader:
                if states:
                    # Where ranks step together, any one of them speaks for all.
                    is_together = kind not in ("filter", "out of order")
                    loader.load_state_dict(states[rank % len(states)] if is_together else states)
                iterator = iter(loader)
                state = loader.state_dict()  # As a loop saves it: with a batch in hand, not after the end.
                for batch in itertools.islice(iterator, steps):
                    rows += values_of(batch)
                    state = loader.state_dict()
                saved.append(through_json(state))
        states = saved
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(expected)
    assert len(expected) - len(rows) < last


def test_moved_data_resumes(path: str, tmp_path: Path) -> None:
    loader = quiet_loader(path, batch_size=100)
    take(loader, 3)
    moved = shutil.copytree(path, tmp_path / "elsewhere" / "data")
    again = quiet_loader(moved, batch_size=100)
    again.load_state_dict(loader.state_dict())
    assert rows_of(again) == list(range(300, ROWS))


def test_a_state_is_had_at_once(path: str) -> None:
    loader = quiet_loader(path, batch_size=10, filter=FILTER, in_order=False)
    take(loader, 20)
    loader.state_dict()
    least_s = min(_timed(loader) for _ in range(200))
    assert least_s < 200e-6  # Microseconds (bench/run shuffle); a look at the files would be more.


def _timed(loader: ps.Loader) -> float:
    begin = time.perf_counter()
    loader.state_dict()
    return time.perf_counter() - begin


def test_the_state_is_where_the_user_is(path: str) -> None:
    """Not where the prefetch is, and after a break as long as no epoch has begun."""
    loader = quiet_loader(path, batch_size=10, prefetch_batches=30)
    assert loader.state_dict()["history"] == [[1, 0]]
    for number, _ in enumerate(loader):
        assert loader.state_dict()["history"] == [[1, 10 * (number + 1)]]
        if number == 4:
            break
    assert loader.state_dict()["history"] == [[1, 50]]
    assert loader.state_dict()["epoch"] == 0


def test_each_iteration_is_the_next_epoch(path: str) -> None:
    loader = quiet_loader(path, batch_size=100)
    take(loader, 1)
    rest_of(loader)
    assert (loader.state_dict()["epoch"], loader.state_dict()["history"]) == (2, [[1, 0]])
    loader.set_epoch(9)
    take(loader, 2)
    state = loader.state_dict()
    assert state["epoch"] == 9
    again = quiet_loader(path, batch_size=100)
    again.load_state_dict(state)
    again.set_epoch(9)  # As a loop over epochs says it.
    assert rows_of(again) == list(range(200, ROWS))
    assert again.state_dict()["epoch"] == 10
    again.load_state_dict(state)
    again.set_epoch(3)
    assert len(rows_of(again)) == ROWS
    for wrong in (-1, 2**32):
        with pytest.raises(ValueError, match="epoch must be at"):
            again.set_epoch(wrong)


def test_a_stream_of_epochs_has_one_short_batch(path: str) -> None:
    loader = quiet_loader(path, batch_size=100, epochs=3)
    batches = rest_of(loader)
    assert [len(batch) for batch in batches] == [100] * 21 + [60]
    assert [x for batch in batches for x in batch] == list(range(ROWS)) * 3
    assert len(loader) == 22


def test_a_resume_near_the_end_reads_little(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array(range(200_000), pa.int64())})
    path = write_row_groups(
        tmp_path / "x.parquet", table, [2000] * 100, use_dictionary=False, compression="none"
    )

    def read(loader: ps.Loader) -> int:
        return int(loader.stats().to_dict()["stages"]["read"]["bytes"])

    loader = quiet_loader(path, batch_size=1000)
    take(loader, 180)
    again = quiet_loader(path, batch_size=1000)
    again.load_state_dict(loader.state_dict())
    before = read(again)
    assert rows_of(again) == list(range(180_000, 200_000))
    assert read(again) - before < 0.15 * 200_000 * 8


# --- What is refused ---------------------------------------------------------------------------------------


def change(state: dict[str, Any], keys: Sequence[Any], value: Any) -> dict[str, Any]:
    changed = through_json(state)
    inner: Any = changed
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (["penstock_state"], 99, "version 99, newer than this penstock"),
        (["penstock_state"], "1", "corrupt"),
        (["epoch"], -1, "corrupt"),
        (["epoch"], "3", "corrupt"),
        (["epoch"], 2**40, "corrupt"),
        (["epochs_left"], 0, "corrupt"),
        (["rank"], 5, "corrupt"),
        (["history"], [], "corrupt"),
        (["history"], [[1]], "corrupt"),
        (["history"], [[0, 5]], "corrupt"),
        (["history"], [[1, -5]], "corrupt"),
        (["history"], [[1, [[5, 1]]]], "corrupt"),
        (["history"], [[1, [[5]]]], "corrupt"),
        (["history"], [[1, [[0, 10**9]]]], "corrupt"),
        (["history"], 7, "corrupt"),
        (["seed"], -1, "corrupt"),
        (["data", "files"], 4, "the data differs; it was saved over 4 files"),
        (["data", "names"], "x", "names or sizes are others"),
        (["data", "footers", 1], "x", "their contents are not"),
        (["columns"], "x", "columns"),
        (["filter"], "(x > 1)", "saved with filter \\(x > 1\\), and here there is no filter"),
        (["batch_size"], 7, "batch_size was 7 and is 10"),
        (["shuffle"], True, "shuffle was True and is False"),
        (["uneven"], "repeat", 'uneven was "repeat" and is "drop"'),
        (["uneven"], "maybe", "corrupt"),
        (["limit"], 3, "limit was 3 and is None"),
        (["balance"], "rows", "balance"),
    ],
)
def test_a_state_of_something_else_is_refused(path: str, keys: list[Any], value: Any, words: str) -> None:
    loader = quiet_loader(path, batch_size=10)
    take(loader, 3)
    state = loader.state_dict()
    with pytest.raises(ValueError, match=words):
        loader.load_state_dict(change(state, keys, value))
    for key in state:
        with pytest.raises(ValueError, match="corrupt"):
            loader.load_state_dict({name: state[name] for name in state if name != key})
    with pytest.raises(TypeError, match="a state is a dict"):
        loader.load_state_dict("{}")  # type: ignore[arg-type]
    loader.load_state_dict(state)
    assert rows_of(loader) == list(range(30, ROWS))


def test_other_contents_of_the_same_size_are_refused(tmp_path: Path) -> None:
    """A file of the same name and size is another when its footer is."""
    for folder, first in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        table = pa.table({"x": pa.array(range(first, first + 100), pa.int64())})
        write_row_groups(tmp_path / folder / "x.parquet", table, [100], use_dictionary=False)
    loader = quiet_loader(tmp_path / "a" / "x.parquet", batch_size=10)
    take(loader, 3)
    with pytest.raises(ValueError, match="the data differs"):
        quiet_loader(tmp_path / "b" / "x.parquet", batch_size=10).load_state_dict(loader.state_dict())


def test_ranks_apart_need_every_ranks_state(path: str) -> None:
    states = []
    for rank in range(2):
        loader = quiet_loader(path, batch_size=10, filter=FILTER, rank=rank, world_size=2)
        take(loader, 3 + rank)
        states.append(loader.state_dict())
    three = quiet_loader(path, batch_size=10, filter=FILTER, rank=0, world_size=3)
    with pytest.raises(ValueError, match="list of all ranks' states"):
        three.load_state_dict(states[0])
    other = quiet_loader(path, batch_size=10, filter=FILTER, rank=0, world_size=2)
    with pytest.raises(ValueError, match="rank 1's"):
        other.load_state_dict(states[1])
    with pytest.raises(ValueError, match="3 states, but there were 2 ranks"):
        three.load_state_dict([states[0], states[0], states[1]])
    with pytest.raises(ValueError, match="empty"):
        three.load_state_dict([])
    rest_of(loader)
    with pytest.raises(ValueError, match="rank 0 was in epoch 0, rank 1 in epoch 2"):
        three.load_state_dict([states[0], loader.state_dict()])


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"rank": 1, "world_size": 2}])
def test_the_state_of_the_very_start_is_good_for_a_loader_that_has_read_all(
    path: str, options: dict[str, Any]
) -> None:
    with quiet_loader(path, batch_size=50, **options) as loader:
        state = through_json(loader.state_dict())
        whole = rest_of(loader)
        for _ in range(2):
            loader.load_state_dict(state)
            assert rest_of(loader) == whole


def test_a_window_of_all_rows_is_the_same_whatever_a_row_takes(path: str) -> None:
    """Other formats and types go on with a shuffled state where the epoch fits into one window."""
    options: dict[str, Any] = {"batch_size": 50, "shuffle": True, "columns": ["x"]}
    with quiet_loader(path, **options) as loader:
        before = take(loader, 3)
        state = through_json(loader.state_dict())
        loader.set_epoch(0)
        whole = rest_of(loader)
    for others in [{"format": "arrow"}, {"transforms": {"x": ps.ops.cast("float32")}}]:
        with quiet_loader(path, **options | others) as loader:
            loader.load_state_dict(state)
            assert before + rest_of(loader) == whole
    options["shuffle_window"] = "4KiB"
    with quiet_loader(path, **options) as loader:
        take(loader, 3)
        state = through_json(loader.state_dict())
    transforms = {"x": ps.ops.cast("float32")}
    with (
        quiet_loader(path, **options, transforms=transforms) as loader,
        pytest.raises(ValueError, match=r"windows of its shuffle .*transforms"),
    ):
        loader.load_state_dict(state)


@pytest.mark.parametrize(("world_size", "rows"), [(2**31, 0), (1, 10**6)])
def test_histories_that_cannot_be(path: str, world_size: int, rows: int) -> None:
    with quiet_loader(path, batch_size=50) as loader:
        state = loader.state_dict() | {"history": [[world_size, rows]]}
        with pytest.raises(ValueError, match="corrupt"):
            loader.load_state_dict(state)
