"""Callbacks of every run: a stop when the loss is not finite, the learning curve, and the run folder."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from torchnn.files import replacing

LAST = "last.ckpt"
STEPS_BETWEEN_CHECKS = 50  # reading a loss waits for the device; the end of an epoch is always checked


class TrainingDivergedError(RuntimeError):
    """The loss or a weight is NaN or infinite."""


class StopOnNaN(Callback):
    """Stops the run with `TrainingDivergedError` before a checkpoint of broken weights can replace a good one.

    Whether all losses were finite is accumulated on the device. It is read every 50 steps and before a checkpoint is
    saved.
    """

    def __init__(self) -> None:
        self.all_finite: Tensor | None = None
        self.checked_at_step = -1

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.all_finite, self.checked_at_step = None, -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        finite = torch.isfinite(outputs["loss"].detach())
        self.all_finite = finite if self.all_finite is None else self.all_finite & finite
        if (batch_idx + 1) % STEPS_BETWEEN_CHECKS == 0:
            self._check(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._check(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.checked_at_step != trainer.global_step:  # there was no validation
            self._check(trainer, pl_module)

    def _check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.checked_at_step = trainer.global_step
        checks = [torch.isfinite(p).all() for p in pl_module.parameters()]
        if self.all_finite is not None:
            checks.append(self.all_finite)
        if "val_loss" in trainer.callback_metrics:
            checks.append(torch.isfinite(trainer.callback_metrics["val_loss"]).to(checks[0].device))
        healthy = bool(torch.stack(checks).all())
        if trainer.strategy.reduce_boolean_decision(healthy, all=True):
            return
        saved = last_checkpoint(trainer)
        raise TrainingDivergedError(
            f"the loss became NaN or infinite in epoch {trainer.current_epoch}: {likely_cause(trainer)}; "
            + (f"the last good checkpoint is {saved}." if saved else "no checkpoint had been saved.")
        )


def likely_cause(trainer: pl.Trainer) -> str:
    """The likely reason for a loss that is not finite: the data, if they can be checked, else the learning rate."""
    training_features = getattr(getattr(trainer, "datamodule", None), "training_features", None)
    may_be_missing = getattr(trainer.lightning_module, "schema", None) is not None
    if training_features is not None and not may_be_missing and not all(map(all_finite, training_features())):
        return "the features hold values that are NaN or infinite"
    if any(p.dtype == torch.float16 for p in trainer.lightning_module.parameters()):
        return "float16 cannot hold numbers above 65504, so use --trainer.precision 16-mixed or bf16-mixed"
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    return f"the learning rate {rate:g} is probably too high: lower it (--model.lr)"


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    return bool(torch.isfinite(values).all())


class LearningCurve(Callback):
    """Draws training and validation loss by epoch into `learning_curve.png` of the run folder."""

    def __init__(self) -> None:
        self.history: dict[str, list[tuple[int, float]]] = {"train_loss": [], "val_loss": []}

    def state_dict(self) -> dict[str, Any]:
        """The points so far, so that a resumed run draws the whole curve."""
        return dict(self.history)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = dict(state_dict)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, points in self.history.items():
            if name in trainer.callback_metrics:
                points.append((trainer.current_epoch, float(trainer.callback_metrics[name])))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = run_folder(trainer)
        if folder is None or not self.history["train_loss"]:
            return
        figure, axes = new_figure()
        for points, label in zip(self.history.values(), ("training", "validation"), strict=True):
            if points:
                epochs, values = zip(*points, strict=True)
                axes.plot(epochs, values, label=label)
        axes.set(xlabel="epoch", ylabel="loss", title="Learning curve")
        axes.legend()
        save_figure(figure, folder / "learning_curve.png")


def last_checkpoint(trainer: pl.Trainer) -> str | None:
    """Path of the newest `last.ckpt` of this run, or else of the checkpoint that it resumed from."""
    written = [str(getattr(callback, "best_model_path", "")) for callback in trainer.checkpoint_callbacks]
    resumed_from = None if trainer.ckpt_path is None else str(trainer.ckpt_path)
    return next((path for path in written if is_last(Path(path))), resumed_from)


def is_last(path: Path) -> bool:
    """Whether a file is a `last.ckpt`, or a `last-v1.ckpt`, which runs that share a folder write."""
    return path.suffix == ".ckpt" and path.stem.split("-")[0] == Path(LAST).stem


def run_folder(trainer: pl.Trainer) -> Path | None:
    """The folder of the run's logger, into which only the first process writes; None on the others, or without one."""
    if not trainer.is_global_zero or not isinstance(trainer.logger, CSVLogger):
        return None
    folder = Path(trainer.logger.log_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def new_figure(rows: int = 1) -> tuple[Any, Any]:
    """A figure and its axes, made without pyplot, so that nothing global changes and no display is needed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 1 + 3 * rows), dpi=150, layout="constrained")
    return figure, figure.subplots(rows)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG."""
    with replacing(path) as file:
        figure.savefig(file, format="png")
