"""Writes nycflights13 (336,776 flights, CC0) as Parquet, as pyarrow writes it: prepare.py CSV_FOLDER OUT.

OUT/train/ gets 80 % of the flights in 8 files, OUT/held_out/ the rest in 2; which ones is drawn, with a fixed
seed. Both are in order of time, as such data comes: mixing the rows is left to the loader.
"""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

SEED = 7
CONVERT = pa.csv.ConvertOptions(strings_can_be_null=True)  # "NA" is null in text columns too.


def read_flights(folder: Path) -> pa.Table:
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        flights = pa.csv.read_csv(file, convert_options=CONVERT)
    planes = pa.csv.read_csv(folder / "planes.csv", convert_options=CONVERT).select(["tailnum", "year"])
    # The year in which the plane was built: unknown for every sixth flight.
    return flights.join(planes.rename_columns(["tailnum", "built"]), keys="tailnum")  # Left outer.


def write(flights: pa.Table, folder: Path, num_files: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = -(-flights.num_rows // num_files)
    for i in range(num_files):
        pq.write_table(flights.slice(i * rows, rows), folder / f"part-{i}.parquet", row_group_size=8192)


def main(source: Path, out: Path) -> None:
    # A join gives its rows in any order: sorted, they and what is drawn of them are the same every time.
    keys = ["time_hour", "carrier", "flight"]
    flights = read_flights(source).sort_by([(key, "ascending") for key in keys])
    drawn = np.random.default_rng(SEED).permutation(flights.num_rows)
    num_train = flights.num_rows * 8 // 10
    write(flights.take(np.sort(drawn[:num_train])), out / "train", 8)
    write(flights.take(np.sort(drawn[num_train:])), out / "held_out", 2)
    print(f"result: {num_train:,} flights to train on, {flights.num_rows - num_train:,} held out")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
