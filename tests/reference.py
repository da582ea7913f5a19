"""Torch's equivalent of every operation: the textbook expression, differentiated by autograd."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z * 1,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}


def dense_activation(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return ACTIVATIONS[activation](functional.linear(x, weight, bias))


def sequential(sizes: list[int], activation: str = "sigmoid") -> torch.nn.Sequential:
    """The usual network, with every layer followed by its activation."""
    modules = {"sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "identity": torch.nn.Identity}
    layers: list[torch.nn.Module] = []
    for n, m in pairwise(sizes):
        layers += [torch.nn.Linear(n, m), modules[activation]()]
    layers[-1] = torch.nn.Sigmoid()
    return torch.nn.Sequential(*layers)
