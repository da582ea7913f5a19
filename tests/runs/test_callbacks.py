"""Training stops when the loss or a weight is not finite."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.runs.helpers import trainer
from torchnn.runs.callbacks import StopOnNaN, TrainingDivergedError
from torchnn.training import BinaryClassifier, TabularDataModule


class BadFeatures(pl.Callback):
    """From epoch 1 on, a training row holds NaN."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.current_epoch == 1:
            data.table.features[data.rows["train"][:1]] = torch.nan


class HugeRate(pl.Callback):
    """From epoch 1 on, the learning rate is far too high."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            trainer.optimizers[0].param_groups[0]["lr"] = 1e38


@pytest.mark.parametrize(
    ("fault", "cause"), [(HugeRate, "learning rate 1e.38 is probably too high"), (BadFeatures, "features hold values")]
)
def test_a_loss_that_is_not_finite_stops_the_run_before_a_checkpoint_is_overwritten(
    fault: type[pl.Callback], cause: str, tmp_path: Path
) -> None:
    saver = ModelCheckpoint(tmp_path, filename="last", enable_version_counter=False)
    model, callbacks = BinaryClassifier(30, optimizer="SGD"), [fault(), StopOnNaN(), saver]
    run = trainer(tmp_path, max_epochs=3, enable_checkpointing=True, callbacks=callbacks)
    with pytest.raises(
        TrainingDivergedError, match=rf"in epoch 1: .*{cause}.*; the last good checkpoint is .*last.ckpt"
    ):
        run.fit(model, TabularDataModule())
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    assert all(bool(torch.isfinite(value).all()) for value in kept["state_dict"].values())


def test_a_stopped_run_does_not_stop_the_next_one(tmp_path: Path) -> None:
    watcher = StopOnNaN()
    with pytest.raises(TrainingDivergedError):
        trainer(tmp_path, max_epochs=2, callbacks=[HugeRate(), watcher]).fit(
            BinaryClassifier(30, optimizer="SGD"), TabularDataModule()
        )
    trainer(tmp_path, max_epochs=1, callbacks=[watcher]).fit(BinaryClassifier(30), TabularDataModule())
    assert watcher.all_finite is not None
    assert bool(watcher.all_finite)
