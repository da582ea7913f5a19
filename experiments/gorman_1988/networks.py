"""Gorman and Sejnowski's networks: many runs at once, each with its own training rows."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import torchnn

from ..common.many import ManyNetworks, random_parameters

OUTPUTS = 2  # cylinder and rock
INITIAL, RATE, MARGIN = 0.3, 2.0, 0.2


class SonarNetworks(ManyNetworks):
    """A network for every number of hidden neurons and every run, ordered by number.

    All networks have as many hidden neurons as the widest one. The surplus neurons have a bias of −∞: their activation
    and its slope are 0, so they have no effect and do not learn.

    Args:
        features: number of inputs.
        hidden: numbers of hidden neurons; (0,) for none, where the inputs reach the outputs directly.
        seeds: seeds of the initial weights, one for each run.
    """

    def __init__(self, features: int, hidden: Sequence[int], seeds: Sequence[int]) -> None:
        widest = max(hidden)
        network = torchnn.MLP([features, *([widest] if widest else []), OUTPUTS])
        each = []
        for number in hidden:
            for seed in seeds:
                parameters = random_parameters(network, torch.Generator().manual_seed(seed), INITIAL)
                if widest:
                    parameters["layers.0.bias"][number:] = -torch.inf
                each.append(parameters)
        super().__init__(network, each)
        self.hidden, self.num_runs = list(hidden), len(seeds)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Half the sum of squared errors, mean over the patterns of an update; errors below 0.2 count as 0."""
        x, y = (rows.repeat(len(self.hidden), 1, 1) for rows in batch)
        squared, output = self(x, y, own_rows=True, loss="mse", reduction="none", return_output=True)
        counts = (output - y).abs() >= MARGIN
        return 0.5 * (squared * counts).sum() / x.shape[1]  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.stacked, lr=RATE)

    @torch.no_grad()
    def right(self, x: Tensor, is_cylinder: Tensor) -> Tensor:
        """Whether each row is classified correctly, by its larger output; shape (numbers, runs, rows)."""
        outputs = self(x.to(self.device))
        found: Tensor = outputs[..., 0] > outputs[..., 1]
        return (found == is_cylinder.to(self.device)).view(len(self.hidden), self.num_runs, -1).cpu()


class Presentations:
    """Sweeps of each run through its training rows, in a new order each time.

    Yields patterns, shape (runs, rows of an update, features), and targets, shape (runs, rows of an update, 2).

    Args:
        x: all rows.
        is_cylinder: their classes.
        rows: the training rows of each run, (runs, rows).
        num_sweeps: number of sweeps.
        rows_of_update: number of patterns in an update of the weights.
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
    """Training and held-out rows of a random division in which each set is held out once; shapes (sets, rows)."""
    size = num_rows // num_sets
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(0))[: size * num_sets]
    held_out = order.view(num_sets, size)
    train = torch.stack([order[~torch.isin(order, one)] for one in held_out])
    return train, held_out


def balanced_halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Training and held-out rows, shapes (1, rows), with each cluster of similar rows divided between them.

    In the order of the leaves of Ward's tree, similar rows are neighbours; every other row is held out.
    """
    from scipy.cluster.hierarchy import leaves_list, ward

    leaves: Any = leaves_list(ward(x.double().numpy()))
    order = torch.from_numpy(leaves).long()
    return order[None, ::2], order[None, 1::2]
