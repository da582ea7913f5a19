"""Reads a checkpoint without running any code in it."""

import pickle
from pathlib import Path
from typing import Any

import torch


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message is one sentence that says which one and why."""


def load_plain(path: Path) -> dict[str, Any]:
    """The numbers, strings and lists of a checkpoint, on the CPU. Anything else in it is refused, not run.

    Raises:
        CheckpointError: the file is not a checkpoint, is truncated, or holds code.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path} holds code or classes, or is another kind of file, and was not loaded."
        ) from error
    except OSError as error:
        if error.filename is not None:
            raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}.") from error
        raise CheckpointError(f"checkpoint {path} is truncated or another kind of file: use another one.") from error
    except Exception as error:  # torch's parser raises almost anything for bytes that it does not know
        raise CheckpointError(f"checkpoint {path} is truncated or another kind of file: use another one.") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"checkpoint {path} does not hold a torchnn model: it has no hyperparameters.")
    return checkpoint
