"""Predictions to a file: each row once, in the order of the table, whatever the number of processes."""

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import torch
from lightning.pytorch.callbacks import Callback

from torchnn.tables.table import Table

FORMATS = (".csv", ".tsv", ".parquet")


class PredictionFile(Callback):
    """Gathers the predictions of all processes and writes them as one table.

    Args:
        path: .csv, .tsv or .parquet; must not exist yet.

    Raises:
        ValueError: another suffix, no such folder, or a file that exists.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in FORMATS:
            raise ValueError(f"{path} has no suffix of {', '.join(FORMATS)}: choose one.")
        if path.exists():
            raise ValueError(f"{path} exists: give a new file, or remove it first.")
        if not path.parent.is_dir():
            raise ValueError(f"{path.parent} is no folder: make it first.")
        self.path = path
        self.batches: list[dict[str, torch.Tensor]] = []

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.batches = []

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.batches.append({name: values.cpu() for name, values in outputs.items()})

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        names = ("row", "probability", "label") if self.batches else ()
        own = {name: torch.cat([batch[name] for batch in self.batches]).numpy() for name in names}
        parts = [part for part in gathered(own, trainer) if part]
        if trainer.is_global_zero:
            together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            write_atomically(as_arrow(together, data.table), self.path)


def gathered(own: Any, trainer: pl.Trainer) -> list[Any]:
    """What every process has, on the first process; elsewhere nothing."""
    if trainer.world_size == 1:
        return [own]
    parts: list[Any] = [None] * trainer.world_size
    torch.distributed.gather_object(own, parts if trainer.is_global_zero else None)
    return parts


def as_arrow(columns: dict[str, np.ndarray], table: Table) -> pa.Table:
    """Number or id of each row, probability of class 1, and label by name, in the order of the rows.

    >>> table = Table(torch.zeros(2, 1), torch.zeros(2), ("x",), ("no", "yes"))
    >>> columns = {"row": np.array([1, 0]), "probability": np.array([0.9, 0.2]), "label": np.array([1, 0])}
    >>> as_arrow(columns, table).to_pydict()
    {'row': [0, 1], 'probability': [0.2, 0.9], 'label': ['no', 'yes']}
    """
    order = np.argsort(columns["row"])
    rows = columns["row"][order]
    classes = pa.array(table.classes)
    ids = {"row": pa.array(rows)} if table.ids is None else {table.id_name: table.ids.take(pa.array(rows))}
    return pa.table(
        {**ids, "probability": columns["probability"][order], "label": classes.take(pa.array(columns["label"][order]))}
    )


def write_atomically(table: pa.Table, path: Path) -> None:
    """Write a file that is either whole or not there."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix.lower() == ".parquet":
            pq.write_table(table, unfinished)
        else:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            pacsv.write_csv(table, unfinished, pacsv.WriteOptions(delimiter=delimiter, quoting_style="needed"))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
