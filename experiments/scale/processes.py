"""Times training steps on processes of one thread each that average their gradients over gloo."""

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import torchnn
from torchnn.functional import network

from ..benchmark.contenders import sequential
from ..benchmark.problems import Point, make_problem

EAGER, AT_ONCE, STAGES = "eager", "torchnn, gradients at once", "torchnn, in stages"
WAYS = (EAGER, AT_ONCE, STAGES)
TOLERANCE = 1e-4  # relative to the norm of a gradient, float32
FEWEST_ROUNDS, MOST_ROUNDS = 3, 15
SHORTEST_TIMING = 0.02  # seconds; in a shorter timing the barrier before it would matter


@dataclass(frozen=True)
class Request:
    """What the processes measure.

    Attributes:
        points: networks with the rows in the batch of each process.
        budget: seconds per point.
    """

    points: Sequence[Point]
    budget: float


class WrongGradientError(RuntimeError):
    """A way does not give eager's gradients."""


class WithLoss(nn.Module):
    """Eager's network and loss in one module, so that a wrapper sees both."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.criterion = model, nn.BCELoss()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = self.criterion(self.model(x), y)
        return loss


@contextmanager
def stages_only(way: str) -> Iterator[None]:
    """Switch the pass in stages on for the way that has it, and off for the others."""
    with patch.object(network, "exchanges_gradients", lambda: way == STAGES):
        yield


class Step:
    """A way to compute the gradients of a batch, averaged over the processes or not."""

    def __init__(self, way: str, point: Point, rank: int) -> None:
        problem = make_problem(point)
        model: nn.Module = WithLoss(sequential(point.sizes)) if way == EAGER else torchnn.MLP(point.sizes)
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), problem.parameters, strict=True):
                parameter.copy_(value)
        self.way, self.x, self.y = way, problem.x.roll(rank, 0), problem.y
        self.parameters = list(model.parameters())
        self.model: Any = DistributedDataParallel(model) if distributed.get_world_size() > 1 else model

    def __call__(self, exchange: bool = True) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        without_exchange = not exchange and isinstance(self.model, DistributedDataParallel)
        with stages_only(self.way), self.model.no_sync() if without_exchange else nullcontext():
            self.model(self.x, self.y).backward()

    def gradients(self) -> list[Tensor]:
        self()
        return [parameter.grad.clone() for parameter in self.parameters if parameter.grad is not None]


def measured(request: Request, processes: int) -> list[dict[str, Any]]:
    """A row for each point and way; each process runs on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        starter: Any = multiprocessing  # missing from its type annotations
        starter.start_processes(one_process, (request, processes, folder), nprocs=processes, start_method="spawn")
        rows: list[dict[str, Any]] = torch.load(Path(folder, "rows.pt"), weights_only=True)
        return rows


def one_process(rank: int, request: Request, processes: int, folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    store = Path(folder, "store").as_uri()
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    rows = [row for point in request.points for row in measure_point(point, request.budget, rank)]
    if rank == 0:
        torch.save(rows, Path(folder, "rows.pt"))
    distributed.barrier()
    distributed.destroy_process_group()


def measure_point(point: Point, budget: float, rank: int) -> list[dict[str, Any]]:
    """Time each way in turn: with the exchange of gradients, without it, and the exchange by itself."""
    steps = {way: Step(way, point, rank) for way in WAYS}
    expected = steps[EAGER].gradients()
    for way, step in steps.items():
        check(way, step.gradients(), expected)
    flat = torch.zeros(point.num_parameters)
    tasks: dict[tuple[str, str], Callable[[], object]] = {("", "all_reduce"): lambda: distributed.all_reduce(flat)}
    for way, step in steps.items():
        tasks[way, "step"] = step
        tasks[way, "compute"] = lambda step=step: step(exchange=False)  # type: ignore[misc]
    if distributed.get_world_size() == 1:
        tasks = {(way, part): task for (way, part), task in tasks.items() if part == "compute"}
    seconds = timed_in_turn(tasks, budget)
    rows = []
    for way in WAYS:
        compute = seconds[way, "compute"]
        step_times, wire = seconds.get((way, "step"), compute), seconds.get(("", "all_reduce"), [0.0])
        rows.append(
            {
                "width": point.sizes[-2],
                "batch": point.batch,
                "processes": distributed.get_world_size(),
                "way": way,
                "compute": statistics.median(compute),
                "all_reduce": statistics.median(wire),
                "step": statistics.median(step_times),
                "rounds": len(compute),
                "spread": spread(step_times),
            }
        )
    return rows


def check(way: str, gradients: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for gradient, one in zip(gradients, expected, strict=True):
        if not (gradient - one).norm() <= TOLERANCE * one.norm():
            raise WrongGradientError(f"{way} does not give eager's gradients")


def timed_in_turn(tasks: dict[tuple[str, str], Callable[[], object]], budget: float) -> dict[tuple[str, str], Any]:
    """Seconds of each task in each round, on the slower process."""
    first = {name: timed(task, 1) for name, task in tasks.items()}
    repetitions = {name: max(1, round(SHORTEST_TIMING / taken)) for name, taken in first.items()}
    a_round = sum(max(taken, SHORTEST_TIMING) for taken in first.values())
    rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, int(budget / a_round)))
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in tasks}
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, task in tasks.items():
            seconds[name].append(timed(task, repetitions[name]))
    gc.enable()
    return seconds


def timed(task: Callable[[], object], repetitions: int) -> float:
    """Seconds of one repetition on the slower process; all processes return the same value."""
    distributed.barrier()
    start = time.perf_counter()
    for _ in range(repetitions):
        task()
    taken = torch.tensor([(time.perf_counter() - start) / repetitions], dtype=torch.float64)
    distributed.all_reduce(taken, distributed.ReduceOp.MAX)
    return float(taken)


def spread(seconds: Sequence[float]) -> float:
    """Half the interquartile range, relative to the median."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return (high - low) / 2 / middle
