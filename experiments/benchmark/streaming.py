"""Training from Parquet: rows per second against the same table in memory, and the peak memory of a large table.

`python -m experiments.benchmark.streaming TABLE FOLDER` is the process whose memory is measured. It reports its own
peak, because `getrusage` includes the memory of the process that started it.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.common.memory import peak_bytes_of_process
from torchnn.cli import main
from torchnn.training import BinaryClassifier, TabularDataModule

from .memory import REPOSITORY, MemoryMeasurementError
from .training import BATCH, SIZES, rows_per_second

ROWS, ROUNDS = 2_000_000, 3
LARGE_ROWS, LARGE_COLUMNS, LARGE_BATCH = 50_000_000, 10, 16_384
ROWS_OF_A_GROUP = 500_000


@dataclass(frozen=True)
class Streaming:
    """Rows per second of an epoch of training."""

    of_stream: float
    of_memory: float

    @property
    def ratio(self) -> float:
        return self.of_stream / self.of_memory


@dataclass(frozen=True)
class LargeTable:
    """The cost of `torchnn fit` for one epoch of a table, with validation and test."""

    num_rows: int
    parquet_bytes: int
    peak_bytes: int
    seconds: float


class LargeTableError(MemoryMeasurementError):
    """`torchnn fit` failed."""


def write_table(path: Path, num_rows: int, num_columns: int, rows_of_a_group: int = ROWS_OF_A_GROUP) -> None:
    """Write normally distributed features x0, x1, … and a label y from a noisy linear rule, in row groups."""
    random = np.random.default_rng(0)
    rule = random.standard_normal(num_columns) / num_columns**0.5
    names = [f"x{i}" for i in range(num_columns)]
    schema = pa.schema([*((name, pa.float32()) for name in names), ("y", pa.int8())])
    with pq.ParquetWriter(path, schema, use_dictionary=False) as file:
        for start in range(0, num_rows, rows_of_a_group):
            x = random.standard_normal((num_columns, min(rows_of_a_group, num_rows - start)), dtype=np.float32)
            y = (rule @ x + random.standard_normal(x.shape[1]) > 0).astype(np.int8)
            file.write_table(pa.table([*x, y], schema=schema))


def measure_streaming(num_rows: int = ROWS, rounds: int = ROUNDS) -> Streaming:
    """Measure both in turn, each time with a new model; returns the medians of the rounds."""
    found: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.parquet")
        write_table(path, num_rows, SIZES[0])
        data = {stream: TabularDataModule(str(path), "y", batch_size=BATCH, stream=stream) for stream in found}
        for _ in range(rounds):
            for stream, seen in found.items():
                model = BinaryClassifier(SIZES[0], SIZES[1:-1])
                model.preprocess.fit(data[False].training_features())
                num_trained = data[stream].source.num_rows["train"]
                seen.append(rows_per_second(model, data[stream].train_dataloader(), num_trained))
    return Streaming(median(found[True]), median(found[False]))


def measure_large_table(num_rows: int = LARGE_ROWS) -> LargeTable:
    """Run one epoch of `torchnn fit` in its own process.

    Raises:
        LargeTableError: the command failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.parquet")
        write_table(path, num_rows, LARGE_COLUMNS)
        start = time.perf_counter()
        command = [sys.executable, "-m", f"{__package__}.streaming", str(path), folder]
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        if done.returncode != 0:
            raise LargeTableError(f"torchnn fit on {num_rows:,} rows failed: {done.stderr.strip()}")
        seconds = time.perf_counter() - start
        return LargeTable(num_rows, path.stat().st_size, int(done.stdout.split()[-1]), seconds)


if __name__ == "__main__":
    table, folder = sys.argv[1:]
    words = f"fit --data.path {table} --data.target y --data.stream true --data.batch_size {LARGE_BATCH}"
    main([*words.split(), "--trainer.max_epochs", "1", "--trainer.default_root_dir", folder])
    sys.stdout.write(f"{peak_bytes_of_process()}\n")
