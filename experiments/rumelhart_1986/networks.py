"""The two networks of 1986 and their problems."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

import torchnn

INITIAL = 0.3  # uniform within ±0.3, as published for symmetry; for XOR the publication says only "small"


class DirectLinks(nn.Module):
    """The network of XOR: one hidden sigmoid neuron, and a sigmoid output that is also connected to the inputs.

    Shapes: x (*, 2), output and target (*, 1). With a target it returns the loss, as `torchnn.MLP` does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torchnn.DenseSigmoid(2, 1)
        self.output = torchnn.MLP([3, 1])

    def forward(self, x: Tensor, target: Tensor | None = None, **options: Any) -> Any:
        return self.output(torch.cat([x, self.hidden(x)], dim=-1), target, **options)


@dataclass(frozen=True)
class Problem:
    """A problem to learn.

    Attributes:
        bits: number of bits of an input.
        is_positive: maps inputs (rows, bits) to whether their target is 1, shape (rows,).
        network: makes the network.
        lr: published learning rate, η (XOR) or ε (symmetry).
        published: number of sweeps of the one published run.
    """

    bits: int
    is_positive: Callable[[Tensor], Tensor]
    network: Callable[[], nn.Module]
    lr: float
    published: int

    def patterns(self) -> tuple[Tensor, Tensor]:
        """All inputs (rows, bits) as binary numbers in ascending order, and their targets (rows, 1)."""
        x = torch.tensor(list(product((0.0, 1.0), repeat=self.bits)))
        return x, self.is_positive(x).float().unsqueeze(1)


PROBLEMS = {
    "XOR": Problem(2, lambda x: x.sum(1) == 1, DirectLinks, lr=0.5, published=558),
    "symmetry": Problem(6, lambda x: (x == x.flip(1)).all(1), partial(torchnn.MLP, [6, 2, 1]), lr=0.1, published=1425),
}


@dataclass(frozen=True)
class Mirror:
    """Ratios of the six weights of a hidden neuron of the symmetry network.

    Attributes:
        asymmetry: largest |w[i] + w[7−i]| as a fraction of the largest weight; 0 if they are mirrored exactly.
        middle: the middle size divided by the smallest; 2 in the publication.
        large: the largest size divided by the smallest; 4 in the publication.
    """

    asymmetry: float
    middle: float
    large: float

    def is_as_published(self, tolerance: float) -> bool:
        """Whether signs are mirrored and sizes have the ratio 1 : 2 : 4, each within a tolerance."""
        near = abs(self.middle / 2 - 1) <= tolerance and abs(self.large / 4 - 1) <= tolerance
        return self.asymmetry <= tolerance and near


def mirror(weights: Tensor) -> Mirror:
    """Compute the ratios from the weights (6,) of a hidden neuron."""
    ends, others = weights[:3], weights[3:].flip(0)
    sizes = (ends - others).abs().sort().values
    _, middle, large = (sizes / sizes[0]).tolist()
    asymmetry = float((ends + others).abs().max() / weights.abs().max())
    return Mirror(asymmetry, middle, large)
