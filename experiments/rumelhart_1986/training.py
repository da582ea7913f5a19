"""Trains all seeds of a problem at once."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..common.many import ManyNetworks, random_parameters
from .networks import INITIAL, Problem

TOLERANCES = (0.5, 0.4, 0.2)  # largest allowed distance between an output and its target
MSE, BCE = "squared error", "cross-entropy"
LOSSES = {MSE: ("mse", 0.5), BCE: ("binary_cross_entropy", 1.0)}  # 1986: half the sum of squares
NEVER = -1


class ManySeeds(ManyNetworks):
    """The networks of all seeds of a problem.

    Args:
        problem: the problem to learn.
        loss: "squared error", half its sum as in 1986, or "cross-entropy", its sum.
        lr: learning rate, ε of symmetry and η of XOR.
        momentum: α.
        seeds: number of seeds.

    Attributes:
        solved: for each tolerance, the sweep after which all outputs of a seed were within it, or −1;
            shape (tolerances, seeds).
        weights: weights of each seed when it reached the last tolerance.
    """

    solved: Tensor

    def __init__(self, problem: Problem, loss: str, lr: float, momentum: float, seeds: int) -> None:
        network = problem.network()
        generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
        super().__init__(network, [random_parameters(network, generator, INITIAL) for generator in generators])
        self.problem, self.lr, self.momentum = problem, lr, momentum
        self.loss_name, self.scale = LOSSES[loss]
        self.register_buffer("solved", torch.full((len(TOLERANCES), seeds), NEVER))
        self.weights = {name: torch.full_like(self.stacked[i], torch.nan) for i, name in enumerate(self.names)}
        self.sweep = 0

    def training_step(self, batch: tuple[Tensor, Tensor, bool], batch_idx: int) -> Tensor:
        x, target, _ = batch
        return self.scale * self(x, target, loss=self.loss_name, reduction="sum").sum()  # type: ignore[no-any-return]

    def on_train_batch_end(self, outputs: Any, batch: tuple[Tensor, Tensor, bool], batch_idx: int) -> None:
        if batch[2]:
            self.sweep += 1
            self.look()

    @torch.no_grad()
    def look(self) -> None:
        """Record which seeds have solved the problem, and stop when all have."""
        x, y = (one.to(self.device) for one in self.problem.patterns())
        distance = (self(x) - y).abs().amax(dim=(1, 2))
        for i, tolerance in enumerate(TOLERANCES):
            new = (distance < tolerance) & (self.solved[i] == NEVER)
            if tolerance == TOLERANCES[-1]:
                for name, stacked in self.parameters_by_name().items():
                    now = new.view(-1, *[1] * (stacked.dim() - 1))
                    self.weights[name] = torch.where(now, stacked.detach(), self.weights[name].to(stacked.device))
            self.solved[i][new] = self.sweep
        if bool((self.solved[-1] != NEVER).all()):
            self.trainer.should_stop = True

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.stacked, lr=self.lr, momentum=self.momentum)


class Sweeps:
    """Presents all patterns repeatedly: all at once, or one after the other.

    Yields patterns, targets, and whether this is the end of a sweep.
    """

    solved: Tensor

    def __init__(self, problem: Problem, num_sweeps: int, one_by_one: bool) -> None:
        self.x, self.y = problem.patterns()
        self.num_sweeps, self.one_by_one = num_sweeps, one_by_one

    def __len__(self) -> int:
        return self.num_sweeps * (len(self.x) if self.one_by_one else 1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, bool]]:
        for _ in range(self.num_sweeps):
            if self.one_by_one:
                last = len(self.x) - 1
                for i in range(len(self.x)):
                    yield self.x[i : i + 1], self.y[i : i + 1], i == last
            else:
                yield self.x, self.y, True
