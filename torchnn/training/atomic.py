"""Checkpoints that are written whole or not at all."""

import contextlib
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")  # a leading dot, and the process that writes it


class CheckpointWriteError(OSError):
    """A checkpoint that could not be written; the message is one sentence that names it."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, waits for the disk, and then renames it: a plug-in of Lightning's Trainer.

    A full disk or a killed process leaves the checkpoint that was there before.

    Raises:
        CheckpointWriteError: the disk is full or the folder cannot be written to.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO takes no storage_options.")
        content = io.BytesIO()  # torch.save on a full disk fails twice, the second time while its writer is destroyed
        torch.save(checkpoint, content)
        try:
            with replacing(Path(path)) as file:
                file.write(content.getbuffer())
        except OSError as error:
            kept = "the one before it is kept" if Path(path).exists() else "nothing was written"
            raise CheckpointWriteError(
                f"checkpoint {path} could not be written ({error.strerror}), {kept}: make room or give another "
                "--trainer.default_root_dir."
            ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into, that takes the place of `path` when all of it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that `target` is never seen half-written."""
    with source.open("rb") as original, replacing(target) as file:
        shutil.copyfileobj(original, file)


def discard_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder of checkpoints."""
    for path in folder.glob(".*.tmp"):
        match = TEMPORARY.fullmatch(path.name)
        if match and not _is_running(int(match[1])):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
