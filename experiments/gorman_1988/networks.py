"""Gorman and Sejnowski's networks: many runs at once, each with training rows of its own."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import torchnn

from ..common.many import ManyNetworks, drawn

OUTPUTS = 2  # one for the cylinder, one for the rock
INITIAL, RATE, MARGIN = 0.3, 2.0, 0.2


class SonarNetworks(ManyNetworks):
    """A network for every number of hidden neurons and every run, numbers first.

    A network that has fewer hidden neurons than the widest has the others too, but with a bias of −∞: their activation
    and its slope are 0, so that they neither say nor learn anything.

    Args:
        features: number of inputs.
        hidden: numbers of hidden neurons; (0,) for none, where the inputs reach the outputs directly.
        seeds: of the initial weights, one for each run.
    """

    def __init__(self, features: int, hidden: Sequence[int], seeds: Sequence[int]) -> None:
        widest = max(hidden)
        network = torchnn.MLP([features, *([widest] if widest else []), OUTPUTS])
        each = []
        for number in hidden:
            for seed in seeds:
                parameters = drawn(network, torch.Generator().manual_seed(seed), INITIAL)
                if widest:
                    parameters["layers.0.bias"][number:] = -torch.inf
                each.append(parameters)
        super().__init__(network, each)
        self.hidden, self.num_runs = list(hidden), len(seeds)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Half the squared errors of a pattern, where an error is at least 0.2; mean over the patterns of an update."""
        x, y = (rows.repeat(len(self.hidden), 1, 1) for rows in batch)
        squared, output = self(x, y, own_rows=True, loss="mse", reduction="none", return_output=True)
        counts = (output - y).abs() >= MARGIN
        return 0.5 * (squared * counts).sum() / x.shape[1]  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.stacked, lr=RATE)

    @torch.no_grad()
    def right(self, x: Tensor, is_cylinder: Tensor) -> Tensor:
        """Whether the output of its class is the larger one, of each row; (numbers, runs, rows)."""
        outputs = self(x.to(self.device))
        found: Tensor = outputs[..., 0] > outputs[..., 1]
        return (found == is_cylinder.to(self.device)).view(len(self.hidden), self.num_runs, -1).cpu()


class Presentations:
    """Sweeps of each run through its training rows, in another order every time.

    Yields patterns (runs, rows of an update, features) and targets (runs, rows of an update, 2).

    Args:
        x: all rows.
        is_cylinder: their classes.
        rows: the training rows of each run, (runs, rows).
        num_sweeps: how many.
        rows_of_update: after how many patterns weights change.
    """

    def __init__(self, x: Tensor, is_cylinder: Tensor, rows: Tensor, num_sweeps: int, rows_of_update: int) -> None:
        self.x, self.rows, self.num_sweeps, self.rows_of_update = x, rows, num_sweeps, rows_of_update
        self.y = torch.stack([is_cylinder, ~is_cylinder], dim=1).float()

    def __len__(self) -> int:
        return self.num_sweeps * -(-self.rows.shape[1] // self.rows_of_update)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.num_sweeps):
            order = torch.rand(self.rows.shape, generator=generator).argsort(dim=1)
            for rows in self.rows.gather(1, order).split(self.rows_of_update, dim=1):
                yield self.x[rows], self.y[rows]


def thirteen_sets(num_rows: int, num_sets: int) -> tuple[Tensor, Tensor]:
    """Training and held-out rows of a random division, each set held out once; (sets, rows)."""
    size = num_rows // num_sets
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(0))[: size * num_sets]
    held_out = order.view(num_sets, size)
    train = torch.stack([order[~torch.isin(order, one)] for one in held_out])
    return train, held_out


def balanced_halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Training and held-out rows, (1, rows): each cluster of near rows divided between them.

    Rows in the order of the leaves of Ward's tree lie beside their neighbours; every other one is held out.
    """
    from scipy.cluster.hierarchy import leaves_list, ward

    leaves: Any = leaves_list(ward(x.double().numpy()))
    order = torch.from_numpy(leaves).long()
    return order[None, ::2], order[None, 1::2]
