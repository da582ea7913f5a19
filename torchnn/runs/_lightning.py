"""Every private name of Lightning that torchnn uses, in one function each."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


def process_group_options(strategy: Any) -> tuple[str, timedelta] | None:
    """Backend and timeout of the process group that a strategy would make; None if it makes none."""
    if not hasattr(strategy, "_get_process_group_backend"):
        return None
    return strategy._get_process_group_backend(), strategy._timeout


def is_accumulating(trainer: pl.Trainer) -> bool:
    """Whether the optimiser does not step after the current batch, because gradients are accumulated."""
    loop: Any = trainer.fit_loop.epoch_loop
    return bool(loop._should_accumulate())


def validates_after_batch(trainer: pl.Trainer) -> bool:
    """Whether validation follows the current training batch."""
    loop: Any = trainer.fit_loop
    return bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def can_stop_early(trainer: pl.Trainer) -> bool:
    """Whether min_epochs and min_steps have been reached."""
    loop: Any = trainer.fit_loop
    return bool(loop._can_stop_early)


def logged_steps(trainer: pl.Trainer) -> int:
    """The number of optimiser steps by which loggers count."""
    loop: Any = trainer.fit_loop.epoch_loop
    return int(loop._batches_that_stepped)


def set_logged_steps(trainer: pl.Trainer, steps: int) -> None:
    """Set the number of optimiser steps by which loggers count."""
    loop: Any = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped = steps


def latest_metrics(trainer: pl.Trainer) -> dict[str, Tensor]:
    """The metrics logged so far, to be read and changed; `trainer.callback_metrics` would compute those in progress."""
    connector: Any = trainer._logger_connector
    metrics: dict[str, Tensor] = connector._callback_metrics
    return metrics


def epoch_results(trainer: pl.Trainer) -> Mapping[str, Any]:
    """The metrics that are being summed over the training epoch, by name."""
    loop: Any = trainer.fit_loop.epoch_loop
    results: Mapping[str, Any] = loop._results
    return results


def forget_value(metric: Any) -> None:
    """Make a metric of `epoch_results` compute its value again, after its sums were changed."""
    metric._computed = None


def set_not_restarting(trainer: pl.Trainer) -> None:
    """Tell the training loop that it does not start inside an epoch.

    The public setter keeps the loop restarting if `max_steps` limits training.
    """
    loop: Any = trainer.fit_loop
    loop._restarting = False


def begin_epoch_afresh(trainer: pl.Trainer) -> None:
    """Make all loops of a resumed run begin a new epoch.

    With `max_steps`, Lightning assumes that every resumed run starts inside an epoch, and would train an empty one.
    """
    loop: Any = trainer.fit_loop
    for part in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
        part._restarting = False
        part.reset_restart_stage()


def number_files(callback: ModelCheckpoint, enabled: bool) -> None:
    """Set whether a checkpoint callback writes `last-v1.ckpt` next to a `last.ckpt`, instead of replacing it."""
    callback._enable_version_counter = enabled


def has_nothing_to_save(callback: ModelCheckpoint, trainer: pl.Trainer) -> bool:
    """Whether a checkpoint callback has saved this step already, or may not save now."""
    return callback._should_skip_saving_checkpoint(trainer)


def save_without_metric(callback: ModelCheckpoint, trainer: pl.Trainer) -> None:
    """Save under the file name of a checkpoint callback that monitors no metric."""
    callback._save_none_monitor_checkpoint(trainer, {})
