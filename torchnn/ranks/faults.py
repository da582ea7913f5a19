"""What ends a job: a fault of one rank, and the errors of the others that only follow from it."""

import json
import os
import re
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # where torchrun looks for the cause; anybody may set it
OF_A_CONNECTION = re.compile(r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|Broken pipe|Socket Timeout|store->get")


class Fault(NamedTuple):
    """What ended a job.

    Attributes:
        by: the rank that found it, and speaks.
        name: of the rank that has it, with its process and host; none where the sentence says who.
        sentence: the cause and, if there is one, the mend.
        status: exit status of every rank.
    """

    by: int
    name: str
    sentence: str
    status: int

    @property
    def whole(self) -> str:
        """Rank and cause."""
        return f"{self.name}: {self.sentence}" if self.name else self.sentence

    def to_text(self) -> str:
        return json.dumps(self)

    @classmethod
    def from_text(cls, text: str) -> "Fault":
        return cls(*json.loads(text))


def is_of_a_connection(error: BaseException) -> bool:
    """Whether an error may only say that another rank has gone.

    >>> is_of_a_connection(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    True
    >>> is_of_a_connection(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    return any(
        isinstance(one, DistError) or (isinstance(one, RuntimeError) and OF_A_CONNECTION.search(str(one)) is not None)
        for one in chain(error)
    )


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def described(error: BaseException) -> str:
    """Kind, message and place of an error in one line.

    >>> try:
    ...     int("seven")
    ... except ValueError as error:
    ...     print(described(error).split(" (")[0])
    ValueError: invalid literal for int() with base 10: 'seven'
    """
    message = (str(error).strip().splitlines() or ["no message"])[0]
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in place)
    return f"{type(error).__name__}: {message}{where}"


def record_error(error: Exception) -> None:
    """Leave the traceback where torchrun, or whoever set TORCHELASTIC_ERROR_FILE, looks for it."""
    if ERROR_FILE in os.environ:
        get_error_handler().record_exception(error)


def record(fault: Fault) -> None:
    """Leave the sentence there, unless there is a traceback already."""
    path = os.environ.get(ERROR_FILE)
    if path is not None and not Path(path).exists():
        Path(path).write_text(json.dumps({"message": fault.whole, "timestamp": int(time.time())}))
