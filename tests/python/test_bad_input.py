"""Whatever is wrong with the input: a Python exception of a fitting type that says where."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import data_makers as make
import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import loader_threads

FITTING = (OSError, ValueError, TypeError, MemoryError, NotImplementedError)


def fails(error: type[BaseException], message: str, source: Any, **options: Any) -> None:
    """One epoch must end in that error; then no thread is left and every account is at zero."""
    try:
        loader = ps.Loader(source, **{"format": "numpy", **options})
    except error as refused:
        assert re.search(message, str(refused)), str(refused)  # noqa: PT017
        return
    with pytest.raises(error, match=message):
        for _ in loader:
            pass
    assert loader_threads() == []
    loader.close()
    accounts = {name: line for name, line in loader.memory().items() if isinstance(line, dict)}
    assert {name for name, line in accounts.items() if line["current_bytes"]} == set()


def run_python(
    code: str, *args: str, limit: int = 0, timeout: float = 150
) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a process of its own, with at most `limit` bytes of address space."""

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if limit:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    command = [sys.executable, "-c", code, *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, preexec_fn=set_limit
    )


# --- Files that are none ----------------------------------------------------------------------------------


def test_what_is_no_parquet_file_says_so(tmp_path: Path, numbers: str) -> None:
    """22: missing, empty, too short and foreign files: an error of a fitting type that names the file."""
    whole = Path(numbers).read_bytes()
    cases: dict[str, tuple[bytes, type[Exception], str]] = {
        "empty.parquet": (b"", ValueError, "empty"),
        "short.parquet": (b"PAR1", ValueError, "not a Parquet file"),
        "text.parquet": (b"a,b\n1,2\n" * 99, ValueError, "not a Parquet file"),
        "magic.parquet": (b"PAR1" * 9, OSError, "damaged"),
        "footer.parquet": (whole[:-8] + b"\xff\xff\xff\x7fPAR1", OSError, "truncated or damaged"),
        "encrypted.parquet": (whole[:-4] + b"PARE", ValueError, "encrypted"),
    }
    for name, (content, error, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        fails(error, rf"{name}.*{message}", tmp_path / name)
    fails(FileNotFoundError, r"nothing\.parquet", tmp_path / "nothing.parquet")
    fails(FileNotFoundError, "nothing", [numbers, str(tmp_path / "nothing.parquet")])
    fails(ValueError, r"\*\.nothing.*no file matches", str(tmp_path / "*.nothing"))
    (tmp_path / "folder").mkdir()
    fails(ValueError, "folder.*no data file", tmp_path / "folder")


def test_a_file_cut_at_any_length_is_an_error(tmp_path: Path, numbers: str) -> None:
    """22: a truncated file is an error that names it, wherever it was cut."""
    whole = Path(numbers).read_bytes()
    random = make.seeded("lengths")
    lengths = {*range(1, 20), *range(len(whole) - 20, len(whole)), *random.integers(20, len(whole), 60)}
    for length in sorted(lengths):
        (tmp_path / "cut.parquet").write_bytes(whole[:length])
        fails(FITTING, r"cut\.parquet.*(truncated|not a Parquet file|damaged)", tmp_path / "cut.parquet")  # type: ignore[arg-type]


FLIPS = """
import sys, random, os
import penstock as ps, pyarrow.parquet as pq
path, seed, rows, ops = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), ps.ops
whole = open(path, "rb").read()
target = path + ".flipped"
random.seed(seed)
outcomes = {}
for trial in range(150):
    broken = bytearray(whole)
    # Half of the flips go to the last third, where the footer is.
    start = random.choice([0, len(whole) * 2 // 3])
    for _ in range(random.choice([1, 1, 1, 8])):
        broken[random.randrange(start, len(whole))] ^= 1 << random.randrange(8)
    open(target, "wb").write(broken)
    print("trial", trial, flush=True)
    seen = 0
    try:
        loader = ps.Loader(target, batch_size=100, format="numpy", nulls="mask", memory_budget="64MiB",
                           num_workers=trial % 3, transforms={"s": ops.hash_bucket(9)})
        for batch in loader:
            seen += len(batch["s"])
        outcome = "read"
    except (OSError, ValueError, TypeError, MemoryError, NotImplementedError) as error:
        outcome = type(error).__name__
        named = "flipped" in str(error) or "column '" in str(error) or "memory_budget" in str(error)
        assert named, (trial, str(error))
        str(error).encode()
    else:
        assert loader.memory()["total"]["peak_bytes"] <= 64 << 20, trial
        assert seen == pq.read_metadata(target).num_rows, trial
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
print(outcomes)
"""


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_never_end_in_a_signal(write_parquet: Any, seed: int) -> None:
    """22: corrupted files: an error that names the file or all rows; never a signal, a hang or a missing
    row."""
    types = {name: make.NUMBER_TYPES[name] for name in ("int8", "int64", "float64", "bool", "decimal128_38")}
    types |= {"l": make.nested_list(pa.int16(), 2), "s": pa.string()}
    table = make.table_of(types, 500, nulls=[0, 0.2][seed % 2], key=seed)
    table = table.append_column("c", pa.array(["ab", "c", "de", "f", "a"] * 100).dictionary_encode())
    path = write_parquet(
        table,
        row_group_size=200,
        compression=["none", "snappy", "zstd", "gzip"][seed],
        data_page_version=["1.0", "2.0"][seed // 2],
        write_page_checksum=seed == 1,
        use_dictionary=["c"] if seed == 2 else True,
    )
    done = run_python(FLIPS, path, str(seed), "500", limit=8 << 30)
    assert done.returncode == 0, (done.returncode, done.stdout[-200:], done.stderr[-2000:])
    print(done.stdout.splitlines()[-1])


# --- Arguments that do not fit the data -------------------------------------------------------------------


def test_unknown_columns_come_with_a_near_miss(numbers: str) -> None:
    """An unknown column is a ValueError that names it, what there is, and what may have been meant."""
    fails(
        ValueError,
        r"column 'X' is not in .*data\.parquet'; did you mean 'x'\? Columns: x, y",
        numbers,
        columns=["X"],
    )
    fails(ValueError, "'nothing_like_it'.*Columns: x, y", numbers, columns=["x", "nothing_like_it"])
    fails(ValueError, "'x' is given twice", numbers, columns=["x", "x"])
    fails(ValueError, "no column", numbers, columns=[])
    fails(ValueError, "'z'.*Columns", numbers, transforms={"a": ps.col("z") | ps.ops.clip(0)})
    fails(ValueError, "filter.*'zz'.*Columns: x, y", numbers, filter=pc.field("zz") > 1)
    fails(ValueError, "nested|inside a column", numbers, filter=pc.field("x", "y") > 1)


def test_filters_of_a_wrong_type_say_what_does_not_fit(numbers: str) -> None:
    """A filter that compares types that do not compare, or is no condition, is an error with the types."""
    fails(ValueError, r'x > "a".*x: int64', numbers, filter=pc.field("x") > "a")
    fails(ValueError, "int64.*boolean", numbers, filter=pc.field("x") + 1)
    fails(TypeError, "pyarrow.compute expression", numbers, filter=[("x", ">", 1)])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        *(({"batch_size": size}, ValueError) for size in (0, -1)),
        *(({"batch_size": size}, TypeError) for size in (1.0, True, "10", None)),
        *(
            ({"memory_budget": text}, ValueError)
            for text in ("", "many", "12 potatoes", "-1GiB", "1e400GiB", 0, -5)
        ),
        *(({"memory_budget": value}, TypeError) for value in (1.5, True, None)),
    ],
)
def test_sizes_that_are_none_are_refused(
    numbers: str, options: dict[str, Any], error: type[Exception]
) -> None:
    """A batch size or budget out of range is a ValueError, of a wrong type a TypeError, naming the
    argument."""
    fails(error, "batch_size|memory_budget|not a size", numbers, **options)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_budget_too_small_names_the_least_that_works_and_that_works(numbers: str, num_workers: int) -> None:
    """16: smaller than the minimum is an error that names the number; the number works; one byte less does
    not."""
    options: dict[str, Any] = {"format": "numpy", "batch_size": 300, "num_workers": num_workers}
    with pytest.raises(ValueError, match=r"the least that works here is \d+ bytes") as refused:
        ps.Loader(numbers, memory_budget=1000, **options)
    least = int(re.search(r"is (\d+) bytes", str(refused.value))[1])  # type: ignore[index]
    fails(ValueError, f"is {least} bytes", numbers, memory_budget=least - 1, **options)
    loader = ps.Loader(numbers, memory_budget=least, **options)
    assert make.joined(loader)["x"].tolist() == list(range(1000))
    assert loader.memory()["total"]["peak_bytes"] <= least


def test_a_budget_above_the_memory_is_warned_of(numbers: str) -> None:
    """A budget larger than the memory that this process may use: a RuntimeWarning with both numbers; it
    works."""
    with pytest.warns(RuntimeWarning, match=r"memory_budget is 9.*TiB, but this process may use only"):
        loader = ps.Loader(numbers, memory_budget="9TiB", format="numpy")
    assert len(list(loader)) == 1


# --- Files that change in mid-epoch -----------------------------------------------------------------------

BIG_ROWS = 400_000


def write_big(path: Path, start: int) -> bytes:
    """Files of one size whatever the values are."""
    table = pa.table({"x": np.arange(start, start + BIG_ROWS)})
    pq.write_table(table, path, row_group_size=20_000, use_dictionary=False, compression="none")
    return path.read_bytes()


@pytest.mark.parametrize("is_filtered", [False, True])
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("how", ["overwrite", "truncate", "replace", "remove"])
def test_a_file_that_changes_in_mid_epoch_is_an_error_or_read_as_it_was(
    tmp_path: Path, how: str, victim: int, is_filtered: bool
) -> None:
    """22: a file truncated, overwritten, replaced or removed under way: an error naming it; never mixed
    rows."""
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    expected = np.concatenate([np.arange(BIG_ROWS), np.arange(10**8, 10**8 + BIG_ROWS)])
    for path, start in zip(paths, (0, 10**8), strict=True):
        write_big(path, start)
    other = write_big(tmp_path / "other", 5 * 10**8)
    assert len(other) == paths[victim].stat().st_size
    loader = ps.Loader(
        paths,
        batch_size=1000,
        format="numpy",
        memory_budget="8MiB",
        num_workers=1,
        prefetch_batches=0,
        filter=pc.field("x") >= 0 if is_filtered else None,
    )
    iterator = iter(loader)
    rows = [next(iterator)["x"].copy()]
    if how == "overwrite":
        with paths[victim].open("r+b") as file:
            file.write(other)
    elif how == "truncate":
        os.truncate(paths[victim], len(other) // 2)
    elif how == "replace":
        os.replace(tmp_path / "other", paths[victim])
    else:
        paths[victim].unlink()
    try:
        rows.extend(batch["x"].copy() for batch in iterator)
    except OSError as error:
        assert paths[victim].name in str(error)  # noqa: PT017
        assert re.search("changed since|no such file|Unexpected end", str(error)), str(error)  # noqa: PT017
    else:
        # A file that is open stays what it was under its old inode.
        assert (victim, how) in [(0, "replace"), (0, "remove")]
        assert sum(map(len, rows)) == 2 * BIG_ROWS
    got = np.concatenate(rows)
    np.testing.assert_array_equal(got, expected[: len(got)])
    with pytest.raises(OSError, match=paths[victim].name):
        list(loader)
    assert loader_threads() == []


BEYOND = """
import sys, os
import penstock as ps, pyarrow.compute as pc
loader = ps.Loader(sys.argv[1:], batch_size=1000, format="numpy", memory_budget="2MiB", num_workers=1,
                   prefetch_batches=0, filter=pc.field("x") >= 0)
iterator = iter(loader)
rows = len(next(iterator)["x"])
os.utime(sys.argv[2])
try:
    for batch in iterator:
        rows += len(batch["x"])
except OSError as error:
    print(rows, error)
"""


def test_an_error_found_ahead_of_the_open_slots_is_raised_in_its_place(tmp_path: Path) -> None:
    """3, 22: an error in a later file, met while slots before it are still to be opened, is raised after
    their rows."""
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path in paths:
        write_big(path, 0)
    try:
        done = run_python(BEYOND, *map(str, paths))
    except subprocess.TimeoutExpired:
        pytest.fail("next() hangs")
    assert re.match(r"\d+ .*b\.parquet.*changed since", done.stdout), (done.stdout, done.stderr)
    assert BIG_ROWS - 40_000 <= int(done.stdout.split()[0]) <= BIG_ROWS


# --- Values that do not go through ------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("direct", [True, False])
def test_a_value_that_does_not_fit_is_named_with_its_place(
    write_parquet: Any, num_workers: int, direct: bool
) -> None:
    """A value that does not fit the cast: file, row group, column, row in the row group, and the value."""
    columns = {
        "big": [300 if i == 57 else i % 100 for i in range(90)],
        "s": ["7"] * 57 + ["seven"] + ["1"] * 32,
    }
    columns |= {
        "half": [0.5 if i == 57 else 1.0 for i in range(90)],
        "n": [None if i == 57 else 1 for i in range(90)],
    }
    path = write_parquet(columns, "bad.parquet", row_group_size=20)
    options: dict[str, Any] = {"num_workers": num_workers, "_direct_decode": direct, "batch_size": 7}
    place = r"bad\.parquet', row group 2, column '{}': row 17\b"
    for name, value in {"big": "300", "s": "seven", "half": "0.5"}.items():
        transforms = {name: ps.ops.cast("int8")}
        fails(
            ValueError,
            place.format(name) + f".*{value}.*int8",
            path,
            columns=[name],
            transforms=transforms,
            **options,
        )
    fails(ValueError, place.format("n") + " is null", path, columns=["n"], **options)


BOMB = """
import sys, resource
import penstock as ps
try:
    loader = ps.Loader(sys.argv[1], batch_size=1, format="numpy", memory_budget="64MiB",
                       num_workers=int(sys.argv[2]), transforms={"s": ps.ops.hash_bucket(1000)},
                       _direct_decode=sys.argv[3] == "direct")
except ValueError as error:
    assert "the least that works here is" in str(error), str(error)
    print("refused:", error)
    sys.exit(0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = 0
try:
    for batch in loader:
        assert batch["s"][0] == int(sys.argv[4])
        rows += 1
except (MemoryError, ValueError) as error:
    assert "bomb.parquet" in str(error) and "row group 0" in str(error), str(error)
else:
    assert rows == 2000, rows
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
peak = loader.memory()["total"]["peak_bytes"]
assert peak <= 64 << 20, peak
assert grown <= (64 << 20) * 1.05 + (64 << 20), grown
print(rows, peak >> 20, grown >> 20)
"""


@pytest.mark.parametrize("way", ["direct", "arrow"])
@pytest.mark.parametrize("kind", ["dictionary", "plain"])
def test_a_decompression_bomb_stays_within_the_budget(write_parquet: Any, kind: str, way: str) -> None:
    """19: 2,000 equal strings of 1 MB in a tiny file: read within 64 MiB or a clear error, by ledger and
    process."""
    text = "x" * 1_000_000
    forty = pa.DictionaryArray.from_arrays(pa.array([0] * 40), [text]).cast(pa.string())
    options = {"compression": "zstd", "use_dictionary": kind == "dictionary", "row_group_size": 2000}
    path = write_parquet({"s": pa.chunked_array([forty] * 50)}, "bomb.parquet", **options)
    assert Path(path).stat().st_size < 1_000_000
    # XXH64 of a million bytes, by another way: the same value alone in a file.
    alone = write_parquet({"s": [text]}, "alone.parquet")
    (batch,) = ps.Loader(alone, format="numpy", transforms={"s": ps.ops.hash_bucket(1000)})
    for num_workers in (0, 2):
        done = run_python(BOMB, path, str(num_workers), way, str(batch["s"][0]))
        assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
        print(done.stdout)
        if (kind, way) == ("dictionary", "direct"):
            assert done.stdout.startswith("2000 ")


def test_columns_are_no_tables() -> None:
    """Whoever gives a single column hears what to give."""
    pl = pytest.importorskip("polars")
    for column in (pa.chunked_array([[1, 2]]), pl.Series([1, 2])):
        with pytest.raises(TypeError, match=r"is a single column, not a table; give a table"):
            ps.Loader(column, format="numpy")


def test_types_that_arrow_cannot_import_name_their_column() -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"x": [1], "wide": pl.Series([1], dtype=pl.Int128)})
    with pytest.raises((TypeError, ValueError), match=r"column 'wide' of the polars.*DataFrame"):
        ps.Loader(frame, format="numpy")


@pytest.mark.parametrize("code", [-1, 2, 7])
def test_fill_codes_are_codes_of_the_dictionary(code: int) -> None:
    """In Arrow's formats a code that is not there would point out of the dictionary."""
    table = pa.table({"d": pa.array(["a", None, "b"]).dictionary_encode()})
    message = rf"column 'd': fill_null: the code {code} is not in the dictionary, which has 2 entries"
    filled: list[dict[str, Any]] = [{"nulls": {"d": code}}, {"transforms": {"d": ps.ops.fill_null(code)}}]
    for options in filled:
        for format in ("arrow", "pandas"):
            with pytest.raises(ValueError, match=message):
                ps.Loader(table, format=format, **options)
        loader = ps.Loader(table, format="numpy", **options)
        assert [value for batch in loader for value in batch["d"].tolist()] == [0, code, 1]
