"""Small Parquet files, and streams of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from torchnn.data.batches import Batch
from torchnn.tables.parquet import ParquetFiles
from torchnn.tables.schema import schema_of_numbers
from torchnn.tables.stream import Stream, stream_for_model
from torchnn.training import TabularDataModule


def write(path: Path, table: pa.Table, groups: Sequence[int] | int = 100) -> str:
    """A Parquet file with row groups of these sizes, zero allowed."""
    sizes = [groups] * -(-len(table) // groups) if isinstance(groups, int) else groups
    with pq.ParquetWriter(path, table.schema) as file:
        start = 0
        for size in sizes:
            file.write_table(table.slice(start, size), row_group_size=max(1, size))
            start += size
    return str(path)


def mixed(num_rows: int, seed: int = 0) -> pa.Table:
    """A table of numbers, categories, booleans and times with missing values, a group, a weight, an id and a target."""
    random = np.random.default_rng(seed)

    def with_missing(values: Any) -> pa.Array:
        return pa.array(values, mask=random.random(num_rows) < 0.1)

    x = random.standard_normal(num_rows) * 3 + 100
    return pa.table(
        {
            "id": [f"r{i:05d}" for i in range(num_rows)],
            "x": with_missing(x),
            "n": pa.array(random.integers(0, 50, num_rows), pa.int16()),
            "word": with_missing(random.choice(["a", "b", "c"], num_rows)),
            "flag": with_missing(random.random(num_rows) < 0.5),
            "day": with_missing(
                random.integers(1_500_000_000_000_000, 1_600_000_000_000_000, num_rows).astype("datetime64[us]")
            ),
            "group": random.integers(0, 40, num_rows),
            "weight": random.random(num_rows) + 0.5,
            "y": np.where(x + 3 * random.standard_normal(num_rows) > 100, "yes", "no"),
        }
    )


def module(path: Any, **options: Any) -> TabularDataModule:
    return TabularDataModule(path, **{"target": "y", "stream": True, **options})


def numbered(folder: Path, groups: Sequence[int], name: str = "n.parquet") -> Stream:
    """A stream whose only column is the number of the row."""
    path = Path(write(folder / name, pa.table({"x": np.arange(sum(groups), dtype=np.float32)}), groups))
    return stream_for_model(ParquetFiles([path], 10), schema_of_numbers(["x"], "", ("0", "1")))


def rows_of(batches: Iterable[Batch]) -> list[int]:
    """The numbers of the rows; their values must equal their numbers."""
    found = list(batches)
    for batch in found:
        assert torch.equal(batch.features[:, 0], batch.row.float())
        assert len(batch.row) == len(batch.target) == len(batch.features)
    return [row for batch in found for row in batch.row.tolist()]
