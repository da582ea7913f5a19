"""The data sets: two spirals and Banana."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.datasets import DATASETS


@dataclass(frozen=True)
class Points:
    """Points in the plane.

    Attributes:
        x: coordinates, (rows, 2).
        y: 0 or 1, (rows,).
        limit: plots show the square of ±limit.
    """

    x: Tensor
    y: Tensor
    limit: float


def two_spirals() -> Points:
    """The 194 points of Lang and Witbrock (1988): two spirals, each the other rotated by half a circle."""
    i = torch.arange(97)
    radius, angle = 6.5 * (104 - i) / 104, i * math.pi / 16
    one = torch.stack([radius * torch.sin(angle), radius * torch.cos(angle)], dim=1)
    return Points(torch.cat([one, -one]), torch.cat([torch.ones(97), torch.zeros(97)]), 7.0)


def banana() -> Points:
    """KEEL's Banana, 5,300 rows, 44.8 % positive."""
    found = DATASETS["banana"]()
    return Points(found.features, torch.from_numpy(found.labels).float(), 3.5)
