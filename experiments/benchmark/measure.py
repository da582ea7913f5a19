"""Times the contenders in turn, and judges whether the machine was quiet enough."""

import gc
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torchnn

from ..common.errors import UnavailableError
from .contenders import (
    AGAIN,
    CONTENDERS,
    EAGER,
    FAST_POINTS_ONLY,
    OURS,
    TOLERANCE_OF_BFLOAT16,
    Contender,
    bfloat16_autocast,
    check_gradients,
    eager,
    in_blocks,
    nothing,
    ours,
    sequential,
    without_loss,
)
from .problems import Point, make_problem
from .small_steps import CONTENDERS_OF_A_SMALL_STEP

FEWEST_ROUNDS, MOST_ROUNDS = 5, 41
SHORTEST_TIMING = 5e-3  # seconds; in a shorter timing the clock and the scheduler would matter
SLOW_STEP = 2.0  # seconds
BLOCK_ROWS = (1024, 2048, 4096, 8192, 16384, 32768)
QUIET_RATIOS = (0.95, 1.05)
MOST_NOISY = 0.1
MOST_LOAD = 0.5
MOST_OTHERS = 0.2  # cores; a preempted thread delays eager and its control alike, so the control does not show it


@dataclass(frozen=True)
class Rounds:
    """Seconds of a step by contender, one number per round, and the number of cores that other programs used."""

    seconds: dict[str, list[float]]
    others: float = 0.0

    def ratio(self, name: str) -> float:
        """Speed as a multiple of eager's: the median over the rounds of the ratio in each round."""
        return median(of_eager / own for of_eager, own in zip(self.seconds[EAGER], self.seconds[name], strict=True))

    @property
    def is_quiet(self) -> bool:
        """Whether eager took as long as its control, and other programs used little time."""
        low, high = QUIET_RATIOS
        return low <= self.ratio(AGAIN) <= high and self.others <= MOST_OTHERS


@dataclass(frozen=True)
class Measured:
    """The measurement of a point.

    Attributes:
        point: sizes and rows.
        rounds: the times.
        skipped: why contenders were skipped, by name.
        noisy: whether the rounds were noisy twice.
    """

    point: Point
    rounds: Rounds
    skipped: dict[str, str] = field(default_factory=dict)
    noisy: bool = False

    @property
    def names(self) -> list[str]:
        """The contenders that were measured."""
        return list(self.rounds.seconds)

    @property
    def num_rounds(self) -> int:
        return len(self.rounds.seconds[EAGER])

    def median_ms(self, name: str) -> float:
        return 1e3 * median(self.rounds.seconds[name])

    def ratio(self, name: str) -> float:
        return self.rounds.ratio(name)


def is_result(measured: Sequence[Measured]) -> bool:
    """Whether at most a tenth of the points are noisy."""
    return sum(point.noisy for point in measured) <= MOST_NOISY * len(measured)


def measure_twice_if_noisy(point: Point, skipped: dict[str, str], timed: Callable[[], Rounds]) -> Measured:
    rounds = timed()
    if not rounds.is_quiet:
        rounds = timed()
    return Measured(point, rounds, skipped, noisy=not rounds.is_quiet)


def measure_point(point: Point, budget: float) -> Measured:
    """Measure all available contenders at a point of the grid, after checking their gradients."""
    problem, skipped = make_problem(point), {}
    reference = eager(problem)
    reference.step()
    assert reference.gradients is not None
    expected = [gradient.clone() for gradient in reference.gradients()]
    is_slow = time_once(reference.step) > SLOW_STEP
    contenders = [reference]
    for name, build in CONTENDERS.items():
        if name == EAGER:
            continue
        if is_slow and name in FAST_POINTS_ONLY:
            skipped[name] = f"skipped where an eager step takes more than {SLOW_STEP:g} s"
            continue
        try:
            contender = build(problem)
        except UnavailableError as why:
            skipped[name] = str(why)
            continue
        check_gradients(contender, expected)
        contenders.append(contender)
    return measure_twice_if_noisy(point, skipped, lambda: timed_rounds(contenders, budget))


def measure_autocast(point: Point, budget: float) -> Measured:
    """Measure torchnn and eager under bfloat16 autocast with the loss; checked against eager in float32."""
    problem = make_problem(point)
    reference = eager(problem)
    reference.step()
    assert reference.gradients is not None
    expected = reference.gradients()
    contenders = [
        eager(problem, EAGER, bfloat16_autocast),
        ours(problem, bfloat16_autocast),
        eager(problem, AGAIN, bfloat16_autocast),
    ]
    for contender in contenders:
        check_gradients(contender, expected, TOLERANCE_OF_BFLOAT16)
    return measure_twice_if_noisy(point, {}, lambda: timed_rounds(contenders, budget))


def measure_block_rows(point: Point, budget: float, bfloat16: bool = False) -> Measured:
    """Measure torchnn with several block sizes, and with the block size that it chooses."""
    problem, context = make_problem(point), bfloat16_autocast if bfloat16 else nothing
    contenders = [eager(problem, EAGER, context), ours(problem, context), eager(problem, AGAIN, context)]
    contenders += [in_blocks(problem, rows, context) for rows in BLOCK_ROWS]
    return measure_twice_if_noisy(point, {}, lambda: timed_rounds(contenders, budget))


def measure_small_step(point: Point, budget: float) -> Measured:
    """Measure torchnn from its bare operations to its module, and eager."""
    problem = make_problem(point)
    contenders = [eager(problem), *[build(problem) for build in CONTENDERS_OF_A_SMALL_STEP]]
    contenders += [ours(problem), eager(problem, AGAIN)]
    return measure_twice_if_noisy(point, {}, lambda: timed_rounds(checked(contenders), budget))


def measure_without_loss(point: Point, budget: float) -> Measured:
    """Measure torchnn and eager without a loss: from a gradient of the output to the gradients of the parameters."""
    problem = make_problem(point)
    contenders = [
        without_loss(problem, sequential(point.sizes), EAGER),
        without_loss(problem, torchnn.MLP(point.sizes), OURS),
        without_loss(problem, sequential(point.sizes), AGAIN),
    ]
    return measure_twice_if_noisy(point, {}, lambda: timed_rounds(checked(contenders), budget))


def checked(contenders: Sequence[Contender]) -> Sequence[Contender]:
    """Check that all contenders give the gradients of the first, and return them."""
    reference = contenders[0]
    reference.step()
    assert reference.gradients is not None
    expected = [gradient.clone() for gradient in reference.gradients()]
    for contender in contenders:
        check_gradients(contender, expected)
    return contenders


def timed_rounds(contenders: Sequence[Contender], budget: float) -> Rounds:
    """Time each contender once per round, in a random order."""
    order, chance = list(contenders), random.Random(0)
    repetitions = {c.name: max(1, round(SHORTEST_TIMING * 1.2 / time_once(c.step))) for c in contenders}
    seconds: dict[str, list[float]] = {c.name: [] for c in contenders}
    gc.collect()
    gc.disable()
    try:
        start, busy, own, rounds = time.perf_counter(), busy_seconds(), time.process_time(), 0
        while rounds < FEWEST_ROUNDS or (rounds < MOST_ROUNDS and time.perf_counter() - start < budget):
            chance.shuffle(order)
            for contender in order:
                taken, steps = timed_for_long_enough(contender.step, repetitions[contender.name])
                repetitions[contender.name] = steps
                seconds[contender.name].append(taken)
            rounds += 1
        others = busy_seconds() - busy - (time.process_time() - own)
        return Rounds(seconds, others / (time.perf_counter() - start))
    finally:
        gc.enable()


def busy_seconds() -> float:
    """Processor time of all processes, including stolen time; 0 if the system is not Linux."""
    try:
        _, user, nice, system, _, _, *interrupts_and_stolen = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except (OSError, ValueError):
        return 0.0
    ticks = sum(map(int, (user, nice, system, *interrupts_and_stolen[:3])))
    return ticks / os.sysconf("SC_CLK_TCK")


def timed_for_long_enough(step: Callable[[], object], repetitions: int) -> tuple[float, int]:
    """Seconds of a step, and the number of steps timed, which is increased until the timing is long enough."""
    while True:
        taken = time_once(step, repetitions)
        if taken * repetitions >= SHORTEST_TIMING:
            return taken, repetitions
        repetitions = max(repetitions + 1, round(1.2 * SHORTEST_TIMING / taken))


def time_once(step: Callable[[], object], repetitions: int = 1) -> float:
    """Seconds of a step, averaged over some repetitions."""
    start = time.perf_counter()
    for _ in range(repetitions):
        step()
    return (time.perf_counter() - start) / repetitions


def why_busy() -> str | None:
    """Why this machine is not quiet enough to start, or None; the start of this process is not counted."""
    own = time.process_time() / 60
    load = os.getloadavg()[0] - own
    if load <= MOST_LOAD:
        return None
    return f"the load average is {load:.2f}, above {MOST_LOAD}: wait until the machine is quiet, or use --allow-busy"
