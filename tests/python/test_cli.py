"""The command line: reports, exit codes, one line for what is wrong, nothing but that in a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pytest
from penstock._cli import main


@pytest.fixture
def flights(write_parquet: Any) -> str:
    table = pa.table(
        {
            "delay": pa.array(range(500), pa.int32()),
            "carrier": [f"c{i % 7}" for i in range(500)],
            "distance": pa.array([float(i) for i in range(500)]),
            "stops": pa.array([["a"]] * 500),
        }
    )
    return str(write_parquet(table, "flights.parquet", row_group_size=100))


def run_main(*args: str) -> int:
    """The exit code, also where argparse ends the process."""
    try:
        return main(args)
    except SystemExit as end:
        return int(end.code or 0)


def test_run_streams_an_epoch_and_reports(numbers: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main("run", numbers, "--batch-size", "100") == 0
    out, err = capsys.readouterr()
    assert "rows" in out
    assert err == ""


def test_run_as_json(numbers: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--columns", "x", "--memory-budget", "64MiB", "--workers", "1", "--prefetch", "2"]
    code = run_main(
        "run", numbers, "--json", "--batch-size", "100", "--epochs", "2", "--limit", "950", *options
    )
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["rows"], report["batches"], report["epochs"]) == (1900, 20, 2)
    assert report["budget_bytes"] == 64 << 20
    assert report["num_workers"] == 1


@pytest.mark.parametrize("format", ["numpy", "torch", "arrow"])
def test_run_in_each_format(numbers: str, format: str, capsys: pytest.CaptureFixture[str]) -> None:
    if format == "torch":
        pytest.importorskip("torch")
    assert run_main("run", numbers, "--format", format, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1000


def test_run_shuffles_by_seed_and_window(numbers: str, capsys: pytest.CaptureFixture[str]) -> None:
    window = ["--shuffle", "--seed", "7", "--shuffle-window", "1MiB"]
    assert run_main("run", numbers, "--json", "--epochs", "2", *window) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == 2000
    assert 0 < report["memory"]["shuffle"]["peak_bytes"] <= 1 << 20
    assert run_main("run", numbers, "--json") == 0
    assert json.loads(capsys.readouterr().out)["memory"]["shuffle"]["peak_bytes"] == 0
    assert run_main("run", numbers, "--memory-budget", "1MiB", "--shuffle") == 1  # A window of 256 MiB.
    err = capsys.readouterr().err
    assert "shuffle_window" in err
    assert len(err.splitlines()) == 1


def test_run_takes_the_order_from_its_seed(numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[list[int]] = []

    class Recorded(ps.Loader):
        def __iter__(self) -> Any:
            orders.append([x for batch in super().__iter__() for x in batch["x"].tolist()])
            return iter(())

    monkeypatch.setattr(ps, "Loader", Recorded)
    for seed in ("7", "7", "8"):
        assert run_main("run", numbers, "--columns", "x", "--shuffle", "--seed", seed) == 0
    first, again, other = orders
    assert first == again != other
    assert sorted(first) == sorted(other)


def test_run_says_which_columns_it_left_out(write_parquet: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tags = pa.array([[("k", 1)]] * 5, pa.map_(pa.string(), pa.int8()))
    path = write_parquet({"delay": range(5), "carrier": list("abcde"), "tags": tags})
    assert run_main("run", path, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"] == 5
    assert len(err.splitlines()) == 1
    assert "left out, since they have no tensor form: tags " in err


def test_run_hashes_the_chosen_strings(flights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main("run", flights, "--columns", "carrier,delay", "--hash-strings", "10") == 0
    assert capsys.readouterr().err == ""


def test_inspect_shows_files_and_costs(flights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main("inspect", flights, "--batch-size", "50") == 0
    out, _ = capsys.readouterr()
    assert "1 files, 5 row groups, 500 rows" in out
    assert "carrier" in out
    assert "least" in out
    assert run_main("inspect", flights, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"]["rows"] == report["explanation"]["rows"] == 500
    assert report["explanation"]["least_budget_bytes"] > 0


def test_inspect_without_any_tensor_form_still_shows_the_files(
    write_parquet: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_parquet({"tags": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8()))})
    assert run_main("inspect", path) == 0
    out, err = capsys.readouterr()
    assert "tags" in out
    assert "--hash-strings" in err
    assert run_main("inspect", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["explanation"] is None


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["walk"],
        ["run"],
        ["run", "f", "--batch-size", "0"],
        ["run", "f", "--batch-size", "many"],
        ["run", "f", "--memory-budget", "lots"],
        ["run", "f", "--columns", "a,,b"],
        ["run", "f", "--workers", "-1"],
        ["run", "f", "--step-ms", "-1"],
        ["run", "f", "--shuffle", "--seed", "-1"],
        ["run", "f", "--shuffle-window", "wide"],
        ["run", "f", "--format", "jax"],
        ["inspect", "f", "--epochs", "2"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(*args) == 2
    assert "usage: penstock" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main("--version") == 0
    assert capsys.readouterr().out == f"penstock {ps.__version__}\n"


def test_bad_input_is_one_line_that_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and nothing else that makes sense PAR1")
    for command in ("run", "inspect"):
        for path in (str(broken), str(tmp_path / "absent.parquet")):
            assert run_main(command, path) == 1
            out, err = capsys.readouterr()
            assert out == ""
            assert len(err.splitlines()) == 1, err
            assert Path(path).name in err
            assert err.startswith("penstock: error: ")


def test_what_cannot_work_is_one_line(numbers: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main("run", numbers, "--memory-budget", "1000") == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "memory_budget" in err
    assert run_main("run", numbers, "--columns", "nope") == 1
    assert "nope" in capsys.readouterr().err


def test_warnings_are_one_line(numbers: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main("run", numbers, "--workers", "1000", "--limit", "1", "--columns", "x") == 0
    err = capsys.readouterr().err
    assert err.startswith("penstock: warning: num_workers=1000")
    assert len(err.splitlines()) == 1


def read_all(terminal: int) -> str:
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # The other end is closed.
            return shown.decode()


def test_progress_on_a_terminal_and_nothing_in_a_pipe(numbers: str) -> None:
    command = [sys.executable, "-m", "penstock._cli", "run", numbers, "--step-ms", "1", "--batch-size", "100"]
    quiet = subprocess.run(command, capture_output=True, timeout=150, check=True)
    assert quiet.stderr == b""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # Rows, columns, pixels.
    try:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=slave, timeout=150, check=True)
        os.close(slave)
        shown = read_all(master)
    finally:
        os.close(master)
    assert "epoch 1/1" in shown
    assert "1.00k/1.00k" in shown


def test_a_reader_that_leaves_is_no_error_message(numbers: str) -> None:
    command = f"{sys.executable} -m penstock._cli inspect {numbers} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=150, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "options", [["--columns", "n"], ["--columns", "s", "--hash-strings", "9"], ["--columns", "s"]]
)
def test_a_missing_value_is_told_of_in_terms_of_the_options(
    write_parquet: Any, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    path = str(write_parquet(pa.table({"n": [1, None], "s": ["a", None]}), "nulls.parquet"))
    assert run_main("run", path, *options) == 1
    err = capsys.readouterr().err
    assert "; pass --nulls mask" in err
    assert "nulls=" not in err
    assert "ps.ops" not in err
    assert run_main("run", path, *options, "--nulls", "mask") == 0


def test_inspect_advises_no_options_that_it_lacks(
    write_parquet: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = pa.array([[("k", 1)]] * 5, pa.map_(pa.string(), pa.int8()))
    assert run_main("inspect", str(write_parquet({"x": range(5), "tags": tags}))) == 0
    err = capsys.readouterr().err
    assert "left out, since they have no tensor form: tags" in err
    assert "--" not in err


@pytest.mark.parametrize("suffix", ["arrow", "csv"])
def test_what_inspect_does_not_know_is_no_number(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / f"data.{suffix}")
    table = pa.table({"x": [1, 2, 3]})
    if suffix == "csv":
        pa.csv.write_csv(table, path)
    else:
        pa.feather.write_feather(table, path)
    assert run_main("inspect", path) == 0
    out = capsys.readouterr().out
    summary = out[: out.index("data  ")]
    assert " 0 B" not in summary
    assert next(line for line in summary.splitlines() if line.startswith("x ")).split() == [
        *("x", "int64", "may", "-", "-")
    ]


def test_a_limit_of_errors_needs_skipping(numbers: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main("run", numbers, "--max-errors", "3") == 2
    assert "--max-errors is for --on-error skip" in capsys.readouterr().err
    assert run_main("run", numbers, "--max-errors", "3", "--on-error", "skip") == 0
