"""The two networks of 1986 and what they learn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

import torchnn

INITIAL = 0.3  # uniform within ±0.3, as the paper says of symmetry; of XOR it says only: small


class DirectLinks(nn.Module):
    """One sigmoid neuron between the inputs and a sigmoid output that sees the inputs too: XOR's network.

    Shapes: x (*, 2), output and target (*, 1). With a target it returns what `torchnn.MLP` returns.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torchnn.DenseSigmoid(2, 1)
        self.output = torchnn.MLP([3, 1])

    def forward(self, x: Tensor, target: Tensor | None = None, **options: Any) -> Any:
        return self.output(torch.cat([x, self.hidden(x)], dim=-1), target, **options)


@dataclass(frozen=True)
class Problem:
    """What is to be learned.

    Attributes:
        bits: of an input.
        is_positive: of inputs (rows, bits), which are answered with 1; (rows,).
        network: makes the network.
        lr: η (XOR) or ε (symmetry) of the publication.
        published: sweeps that the publication reports of its one run.
    """

    bits: int
    is_positive: Callable[[Tensor], Tensor]
    network: Callable[[], nn.Module]
    lr: float
    published: int

    def patterns(self) -> tuple[Tensor, Tensor]:
        """All inputs (rows, bits) in the order of counting, and their targets (rows, 1)."""
        x = torch.tensor(list(product((0.0, 1.0), repeat=self.bits)))
        return x, self.is_positive(x).float().unsqueeze(1)


PROBLEMS = {
    "XOR": Problem(2, lambda x: x.sum(1) == 1, DirectLinks, lr=0.5, published=558),
    "symmetry": Problem(6, lambda x: (x == x.flip(1)).all(1), partial(torchnn.MLP, [6, 2, 1]), lr=0.1, published=1425),
}


@dataclass(frozen=True)
class Mirror:
    """How one hidden neuron of the symmetry network weighs its six inputs.

    Attributes:
        asymmetry: largest |w[i] + w[7−i]| as a fraction of the largest weight; 0 where signs are mirrored exactly.
        middle: the middle of the three sizes, by the smallest; 2 in the publication.
        large: the largest by the smallest; 4 in the publication.
    """

    asymmetry: float
    middle: float
    large: float

    def is_as_published(self, tolerance: float) -> bool:
        """Whether signs are mirrored and the sizes are as 1 : 2 : 4, each within a fraction."""
        near = abs(self.middle / 2 - 1) <= tolerance and abs(self.large / 4 - 1) <= tolerance
        return self.asymmetry <= tolerance and near


def mirror(weights: Tensor) -> Mirror:
    """Of the weights (6,) of a hidden neuron."""
    ends, others = weights[:3], weights[3:].flip(0)
    sizes = (ends - others).abs().sort().values
    _, middle, large = (sizes / sizes[0]).tolist()
    asymmetry = float((ends + others).abs().max() / weights.abs().max())
    return Mirror(asymmetry, middle, large)
