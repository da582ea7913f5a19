"""`torchnn`, in which one rank has a fault before one of its steps, in the first attempt."""

import os
import signal
import sys
from typing import Any

from torchnn.cli import main
from torchnn.runs.savers import LastCheckpoint


def before_a_step(self: Any, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
    fault, rank, step = os.environ["FAULT"].split()
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if first and trainer.global_rank == int(rank) and trainer.global_step == int(step):
        if fault == "raise":
            raise ValueError("a planted fault")
        os.kill(os.getpid(), signal.Signals[fault])


if __name__ == "__main__":
    LastCheckpoint.on_train_batch_start = before_a_step  # type: ignore[method-assign, assignment]
    main(sys.argv[1:])
