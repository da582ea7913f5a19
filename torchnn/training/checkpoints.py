"""Finding and reading checkpoints; nothing in a checkpoint is ever run as code."""

import pickle
from pathlib import Path
from typing import Any

import torch

from torchnn.training.callbacks import LAST
from torchnn.training.classifier import BinaryClassifier


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one sentence that says which and why."""


def find_checkpoint(wanted: str, root: Path) -> Path:
    """The path that `wanted` stands for.

    Args:
        wanted: "best" or "last" for those of the newest run below `root`, anything else is a path.
        root: the folder that holds `lightning_logs`.

    Raises:
        CheckpointError: no such file.
    """
    if wanted not in ("best", "last"):
        path = Path(wanted)
        if path.is_file():
            return path
        raise CheckpointError(f"--ckpt_path {wanted} does not exist: give the path of a .ckpt file.")
    newest = max(root.glob(f"lightning_logs/version_*/checkpoints/{LAST}"), key=_modified, default=None)
    if newest is None:
        folder = root / "lightning_logs"
        raise CheckpointError(f"no run in {folder} has a checkpoint: train with torchnn fit, or give --ckpt_path.")
    return newest if wanted == "last" else _best_beside(newest)


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns


def _best_beside(last: Path) -> Path:
    """The best checkpoint of the run that `last` belongs to, as the callbacks saved in it say."""
    callbacks = load_plain(last).get("callbacks", {})
    names = [Path(state["best_model_path"]).name for state in callbacks.values() if state.get("best_model_path")]
    found = [last.with_name(name) for name in names if name != LAST and last.with_name(name).is_file()]
    if not found:
        raise CheckpointError(f"the newest run, {last.parent.parent}, has no best checkpoint: give --ckpt_path.")
    return found[0]


def load_plain(path: Path) -> dict[str, Any]:
    """The numbers, strings and lists of a checkpoint; anything else in it is refused, not run.

    Raises:
        CheckpointError: the file is no checkpoint, is truncated, or holds code.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "holds code or classes where only numbers belong, or is no checkpoint, and was not loaded"
        raise CheckpointError(f"checkpoint {path} {reason}.") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"checkpoint {path} is truncated or is no checkpoint: use another one.") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"checkpoint {path} does not hold a model of torchnn: it has no hyper-parameters.")
    return checkpoint


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint of `BinaryClassifier`, proven to fit the network that it describes.

    Raises:
        CheckpointError: the file is no checkpoint, is truncated, holds code, or does not fit.
    """
    checkpoint = load_plain(path)
    if not {"state_dict", "hyper_parameters"} <= checkpoint.keys():
        raise CheckpointError(f"checkpoint {path} does not hold a model of torchnn: it has no hyper-parameters.")
    try:
        BinaryClassifier(**checkpoint["hyper_parameters"]).load_state_dict(checkpoint["state_dict"])
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"checkpoint {path} does not fit BinaryClassifier: {reason}") from error
    return checkpoint
