"""The operations of torchnn, each with the plain torch expression that it must equal."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

import torchnn.functional as F

MakeInputs = Callable[..., tuple[Tensor, ...]]
SIZES = (3, 5, 4, 2)  # of the network
ACTIVATIONS = ("tanh", "sigmoid", "sigmoid")
TORCH = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


class Own(NamedTuple):
    """An operation, its reference and its inputs."""

    name: str
    call: Callable[..., Any]
    reference: Callable[..., Any] | None
    make_inputs: MakeInputs


def normal(*shapes: tuple[int, ...]) -> MakeInputs:
    """Inputs of these shapes."""

    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(torch.randn(s, generator=generator, dtype=torch.float64).to(device, dtype) for s in shapes)

    return make


def with_probabilities(*shapes: tuple[int, ...], of: tuple[int, ...]) -> MakeInputs:
    """Inputs of these shapes; those at the positions `of` lie between 0.05 and 0.95."""
    plain = normal(*shapes)

    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
        made = plain(dtype=torch.float64, device=torch.device("cpu"), generator=generator)
        ranged = (0.05 + 0.9 * torch.sigmoid(t) if i in of else t for i, t in enumerate(made))
        return tuple(t.to(device, dtype) for t in ranged)

    return make


def constant(make_inputs: MakeInputs, position: int) -> MakeInputs:
    """The same inputs, all but one of which ask for a gradient."""

    def make(**options: Any) -> tuple[Tensor, ...]:
        return tuple(t.requires_grad_(i != position) for i, t in enumerate(make_inputs(**options)))

    return make


def layer(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    return TORCH[activation](functional.linear(x, weight, bias))


def step(z: Tensor) -> Tensor:
    """1 above 0, with the gradient of 0 that autograd does not give to a comparison."""
    return (z > 0).to(z.dtype) + 0 * z


def network(x: Tensor, *parameters: Tensor) -> Tensor:
    """The layers one after the other."""
    weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
    for weight, bias, activation in zip(weights, biases, ACTIVATIONS, strict=True):
        x = layer(x, weight, bias, activation)
    return x


def network_loss(x: Tensor, target: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the loss that is exact for them."""
    weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
    for weight, bias, activation in zip(weights[:-1], biases[:-1], ACTIVATIONS, strict=False):
        x = layer(x, weight, bias, activation)
    z = functional.linear(x, weights[-1], biases[-1])
    return functional.binary_cross_entropy_with_logits(z, target), torch.sigmoid(z)


def weighted(loss: Callable[..., Tensor], z: Tensor, target: Tensor) -> Tensor:
    """A weight for each class, and one for its positives."""
    of_class = torch.linspace(0.5, 2, z.shape[-1], dtype=z.dtype, device=z.device)
    return loss(z, target, of_class, pos_weight=of_class.flip(0), reduction="none")


def our_network(x: Tensor, *parameters: Tensor) -> Tensor:
    return F.mlp(x, parameters[:3], parameters[3:], ACTIVATIONS)


def our_network_loss(x: Tensor, target: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    return F.mlp_loss(x, target, parameters[:3], parameters[3:], ACTIVATIONS)


DENSE = normal((5, 3), (4, 3), (4,))
OF_NETWORK = [(m, n) for n, m in pairwise(SIZES)] + [(m,) for m in SIZES[1:]]

OWN = [
    Own("dense", F.dense, functional.linear, DENSE),
    Own("dense, shared bias", F.dense, functional.linear, normal((5, 3), (4, 3), (1,))),
    *(
        Own(
            f"dense_activation {name}",
            partial(F.dense_activation, activation=name),
            partial(layer, activation=name),
            DENSE,
        )
        for name in TORCH
    ),
    Own("sigmoid", F.sigmoid, torch.sigmoid, normal((5, 4))),
    Own("tanh", F.tanh, torch.tanh, normal((5, 4))),
    Own("relu", F.relu, torch.relu, normal((5, 4))),
    Own("step", F.step, step, normal((5, 4))),
    Own(
        "binary_cross_entropy",
        F.binary_cross_entropy,
        functional.binary_cross_entropy,
        with_probabilities((5, 4), (5, 4), of=(0, 1)),
    ),
    Own(
        "binary_cross_entropy_with_logits",
        F.binary_cross_entropy_with_logits,
        functional.binary_cross_entropy_with_logits,
        with_probabilities((5, 4), (5, 4), of=(1,)),
    ),
    Own(
        "binary_cross_entropy_with_logits, weighted, by element",
        partial(weighted, F.binary_cross_entropy_with_logits),
        partial(weighted, functional.binary_cross_entropy_with_logits),
        with_probabilities((5, 4), (5, 4), of=(1,)),
    ),
    Own("mse_loss", F.mse_loss, functional.mse_loss, normal((5, 4), (5, 4))),
    Own("mlp", our_network, network, normal((6, 3), *OF_NETWORK)),
    Own(
        "mlp_loss",
        our_network_loss,
        network_loss,
        constant(with_probabilities((6, 3), (6, 2), *OF_NETWORK, of=(1,)), 1),
    ),
]
