"""Reading a checkpoint; nothing in one is ever run as code."""

import pickle
from pathlib import Path
from typing import Any

import torch


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one sentence that says which and why."""


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
    except OSError as error:
        if error.filename is not None:
            raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}.") from error
        raise CheckpointError(f"checkpoint {path} is truncated or is no checkpoint: use another one.") from error
    except Exception as error:  # whatever a parser says of bytes that it does not know
        raise CheckpointError(f"checkpoint {path} is truncated or is no checkpoint: use another one.") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"checkpoint {path} does not hold a model of torchnn: it has no hyper-parameters.")
    return checkpoint
