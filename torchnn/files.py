"""Writing a file whole or not at all: no reader, and no process that is killed, ever leaves or sees half of it."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")  # with a leading dot, and the number of the process that writes it


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which replaces `path` when all of it is on the disk; after an error `path` is unchanged.

    Raises:
        OSError: the file cannot be written.
    """
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


def write_whole(path: Path, text: str) -> None:
    """Write a text in UTF-8."""
    with replacing(path) as file:
        file.write(text.encode())


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file."""
    with source.open("rb") as original, replacing(target) as file:
        shutil.copyfileobj(original, file)


def discard_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed, in a folder of checkpoints."""
    for path in folder.glob(".*.tmp"):
        match = TEMPORARY.fullmatch(path.name)
        if match and not _is_running(int(match[1])):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True
