"""The state that a resumed run needs, in addition to what Lightning saves, to end like an uninterrupted run."""

import csv
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from torchmetrics.utilities.distributed import gather_all_tensors

from torchnn.model.checkpoint import CheckpointError
from torchnn.runs._lightning import (
    begin_epoch_afresh,
    epoch_results,
    forget_value,
    is_accumulating,
    latest_metrics,
    logged_steps,
    set_logged_steps,
    set_not_restarting,
)

SECTION = "torchnn"  # of a checkpoint


class TrainingState(callbacks.Callback):
    """Saves the state of training that Lightning leaves out in every checkpoint, and restores it.

    This state is: the random number generators; the sums behind the metrics of an unfinished epoch; the latest metrics,
    because a schedule may wait for one; and the position in the epoch, which Lightning's counters do not give at
    every hook. The `metrics.csv` of a resumed run begins with the rows from before its checkpoint.

    Args:
        settings: plain values that describe the run, saved in its checkpoints.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self.settings = dict(settings or {})
        self.started = False
        self._resumed: dict[str, Any] | None = None
        self._sums: dict[str, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse to start if the processes, each of which looked for its checkpoint, found different ones."""
        own, first = trainer.ckpt_path, trainer.strategy.broadcast(trainer.ckpt_path)
        if own != first:
            raise CheckpointError(
                f"this process resumes from {own}, but rank 0 resumes from {first}: give the path with --ckpt_path. "
                "Set --trainer.default_root_dir to a folder that all hosts share and no other job writes to."
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        loop: Any = trainer.fit_loop
        epochs = loop.epoch_progress.current
        inside = epochs.started > epochs.processed
        batches = loop.epoch_loop.batch_progress.current.processed if inside else 0
        counted = inside and not is_accumulating(trainer)  # Lightning counts this step later
        settle_progress(checkpoint["loops"]["fit_loop"], epochs.processed, batches)
        checkpoint["epoch"] = max(0, epochs.processed - (batches == 0))  # the last epoch that was trained in
        checkpoint[SECTION] = {
            "settings": self.settings,
            "epochs": epochs.processed,
            "batches": batches,
            "logged_steps": logged_steps(trainer) + counted,
            "generators": generator_states(),
            "plateau_waits": not inside and epochs.completed < epochs.processed,
            "sums": (self._sums or dict(self._running_sums(trainer))) if batches else {},
            "metrics": {k: v.detach().cpu() for k, v in latest_metrics(trainer).items()},
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._resumed = checkpoint.get(SECTION) if trainer.state.fn == TrainerFn.FITTING else None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = False
        if self._resumed is not None and trainer.is_global_zero and isinstance(trainer.logger, CSVLogger):
            earlier = Path(str(trainer.ckpt_path)).parent.parent / "metrics.csv"
            trainer.logger.experiment.metrics.extend(rows_before(earlier, self._resumed["logged_steps"]))
            trainer.logger.save()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = True
        if self._resumed is None:
            return
        latest_metrics(trainer).update(self._resumed["metrics"])
        self._sums = self._resumed["sums"]
        if self._resumed["plateau_waits"]:  # Lightning steps it after the best checkpoint is saved
            trainer.fit_loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        if self._resumed["batches"] == 0:
            begin_epoch_afresh(trainer)
        set_generator_states(self._resumed["generators"])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._resumed is not None:
            set_logged_steps(trainer, self._resumed["logged_steps"])
            self._resumed = None

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        """Add the restored sums when the first loss is logged; an optimiser may compute more losses in one step."""
        if self._sums:
            for name, sums in self._sums.items():
                metric = epoch_results(trainer)[name]
                for attribute, values in sums.items():
                    value = sum_of_process(
                        values, trainer.global_rank, trainer.world_size, metric.meta.is_mean_reduction
                    )
                    setattr(metric, attribute, value.to(metric.device) + getattr(metric, attribute))
                forget_value(metric)
            self._sums = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        set_not_restarting(trainer)  # or ReduceLROnPlateau would miss the epoch in which the run resumed

    @staticmethod
    def _running_sums(trainer: pl.Trainer) -> Iterator[tuple[str, dict[str, Any]]]:
        """The sums of each process in this epoch, for each metric that is a sum or a mean over batches."""
        for name, metric in epoch_results(trainer).items():
            if metric.is_tensor and not metric.has_reset and metric.meta.on_epoch:
                attributes = ("value", "cumulated_batch_size") if metric.meta.is_mean_reduction else ("value",)
                sums = {key: getattr(metric, key).detach() for key in attributes}
                several = trainer.world_size > 1
                yield name, {k: torch.stack(gather_all_tensors(v) if several else [v]).cpu() for k, v in sums.items()}


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's `EarlyStopping`, but with the limits of this run instead of those in the checkpoint.

    A run that it had stopped stays stopped, unless one of the limits has changed.
    """

    LIMITS = ("patience", "min_delta", "stopping_threshold", "divergence_threshold", "check_finite")

    def __init__(self, monitor: str = "val_loss", **kwargs: Any) -> None:
        super().__init__(monitor, **kwargs)
        self.has_stopped = False

    def _limits(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.LIMITS}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "has_stopped": self.has_stopped, "limits": self._limits()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        limits = self._limits()
        super().load_state_dict(state_dict)
        self.patience = limits["patience"]
        self.has_stopped = state_dict.get("has_stopped", False) and state_dict["limits"] == limits

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.has_stopped

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with self._noticing_a_stop(trainer):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with self._noticing_a_stop(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    @contextmanager
    def _noticing_a_stop(self, trainer: pl.Trainer) -> Iterator[None]:
        stopped_before = trainer.should_stop
        yield
        self.has_stopped = self.has_stopped or (trainer.should_stop and not stopped_before)


def sum_of_process(values: torch.Tensor, rank: int, num_ranks: int, is_mean: bool) -> torch.Tensor:
    """The sum that a process of a resumed run starts with.

    Args:
        values: the sum of each process of the interrupted run, (processes,).
        rank: number of this process.
        num_ranks: number of processes now. If it has not changed, each process continues its own sum.
        is_mean: whether the mean over processes is used in the end, or else the sum.

    >>> [int(sum_of_process(torch.tensor([3, 5]), rank, 3, is_mean=True)) for rank in range(3)]
    [4, 4, 4]
    >>> [int(sum_of_process(torch.tensor([3, 5]), rank, 3, is_mean=False)) for rank in range(3)]
    [8, 0, 0]
    """
    if len(values) == num_ranks:
        return values[rank]
    if is_mean:
        return values.double().mean().to(values.dtype)
    return values.sum() * (rank == 0)


def settle_progress(fit_loop: dict[str, Any], epochs: int, batches: int) -> None:
    """Set Lightning's counters to a number of finished epochs and of batches of the next one.

    At the hooks where checkpoints are written the counters disagree with each other, differently at each hook, and
    Lightning does not restore all of these states correctly.
    """
    begun = epochs + (batches > 0)
    for tracker in fit_loop["epoch_progress"].values():
        tracker.update(ready=begun, started=begun, processed=epochs, completed=epochs)
    progress = fit_loop["epoch_loop.batch_progress"]
    for tracker in (progress["total"], progress["current"]):
        tracker.update(ready=tracker["processed"], started=tracker["processed"], completed=tracker["processed"])
    progress["is_last_batch"] = False
    if batches == 0:
        fit_loop["state_dict"].pop("combined_loader", None)


def generator_states() -> dict[str, Any]:
    """The states of the global generators of torch, numpy and Python, as tensors and plain values."""
    numpy: Any = np.random.get_state(legacy=False)
    key = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": {**numpy, "state": {**numpy["state"], "key": key}},
        "python": random.getstate(),
    }


def set_generator_states(states: Mapping[str, Any]) -> None:
    """Set the generators to the states of `generator_states`; devices that do not exist any more are left out."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)
    numpy = states["numpy"]
    key = numpy["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
    random.setstate(states["python"])


def rows_before(path: Path, step: int) -> list[dict[str, str]]:
    """The rows of a `metrics.csv` that were logged before a step, without a line that was only written in part."""
    if not path.is_file():
        return []
    with path.open(newline="", errors="replace") as file:
        rows = [row for row in csv.DictReader(file) if (row.get("step") or "").isdigit() and None not in row]
    return [{k: v for k, v in row.items() if v not in ("", None)} for row in rows if int(row["step"]) < step]
