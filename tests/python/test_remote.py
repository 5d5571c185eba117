"""Files behind a server: an S3-compatible one on loopback, behind a proxy that counts, is slow and fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from conftest import loader_threads
from support import assert_within_budget, current_bytes, quiet_loader, rows_of, run_python

pytest.importorskip("moto.server")

ROW_GROUPS, ROWS, COLUMNS = 4, 60_000, 6
COLUMN_BYTES = ROWS * 8
#: Footers are asked for in so many bytes, or all of a smaller file.
FOOTER_BYTES = 64 << 10
ALL = list(range(ROW_GROUPS * ROWS))
NAME = "bucket/wide/data.parquet"


class Server:
    """The process of s3_server.py."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("s3_server.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.endpoints = self.answer()
        self.asked = 0

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.asked += 1
        self.process.stdin.write(json.dumps({"number": self.asked, **command}) + "\n")
        self.process.stdin.flush()
        answer = self.answer()
        assert answer["number"] == self.asked, "an answer was left in the pipe"
        return answer

    def rules(self, *rules: dict[str, Any]) -> None:
        """What fails from now on; the log begins anew."""
        self.ask(rules=list(rules))

    def log(self, method: str = "GET", key: str = ".parquet") -> list[dict[str, Any]]:
        return [
            each
            for each in self.ask(log=True)["log"]
            if each["method"] == method and key in each["path"].split("?")[0]
        ]

    def filesystem(
        self, way: str = "proxy", max_attempts: int = 1, timeout_s: float = 60, **options: Any
    ) -> pyarrow.fs.S3FileSystem:
        return pyarrow.fs.S3FileSystem(
            access_key="key",
            secret_key="secret",
            region="us-east-1",
            scheme="http",
            endpoint_override=self.endpoints[way],
            connect_timeout=timeout_s,
            request_timeout=timeout_s,
            retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts),
            **options,
        )

    def filesystem_for(self, fault: str) -> pyarrow.fs.S3FileSystem:
        """One that has had enough of a silent server after seconds."""
        return self.filesystem(timeout_s=3 if fault == "stall" else 60)

    def uri(self, path: str) -> str:
        endpoint = self.endpoints["proxy"]
        return f"s3://key:secret@{path}?scheme=http&region=us-east-1&endpoint_override={endpoint}"

    def put(self, path: str, table: pa.Table, **options: Any) -> int:
        filesystem = self.filesystem("direct")
        pq.write_table(table, path, filesystem=filesystem, **options)
        return int(filesystem.get_file_info(path).size)


def wide_table(seed: int = 0) -> pa.Table:
    """x counts rows; what else there is does not compress."""
    rng = np.random.default_rng(seed)
    columns = {"x": pa.array(ALL, pa.int64())}
    for i in range(1, COLUMNS):
        columns[f"c{i}"] = pa.array(rng.integers(0, 1 << 62, len(ALL)))
    return pa.table(columns)


WIDE = {"row_group_size": ROWS, "compression": "none", "use_dictionary": False, "write_page_checksum": True}


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    before = dict(os.environ)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    server = Server()
    server.filesystem("direct", allow_bucket_creation=True).create_dir("bucket")
    server.put(NAME, wide_table(), **WIDE)
    for part in range(3):
        table = pa.table({"x": pa.array(range(part * 10, part * 10 + 10), pa.int64())})
        server.put(f"bucket/hive/year={2000 + part}/a.parquet", table)
    yield server
    server.process.kill()
    server.process.communicate()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    running.rules()
    yield running
    running.rules()


def wide(server: Server, **options: Any) -> ps.Loader:
    return quiet_loader(
        NAME,
        **{
            "filesystem": server.filesystem(),
            "batch_size": 10_000,
            "num_workers": 2,
            "columns": ["x"],
            **options,
        },
    )


def assert_nothing_left(loader: ps.Loader) -> None:
    loader.close()
    assert loader_threads() == []
    held = current_bytes(loader)
    held.pop("user", None)  # A batch in the traceback of the error.
    assert held == {}


# --- Sources ----------------------------------------------------------------------------------------------


def test_by_uri_and_by_file_system(server: Server) -> None:
    """A file, a list, a pattern and a folder with hive partitions, by s3:// URI and by `filesystem`."""
    parts = [f"bucket/hive/year={year}/a.parquet" for year in (2000, 2001, 2002)]
    for source, expected in [
        (parts[1], range(10, 20)),
        ([parts[2], parts[0]], [*range(20, 30), *range(10)]),
        ("bucket/hive/*/a.parquet", range(30)),
        ("bucket/hive", range(30)),
    ]:
        paths = [source] if isinstance(source, str) else source
        loader = quiet_loader([server.uri(path) for path in paths], batch_size=7)
        assert rows_of(loader) == list(expected)
        assert_nothing_left(loader)
        for num_workers in (0, 2):
            loader = quiet_loader(source, filesystem=server.filesystem(), num_workers=num_workers)
            assert rows_of(loader) == list(expected)
            assert_nothing_left(loader)
    loader = quiet_loader(server.uri("bucket/hive"), columns=["x", "year"], filter=pc.field("year") == 2001)
    assert rows_of(loader, "year") == [2001] * 10
    tree = pyarrow.fs.SubTreeFileSystem("bucket/hive", server.filesystem())
    assert rows_of(quiet_loader("year=2001", filesystem=tree)) == list(range(10, 20))


def test_missing_things_are_named(server: Server) -> None:
    for path in ("bucket/none.parquet", "nobucket/data.parquet"):
        with pytest.raises(FileNotFoundError, match=path):
            quiet_loader(path, filesystem=server.filesystem())
        with pytest.raises(FileNotFoundError, match=path):
            quiet_loader(server.uri(path))
    server.rules({"fault": "403", "method": "HEAD"})
    with pytest.raises(OSError, match=r"data\.parquet"):
        wide(server)


# --- What is asked for ------------------------------------------------------------------------------------


def footers(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in log if each["bytes"] == FOOTER_BYTES]


def test_columns_are_asked_for_in_few_large_requests(server: Server) -> None:
    """One request per row group where all columns are wanted; the read stage counts requests and bytes."""
    loader = wide(server, columns=None)
    rows = rows_of(loader)
    assert rows == ALL
    log = server.log()
    data = [each for each in log if each not in footers(log)]
    assert len(data) == ROW_GROUPS
    assert sum(each["bytes"] for each in data) < ROW_GROUPS * COLUMNS * COLUMN_BYTES * 1.02
    read = loader.stats().to_dict()["stages"]["read"]
    assert read["items"] == len(log)
    assert read["bytes"] == sum(each["bytes"] for each in log)
    assert read["busy_s"] > 0
    assert len(server.log("HEAD")) <= 2 * len(log) + 2
    assert_within_budget(loader)
    assert_nothing_left(loader)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_projection_reads_what_it_needs(server: Server, num_workers: int) -> None:
    """Two columns far apart: two requests per row group, and no bytes of others."""
    loader = wide(server, columns=["x", "c4"], num_workers=num_workers)
    assert rows_of(loader) == ALL
    log = server.log()
    data = [each for each in log if each not in footers(log)]
    assert len(data) == 2 * ROW_GROUPS
    assert sum(each["bytes"] for each in data) < ROW_GROUPS * 2 * COLUMN_BYTES * 1.02
    assert loader.memory()["total"]["peak_bytes"] <= loader.explain().to_dict()["predicted_peak_bytes"]
    assert_nothing_left(loader)


def test_a_filter_reads_no_row_group_that_it_rules_out(server: Server) -> None:
    loader = wide(
        server, filter=(pc.field("x") >= 2 * ROWS) & (pc.field("x") < 2 * ROWS + 5), columns=["c1", "x"]
    )
    assert rows_of(loader) == list(range(2 * ROWS, 2 * ROWS + 5))
    log = server.log()
    assert len(log) - len(footers(log)) == 1
    assert_nothing_left(loader)


def test_requests_are_under_way_together(server: Server) -> None:
    """With slow answers, row groups are asked for ahead and apart: several requests are open at a time."""
    server.rules({"fault": "delay", "seconds": 0.1})
    loader = wide(server, columns=["x", "c2", "c4"])
    assert rows_of(loader) == ALL
    assert server.ask(log=True)["most_at_once"] >= 4
    assert_nothing_left(loader)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_small_budgets_take_smaller_steps(server: Server, num_workers: int) -> None:
    """Row groups that do not fit come in steps, in the least budget by the buffer; rows are the same."""
    requests = []
    options = {"columns": ["x", "c3"], "batch_size": 1000, "num_workers": num_workers, "limit": 2 * ROWS}
    least = wide(server, **options).explain().to_dict()["least_budget_bytes"]
    for budget in (least, least + (2 << 20), 64 << 20):
        loader = wide(server, **options, memory_budget=budget)
        server.rules()
        assert rows_of(loader) == ALL[: 2 * ROWS]
        requests.append(len(server.log()) - 1)  # Without the footer.
        assert_within_budget(loader)
        assert loader.memory()["total"]["peak_bytes"] <= loader.explain().to_dict()["predicted_peak_bytes"]
        assert_nothing_left(loader)
    assert 44 > requests[0] > requests[1] > requests[2] == 4


def beginning_in_row_group(index: int) -> dict[str, int]:
    """What a rule says for the requests of a row group when all columns are wanted."""
    return {"from": index * COLUMNS * COLUMN_BYTES, "to": (index + 1) * COLUMNS * COLUMN_BYTES}


# --- What goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "fault",
    ["cut", "hang_up", "no_http", "403", "404", "500", "503", "garbage", "short", "stall"],
)
def test_a_failing_request_is_an_error_that_names_file_and_row_group(
    server: Server, fault: str, num_workers: int
) -> None:
    """Rows before it come; then one error within seconds; threads joined, accounts at zero."""
    loader = wide(server, columns=None, num_workers=num_workers, filesystem=server.filesystem_for(fault))
    server.rules({"fault": fault, **beginning_in_row_group(2)})
    rows: list[int] = []
    began = time.monotonic()
    with pytest.raises(OSError, match=r"data\.parquet', row group 2") as error:
        rows.extend(row for batch in loader for row in batch["x"].tolist())
    assert time.monotonic() - began < 30
    assert rows == ALL[: 2 * ROWS]
    assert len(str(error.value)) < 600
    assert_nothing_left(loader)


@pytest.mark.parametrize("fault", ["cut", "404", "500", "garbage", "short", "stall"])
def test_a_footer_that_cannot_be_had_is_an_error_of_construction(server: Server, fault: str) -> None:
    def make() -> None:
        wide(server, filesystem=server.filesystem_for(fault)).close()
        print("it went well, with", server.log())

    server.rules({"fault": fault})
    with pytest.raises((OSError, ValueError), match=r"data\.parquet"):
        make()
    assert loader_threads() == []


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_an_answer_that_is_too_short_is_never_taken_for_data(server: Server, kind: str) -> None:
    """Where no checksum tells, either: what stood in memory before would else be rows."""
    path = f"bucket/short/data.{kind}"
    table = wide_table().slice(0, 20_000)
    if kind == "parquet":
        server.put(path, table, compression="none", use_dictionary=False, write_page_checksum=False)
    else:
        with server.filesystem("direct").open_output_stream(path) as file:
            pa.csv.write_csv(table, file)
    loader = quiet_loader(path, filesystem=server.filesystem(), batch_size=1000, num_workers=1)
    rows = rows_of(loader)
    assert rows == ALL[:20_000]
    server.rules({"fault": "short", "from": 1 if kind == "parquet" else 0, "to": 1 << 20})
    with pytest.raises(OSError, match=r"short/data.*fewer bytes than the \d+ that were asked for"):
        rows_of(loader)


@pytest.mark.parametrize("fault", ["cut", "500", "503", "hang_up"])
def test_passing_failures_are_tried_again(server: Server, fault: str) -> None:
    """Each request fails once; the file system's own retries give all rows, by URI and by `filesystem`."""
    for source in ("uri", "filesystem"):
        server.rules({"fault": fault, "times": 3}, {"fault": fault, "method": "HEAD", "skip": 5, "times": 1})
        if source == "uri":
            loader = quiet_loader(server.uri(NAME), columns=["x"], batch_size=10_000)
        else:
            loader = wide(server, filesystem=server.filesystem(max_attempts=5))
        assert rows_of(loader) == ALL
        assert_nothing_left(loader)


@pytest.mark.parametrize("change", ["other size", "same size", "gone"])
def test_an_object_that_changes_in_mid_epoch_is_never_mixed(server: Server, change: str) -> None:
    """Written again or deleted while it is read: an error that names the file, only old rows before it."""
    path = f"bucket/changing/{change.replace(' ', '-')}.parquet"
    small = {
        **WIDE,
        "row_group_size": 10_000,
    }  # So many that some are not asked for when the first rows are here.
    server.put(path, wide_table(), **small)
    time.sleep(1.1 if change == "same size" else 0)  # S3 tells times to the second.
    loader = quiet_loader(
        path, filesystem=server.filesystem(), batch_size=10_000, num_workers=1, prefetch_batches=1
    )
    batches = iter(loader)
    rows = next(batches)["x"].tolist()
    if change == "gone":
        server.filesystem("direct").delete_file(path)
    else:
        table = wide_table(seed=1)
        table = table.set_column(0, "x", pc.negate(table["x"]))
        server.put(path, table.slice(0 if change == "same size" else 10), **small)
    with pytest.raises(OSError, match=re.escape(path)) as error:
        rows.extend(row for batch in batches for row in batch["x"].tolist())
    if change != "gone":
        assert "changed since the loader was made" in str(error.value)
    assert rows == ALL[: len(rows)]
    assert 0 < len(rows) < len(ALL)
    assert_nothing_left(loader)


def test_close_returns_when_the_stalled_read_does(server: Server) -> None:
    """close() while a server says nothing: back after the time that the file system allows, nothing left."""
    loader = wide(server, columns=None, num_workers=1, filesystem=server.filesystem_for("stall"))
    server.rules({"fault": "stall", **beginning_in_row_group(1)})
    assert next(iter(loader))["x"].tolist() == ALL[:10_000]
    began = time.monotonic()
    assert_nothing_left(loader)
    assert time.monotonic() - began < 30


def test_ctrl_c_while_a_read_stalls(server: Server) -> None:
    """next() that waits for a stalled read is interrupted; the epoch ends when the read returns."""
    code = """
        import os, signal, sys, threading
        import pyarrow.fs
        import penstock as ps
        filesystem = pyarrow.fs.S3FileSystem(
            access_key="key", secret_key="secret", region="us-east-1", scheme="http", request_timeout=5,
            endpoint_override=sys.argv[1], retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(1))
        options = {"format": "numpy", "batch_size": 10000, "num_workers": 1}
        loader = ps.Loader(sys.argv[2], filesystem=filesystem, **options)
        batches = iter(loader)
        rows = len(next(batches)["x"])
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
        try:
            for batch in batches:
                rows += len(batch["x"])
        except KeyboardInterrupt:
            print("interrupted after", rows)
        del batches, batch
        loader.close()
        print(loader.memory()["total"]["current_bytes"])
    """
    server.rules({"fault": "stall", **beginning_in_row_group(1)})
    done = run_python(code, server.endpoints["proxy"], NAME)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == ["interrupted after 40000", "0"]


def test_leaving_with_an_open_loader_is_quiet(server: Server) -> None:
    """The interpreter's exit with a loader over S3 in mid-epoch: no message, no crash, no hang."""
    code = """
        import sys
        import penstock as ps
        loader = ps.Loader(sys.argv[1], format="numpy", columns=["x"], batch_size=1000, num_workers=1)
        batches = iter(loader)
        next(batches)
    """
    done = run_python(code, server.uri(NAME))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
