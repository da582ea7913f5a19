"""Checks of the arguments before a table is read: what would do nothing, or keep the worst model, is refused."""

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch

from torchnn.cli.resume import DATA_DECIDES
from torchnn.console import fail, with_flag
from torchnn.model.classifier import BinaryClassifier

REPORTED = ("accuracy", "auroc", "log_loss", "average_precision", "f1", "calibration_error")
MONITORED = ("val_loss", "train_loss", *(f"val_{name}" for name in REPORTED))
BETTER_WHEN_HIGH = ("accuracy", "auroc", "average_precision", "f1")
STAGES = {"fit": ("train", "test"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


def refuse_empty_runs(config: Any, subcommand: str) -> None:
    """Fail if a stage that the command needs would see no batch, or if it would test on training rows."""
    if config.trainer.barebones:
        fail("--trainer.barebones turns off the metrics that torchnn reports: leave it out.")
    for limit in ("max_epochs", "max_steps"):
        if config.trainer[limit] == 0:
            fail(f"--trainer.{limit} 0 would train nothing: give 1 or more.")
    if subcommand == "fit" and config.data.part == "all":
        fail("--data.part all would make fit test on training rows: use it only with torchnn test or predict.")
    for stage in STAGES[subcommand]:
        if config.trainer[f"limit_{stage}_batches"] == 0:
            fail(f"--trainer.limit_{stage}_batches 0 leaves nothing to {subcommand}: give 1 or more.")


def check_model(arguments: Mapping[str, Any], known: list[str]) -> None:
    """Fail for wrong arguments of the model before a large table is read. The model is built with one column.

    Args:
        arguments: for `BinaryClassifier`. Those that the data determine may be missing.
        known: the flags of the command.
    """
    given = {name: value for name, value in arguments.items() if name not in DATA_DECIDES.values()}
    with torch.random.fork_rng(devices=[]):  # this model must not change the weights that the seed gives
        try:
            BinaryClassifier(in_features=1, **given)
        except ValueError as error:
            fail(with_flag(str(error), known))


def set_mode(config: Any, group: str, given: Iterable[str]) -> None:
    """Set the mode of early stopping or of the best checkpoint: max for a metric that is better when it is high.

    Args:
        config: the arguments of the command.
        group: "early_stopping" or "checkpoint".
        given: the flags that were given.

    Raises:
        SystemExit: the metric is unknown or not computed, or the mode that was given would keep the worst model.
    """
    monitor = config[group].monitor
    if monitor not in MONITORED:
        fail(f"--{group}.monitor is {monitor!r}: choose one of {', '.join(MONITORED)}.")
    if config.trainer.limit_val_batches == 0 and monitor != "train_loss":
        fail(
            f"--trainer.limit_val_batches 0 skips the validation, which computes {monitor}: also set "
            f"--{group}.monitor train_loss."
        )
    better = "max" if monitor.removeprefix("val_") in BETTER_WHEN_HIGH else "min"
    if f"{group}.mode" in given and config[group].mode != better:
        fail(f"--{group}.mode {config[group].mode} would keep the worst {monitor}: leave it out.")
    config[group].mode = better


def folds_of(config: Any, subcommand: str, given: Collection[str]) -> int:
    """The number of runs of a cross-validation; 0 if the command is a single run."""
    if subcommand != "fit" or config.data.folds < 2:
        return 0
    if config.get("ckpt_path") and "data.folds" in given and "data.fold" not in given:
        fail(
            f"--ckpt_path resumes the run of one fold: also give --data.fold {config.data.fold}, the fold of this "
            "checkpoint. Then run each remaining fold with its own --data.fold and without --ckpt_path."
        )
    if config.data.fold is not None:
        return 0
    if config.trainer.devices not in ("auto", 1, "1") and "WORLD_SIZE" not in os.environ:
        fail("--data.folds runs in one process, or in those of torchrun: leave out --trainer.devices.")
    return int(config.data.folds)
