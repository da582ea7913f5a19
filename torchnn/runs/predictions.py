"""Predictions in a file: each row once, in the order of the table, for any number of processes."""

import glob
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import lightning.pytorch as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import torch
from lightning.pytorch.callbacks import Callback
from pyarrow import ipc

from torchnn.files import replacing

FORMATS = (".csv", ".tsv", ".parquet")
ROWS_AT_A_TIME = 65_536


class PredictionError(ValueError):
    """Predictions cannot be written as one table; the message is one sentence."""


class PredictionFile(Callback):
    """Writes the predictions of all processes as one table, without keeping them in memory.

    Each process writes the predictions of its rows, in order, to a temporary file next to the wanted one. The first
    process then merges these files, and the wanted file appears when it is complete. Before anything is predicted the
    first process checks that it sees the files of all others, and at the end that they hold all predicted rows.

    Args:
        path: a new .csv, .tsv or .parquet file, in a folder that all processes share.

    Raises:
        ValueError: another suffix, a folder that does not exist, or a file that exists.
        PredictionError: when it runs, a folder that the processes do not share.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in FORMATS:
            raise ValueError(f"{path} does not end in {', '.join(FORMATS)}: choose one of them.")
        if path.exists():
            raise ValueError(f"{path} exists: give a new file, or remove it first.")
        if not path.parent.is_dir():
            raise ValueError(f"{path.parent} is not a folder: create it first.")
        self.path = path
        self.run = ""
        self.own: Spill | None = None

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The name of the run keeps files that an earlier run has left from being merged.
        self.run = trainer.strategy.broadcast(uuid.uuid4().hex[:8])
        if trainer.is_global_zero:
            for path in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.arrow"):
                path.unlink(missing_ok=True)
        trainer.strategy.barrier("leftovers are removed")
        self.own = Spill(self._spilled(trainer.global_rank))
        trainer.strategy.barrier("every process has its file")
        missing = trainer.strategy.broadcast(sum(not path.exists() for path in self._all_spilled(trainer)))
        if missing:
            raise PredictionError(
                f"--output {self.path}: the first process does not see the files of {missing} of the "
                f"{trainer.world_size} processes: give a folder that all hosts share."
            )

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert self.own is not None
        ids = getattr(batch, "ids", None)
        self.own.add(as_arrow(outputs, data.schema.classes, ids, data.source.id_name))

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.own is not None
        self.own.close()
        own_rows = torch.tensor(self.own.num_rows, device=pl_module.device)
        predicted = int(trainer.strategy.reduce(own_rows, reduce_op="sum"))  # waits until every process has written
        seen = predicted
        if trainer.is_global_zero:
            seen = sum(map(rows_of_spill, self._all_spilled(trainer)))
            if seen == predicted:
                write_table(merged([read_spill(path) for path in self._all_spilled(trainer)]), self.path)
        seen = trainer.strategy.broadcast(seen)  # waits until the first process has merged
        self.own.remove()
        if seen != predicted:
            raise PredictionError(
                f"--output {self.path}: {predicted:,} rows were predicted, but the first process finds {seen:,} of "
                "them in its folder: give a folder that all hosts share."
            )

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self.own is not None:
            self.own.remove()

    def _spilled(self, rank: int) -> Path:
        return self.path.with_name(f".{self.path.name}.{self.run}.{rank}.arrow")

    def _all_spilled(self, trainer: pl.Trainer) -> list[Path]:
        return [self._spilled(rank) for rank in range(trainer.world_size)]


class Spill:
    """A temporary file of tables, which are collected and written in larger parts; it is empty if there is no row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: list[pa.Table] = []
        self.writer: Any = None
        self.num_rows = 0
        path.touch()

    def add(self, table: pa.Table) -> None:
        if not len(table):
            return
        self.num_rows += len(table)
        self.waiting.append(table)
        if sum(map(len, self.waiting)) >= ROWS_AT_A_TIME:
            self._write()

    def _write(self) -> None:
        table = pa.concat_tables(self.waiting).combine_chunks()
        if self.writer is None:
            self.writer = ipc.new_file(str(self.path), table.schema)
        self.writer.write_table(table)
        self.waiting = []

    def close(self) -> None:
        if self.waiting:
            self._write()
        if self.writer is not None:
            self.writer.close()

    def remove(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.path.unlink(missing_ok=True)


def read_spill(path: Path) -> Iterator[pa.Table]:
    """The tables of a temporary file, one at a time."""
    if not path.stat().st_size:
        return
    with pa.OSFile(str(path)) as file, ipc.open_file(file) as spilled:
        for number in range(spilled.num_record_batches):
            yield pa.Table.from_batches([spilled.get_batch(number)])


def rows_of_spill(path: Path) -> int:
    """The number of rows of a temporary file; 0 if it does not exist."""
    return sum(map(len, read_spill(path))) if path.exists() else 0


def merged(parts: Sequence[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """The rows of several sequences of tables in the order of the first column, in which each sequence is.

    >>> parts = [[pa.table({"row": [0, 3]})], [pa.table({"row": [1]}), pa.table({"row": [2]})]]
    >>> [row for table in merged([iter(part) for part in parts]) for row in table["row"].to_pylist()]
    [0, 1, 2, 3]
    """
    heads = {number: table for number, part in enumerate(parts) if (table := next(part, None)) is not None}
    while heads:
        # All rows that are still to come are after the end of the head that ends first.
        limit = min(head[0][-1].as_py() for head in heads.values())
        taken = []
        for number, head in list(heads.items()):
            count = pc.sum(pc.less_equal(head[0], limit)).as_py()
            taken.append(head.slice(0, count))
            rest = head.slice(count) if count < len(head) else next(parts[number], None)
            if rest is None:
                del heads[number]
            else:
                heads[number] = rest
        together = pa.concat_tables(taken)
        yield together.take(pc.sort_indices(together[0])) if len(taken) > 1 else together


def as_arrow(outputs: Any, classes: Sequence[str], ids: Any, id_name: str) -> pa.Table:
    """The number of each row, its id if it has one, the probability of class 1, and the name of its class.

    >>> import torch
    >>> outputs = {name: torch.tensor([value]) for name, value in (("row", 7), ("probability", 0.5), ("label", 1))}
    >>> as_arrow(outputs, ("no", "yes"), None, "row").to_pydict()
    {'': [7], 'row': [7], 'probability': [0.5], 'label': ['yes']}
    """
    row, probability, label = (pa.array(outputs[name].cpu().numpy()) for name in ("row", "probability", "label"))
    if ids is not None and pa.types.is_dictionary(ids.type):
        ids = pc.cast(ids, ids.type.value_type)  # dictionaries differ between the parts of a table
    ids = row if ids is None else ids
    columns = [row, ids, probability, pa.array(classes).take(label)]
    return pa.Table.from_arrays(columns, names=["", id_name, "probability", "label"])


def write_table(tables: Iterator[pa.Table], path: Path) -> None:
    """Write tables to one file, without their first column, which only orders the rows. No tables, no file."""
    kept = (table.drop_columns([table.column_names[0]]) for table in tables)
    first = next(kept, None)
    if first is None:
        return
    with replacing(path) as file, _writer(file, path.suffix.lower(), first.schema) as writer:
        writer.write_table(first)
        for table in kept:
            writer.write_table(table)


def _writer(file: IO[bytes], suffix: str, schema: pa.Schema) -> Any:
    if suffix == ".parquet":
        return pq.ParquetWriter(file, schema)
    delimiter = "\t" if suffix == ".tsv" else ","
    return pacsv.CSVWriter(file, schema, write_options=pacsv.WriteOptions(delimiter=delimiter, quoting_style="needed"))
