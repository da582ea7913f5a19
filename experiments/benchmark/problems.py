"""The points of the grid, and the data and parameters for all contenders."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

import torchnn

THREADS = 2
GRID_SIZES = (
    (30, 16, 1),
    (30, 64, 64, 1),
    (64, 128, 128, 1),
    (28, 300, 300, 300, 300, 1),
    (256, 1024, 1024, 1),
    (1024, 4096, 4096, 1),
)
GRID_BATCHES = (32, 256, 1024, 8192, 65536)
DEEP = GRID_SIZES[3]  # used in the parts autocast, memory and accuracy

MOST_BYTES = 12 * 2**30
MOST_SECONDS = 20.0
FLOP_PER_SECOND = 1e11  # low for two cores: skipping a point is better than waiting for it


@dataclass(frozen=True)
class Point:
    """The sizes of a network and the rows of a batch."""

    sizes: tuple[int, ...]
    batch: int

    @property
    def name(self) -> str:
        return f"{'-'.join(map(str, self.sizes))} at {self.batch:,}"

    @property
    def num_parameters(self) -> int:
        return sum(m * n + m for n, m in pairwise(self.sizes))


@dataclass(frozen=True)
class Problem:
    """A batch and the initial parameters.

    Attributes:
        point: sizes and rows.
        x: features, shape (rows, n[0]).
        y: target, 0 or 1, shape (rows, 1).
        parameters: W[1], b[1], W[2], b[2] …
    """

    point: Point
    x: Tensor
    y: Tensor
    parameters: tuple[Tensor, ...]


def make_problem(point: Point, seed: int = 0) -> Problem:
    """Normally distributed features, labels from a noisy linear rule, and the initial weights of `torchnn.MLP`."""
    torch.manual_seed(seed)
    parameters = tuple(p.detach() for p in torchnn.MLP(point.sizes).parameters())
    x = torch.randn(point.batch, point.sizes[0])
    rule = torch.randn(point.sizes[0], 1) / point.sizes[0] ** 0.5
    y = (x @ rule + torch.randn(point.batch, 1) > 0).float()
    return Problem(point, x, y, parameters)


def eager_bytes(point: Point) -> int:
    """An estimate of the bytes that eager needs for a step: features, activations, two δ, parameters and gradients."""
    _, *outputs = point.sizes
    return 4 * point.batch * (sum(point.sizes) + 2 * max(outputs)) + 8 * point.num_parameters


def why_too_large(point: Point) -> str | None:
    """Why a point is skipped, or None."""
    seconds = 6 * point.num_parameters * point.batch / FLOP_PER_SECOND
    if eager_bytes(point) > MOST_BYTES:
        return f"eager would need about {eager_bytes(point) / 2**30:.0f} GiB"
    if seconds > MOST_SECONDS:
        return f"an eager step would take about {seconds:.0f} s"
    return None
