"""The memory that a step needs in addition to inputs and results; every figure comes from its own process.

`python -m experiments.benchmark.memory CONTENDER ROWS` is that process.
"""

import gc
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.common.memory import bytes_of_field, peak_bytes_of_process, reset_peak

from .contenders import EAGER, OURS, Contender, eager, ours
from .measure import time_once
from .problems import DEEP, THREADS, Point, Problem, make_problem

BATCHES = (8192, 65536, 1048576)
ROWS_OF_WARM_UP = 32
NEEDED_BY_EAGER = {1048576: 12 * 2**30}  # it needs 7.2 GiB, and the system must not swap
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Memory:
    """Extra bytes at the peak of a step, and the time of the next step."""

    contender: str
    batch: int
    extra_bytes: int
    seconds: float


class MemoryMeasurementError(RuntimeError):
    """The process of a figure failed."""


def available_bytes() -> int | None:
    """Memory that is available without swapping; None if the system is not Linux."""
    return bytes_of_field("/proc/meminfo", "MemAvailable")


def why_no_memory(contender: str, batch: int, available: int | None) -> str | None:
    """Why a figure is skipped, or None."""
    if available is None:
        return "this system has no /proc"
    needed = NEEDED_BY_EAGER.get(batch, 0) if contender == EAGER else 0
    return f"less than {needed / 2**30:.0f} GiB of memory are free" if available < needed else None


def measure_memory(contender: str, batch: int) -> Memory:
    """Measure one figure in a new process."""
    command = [sys.executable, "-m", __name__, contender, str(batch)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise MemoryMeasurementError(f"the memory of {contender} at {batch:,} rows could not be measured: {reason}")
    return Memory(contender, batch, **json.loads(done.stdout))


def extra_of_a_step(contender: str, batch: int) -> tuple[int, float]:
    """The growth of peak memory without gradients and output, and the seconds of the next step."""
    problem = make_problem(Point(DEEP, batch))
    few = Point(DEEP, ROWS_OF_WARM_UP)
    warm_up = built(contender, Problem(few, problem.x[: few.batch], problem.y[: few.batch], problem.parameters))
    warm_up.step()
    del warm_up
    step = built(contender, problem).step
    gc.collect()
    reset_peak()
    before = peak_bytes_of_process()
    step()
    results = 4 * (few.num_parameters + batch * DEEP[-1])
    return peak_bytes_of_process() - before - results, time_once(step)


def built(contender: str, problem: Problem) -> Contender:
    return ours(problem) if contender == OURS else eager(problem)


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    extra_bytes, seconds = extra_of_a_step(sys.argv[1], int(sys.argv[2]))
    sys.stdout.write(json.dumps({"extra_bytes": extra_bytes, "seconds": seconds}))
