"""Plain gradient descent, step after step, with the surface of the output where two inputs let it be drawn."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchnn.explain.network import Layer
from torchnn.explain.parts import Descent, Frame
from torchnn.explain.passes import backward, descended, forward, value_of

FRAMES = 41  # that are kept, at most
GRID = 33  # points along each side of a surface
MARGIN = 0.35  # of the spread of the examples, around them


def descend(
    layers: Sequence[Layer], x: Tensor, y: Tensor, loss: str, p: Tensor | None, lr: float, steps: int
) -> Descent:
    """Take `steps` steps from `layers`, which stay as they are, and keep some of them as frames."""
    can_be_drawn = x.shape[1] == 2 and len(layers[-1].weight) == 1
    axes = [axis(x[:, column]) for column in (0, 1)] if can_be_drawn else None
    points = None if axes is None else torch.cartesian_prod(axes[1], axes[0]).flip(1)
    kept = {round(steps * (number / (FRAMES - 1)) ** 2) for number in range(FRAMES)}  # closer where it is faster
    values: list[float] = []
    frames: list[Frame] = []
    for step in range(steps + 1):
        value = float(value_of(layers, x, y, loss, p))
        values.append(value)
        if step in kept:
            surface = None if points is None else forward(layers, points)[1][-1].reshape(GRID, GRID)
            frames.append(Frame(step, value, surface))
        if step < steps:
            layers = descended(layers, backward(layers, *forward(layers, x), y, loss, p), lr)
    horizontal, vertical = axes if axes is not None else (None, None)
    return Descent(lr, tuple(values), tuple(frames), horizontal, vertical)


def axis(values: Tensor) -> Tensor:
    """Grid points that hold all values, with a margin."""
    low, high = float(values.min()), float(values.max())
    margin = MARGIN * (high - low) or 1.0
    return torch.linspace(low - margin, high + margin, GRID, dtype=values.dtype)
