"""Rows per second of a whole training: torchnn's recipe against a plain one, with the same Trainer."""

import logging
import time
import warnings
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from torchnn.data.batches import BatchLoader
from torchnn.tables.table import Table
from torchnn.training import BinaryClassifier

from .contenders import sequential
from .problems import Point, make_problem

ROWS, BATCH, SIZES = 500_000, 4096, (28, 64, 64, 1)
EPOCHS = 2  # after one warm-up epoch
LR, WEIGHT_DECAY = 0.01, 0.1  # the same for both


@dataclass(frozen=True)
class Training:
    """Rows per second of both recipes."""

    of_ours: float
    of_plain: float

    @property
    def ratio(self) -> float:
        return self.of_ours / self.of_plain


class PlainClassifier(pl.LightningModule):
    """The obvious LightningModule."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.criterion = sequential(SIZES), nn.BCELoss()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss: Tensor = self.criterion(self.model(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)


class EpochTimes(Callback):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.start = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def measure_training(num_rows: int = ROWS) -> Training:
    problem = make_problem(Point(SIZES, num_rows))
    plain_data: Any = DataLoader(TensorDataset(problem.x, problem.y), batch_size=BATCH, shuffle=True)
    names = tuple(f"x{i}" for i in range(SIZES[0]))
    table = Table(features=problem.x, target=problem.y.squeeze(1), columns=names, classes=("no", "yes"))
    our_data = BatchLoader(table, torch.arange(num_rows), BATCH, shuffle_seed=0)
    our_model = BinaryClassifier(SIZES[0], SIZES[1:-1], lr=LR, weight_decay=WEIGHT_DECAY, lr_scheduler=None)
    our_model.preprocess.fit(problem.x)
    of_plain = rows_per_second(PlainClassifier(), plain_data, num_rows)
    return Training(rows_per_second(our_model, our_data, num_rows), of_plain)


def rows_per_second(model: pl.LightningModule, data: Any, num_rows: int) -> float:
    """Train, and return the rows per second of the epochs after the first."""
    times = EpochTimes()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on workers and logging intervals
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1 + EPOCHS,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[times],
        )
        trainer.fit(model, data)
    return num_rows * EPOCHS / sum(times.seconds[1:])
