"""How and when a run writes checkpoints: the best by a metric, and the last one to resume from."""

import io
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader

from torchnn.files import copy_whole, discard_leftovers, replacing
from torchnn.runs._lightning import (
    can_stop_early,
    has_nothing_to_save,
    is_accumulating,
    number_files,
    save_without_metric,
    validates_after_batch,
)
from torchnn.runs.callbacks import LAST

REST = 100  # after a write, wait 100 times as long before the next, so that writing costs at most 1 % of the time
STEPS_BETWEEN_AGREEMENTS = 50  # processes agree on the time with a message, which costs more than reading a clock


class CheckpointWriteError(OSError):
    """A checkpoint could not be written; the message is one sentence that names it."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """A plugin of Lightning's Trainer that writes each checkpoint whole or not at all.

    If the disk is full or the process is killed, the previous checkpoint is still there.

    Raises:
        CheckpointWriteError: the disk is full or the folder cannot be written to.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO takes no storage_options.")
        content = io.BytesIO()  # on a full disk torch.save would fail again while its writer is destroyed
        torch.save(checkpoint, content)
        try:
            with replacing(Path(path)) as file:
                file.write(content.getbuffer())
        except OSError as error:
            kept = "but the previous one is kept" if Path(path).exists() else "and there is no earlier one"
            raise CheckpointWriteError(
                f"checkpoint {path} could not be written ({error.strerror}), {kept}: free some space or give another "
                "--trainer.default_root_dir."
            ) from error


class BestCheckpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`; a resumed run copies the best checkpoints so far into its own folder."""

    _resumed_from: Path | None = None
    _strategy: Any = None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        fitting = trainer.state.fn == TrainerFn.FITTING
        self._resumed_from = Path(str(trainer.ckpt_path)).parent if fitting else None
        self._strategy = trainer.strategy

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the scores, and copy their files from the folder of the checkpoint that is resumed from.

        If a file does not exist, a better one has replaced it after that checkpoint, and the run will find it again.
        """
        if self._resumed_from is None:  # testing and predicting need no scores
            return
        assert self.dirpath is not None
        folder = Path(self.dirpath)
        scores = {Path(path).name: score for path, score in state_dict["best_k_models"].items()}
        if self._strategy.is_global_zero:
            for name in list(scores):
                source, target = self._resumed_from / name, folder / name
                if not source.is_file():
                    del scores[name]
                elif source.resolve() != target.resolve():
                    copy_whole(source, target)
        scores = self._strategy.broadcast(scores)
        self.best_k_models = {str(folder / name): score for name, score in scores.items()}
        if self.best_k_models:
            best, worst = (min, max) if self.mode == "min" else (max, min)
            self.best_model_path = best(self.best_k_models, key=lambda path: float(self.best_k_models[path]))
            self.best_model_score = self.best_k_models[self.best_model_path]
            self.kth_best_model_path = worst(self.best_k_models, key=lambda path: float(self.best_k_models[path]))
            self.kth_value = self.best_k_models[self.kth_best_model_path]


class LastCheckpoint(ModelCheckpoint):
    """Writes `last.ckpt`, from which `torchnn fit --ckpt_path last` resumes.

    It is written at the end of each epoch, within an epoch after a time or a number of steps, and at the end of
    training. After a write the next one waits 100 times as long as the write took, except for `every_steps`. Within
    an epoch it is written only if the training loader has a state (`state_dict`).

    Args:
        every_seconds: seconds between two writes within an epoch, above 0, or null to write at the ends of epochs only.
        every_steps: optimiser steps between two writes, 1 or more, however long they take; null to count no steps.

    Raises:
        ValueError: an argument outside the ranges above.
    """

    def __init__(self, every_seconds: float | None = 60.0, every_steps: int | None = None) -> None:
        super().__init__(filename=Path(LAST).stem)
        if every_seconds is not None and not every_seconds > 0:
            raise ValueError(f"every_seconds is {every_seconds}: give a number above 0, or null.")
        if every_steps is not None and every_steps < 1:
            raise ValueError(f"every_steps is {every_steps}: give 1 or more, or null.")
        self.every_seconds = every_seconds
        self.every_steps = every_steps
        self._written_at = 0.0
        self._rest = 0.0
        self._after_validation = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        # Without a run folder of its own it shares one with earlier runs, whose files it must not replace.
        number_files(self, not trainer.loggers)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: a resumed run writes its own file."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and trainer.ckpt_path is not None:
            discard_leftovers(Path(str(trainer.ckpt_path)).parent)
        self._written_at, self._rest, self._after_validation = time.monotonic(), 0.0, False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        too_early = self.every_seconds is None or time.monotonic() - self._written_at < self.every_seconds
        if too_early and self.every_steps is None and trainer.max_steps == -1 and not trainer.should_stop:
            return  # this is nearly every step, so it may only cost reading the clock
        is_last_batch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if is_last_batch or not self._is_due(trainer) or is_accumulating(trainer):
            return
        if validates_after_batch(trainer):
            self._after_validation = True  # validation belongs to this step and has not begun
        else:
            self._write_inside_epoch(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        inside = trainer.state.fn == TrainerFn.FITTING and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if inside and (self._after_validation or _is_ending(trainer)):
            self._after_validation = False
            self._write_inside_epoch(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the previous epoch: this is the first hook where its metrics and schedules are complete."""
        rested = self._agree(trainer, time.monotonic() - self._written_at >= self._rest)
        if rested or self._is_wanted_step(trainer):
            self._write(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do not save yet: see `on_train_epoch_start`."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        if self._is_wanted_step(trainer) or _is_ending(trainer):
            return True
        if self.every_seconds is None:
            return False
        if trainer.world_size > 1 and trainer.global_step % STEPS_BETWEEN_AGREEMENTS:
            return False
        passed = time.monotonic() - self._written_at
        return self._agree(trainer, passed >= self.every_seconds and passed >= self._rest)

    def _is_wanted_step(self, trainer: pl.Trainer) -> bool:
        return self.every_steps is not None and trainer.global_step % self.every_steps == 0

    @staticmethod
    def _agree(trainer: pl.Trainer, due: bool) -> bool:
        return due if trainer.world_size == 1 else bool(trainer.strategy.broadcast(due))

    def _write_inside_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loaders = CombinedLoader(trainer.train_dataloader).flattened
        if not all(hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict") for loader in loaders):
            return
        finite = all(bool(torch.isfinite(p).all()) for p in pl_module.parameters())
        if trainer.strategy.reduce_boolean_decision(finite, all=True):  # else `StopOnNaN` is about to stop the run
            self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        if has_nothing_to_save(self, trainer):
            return
        began = time.monotonic()
        for logger in trainer.loggers:  # what was logged before the checkpoint has to be on the disk before it
            logger.save()
        save_without_metric(self, trainer)
        self._written_at = time.monotonic()
        self._rest = REST * (self._written_at - began)


def _is_ending(trainer: pl.Trainer) -> bool:
    """Whether training stops after this step, even within an epoch."""
    return trainer.global_step == trainer.max_steps or (trainer.should_stop and can_stop_early(trainer))
