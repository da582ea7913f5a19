"""`torchnn` with a planted fault: one rank dies, stops or fails before one of its steps, in the first attempt only."""

import os
import signal
import sys
from typing import Any

from torchnn.cli import main
from torchnn.model.checkpoint import CheckpointError
from torchnn.runs.savers import LastCheckpoint


def before_a_step(self: Any, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
    fault, rank, step = os.environ["FAULT"].split()
    is_first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if is_first and trainer.global_rank == int(rank) and trainer.global_step == int(step):
        if fault == "raise":
            raise ValueError("a planted fault")
        if fault == "refuse":
            raise CheckpointError("a planted mistake.")
        os.kill(os.getpid(), signal.Signals[fault])


if __name__ == "__main__":
    LastCheckpoint.on_train_batch_start = before_a_step  # type: ignore[method-assign, assignment]
    main(sys.argv[1:])
