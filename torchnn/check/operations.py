"""torchnn's own operations, each with the plain torch expression that it must equal."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import torchnn.functional as F

MakeInputs = Callable[..., tuple[Tensor, ...]]
SIZES = (3, 5, 4, 2)  # of the network
NETWORK_ACTIVATIONS = ("tanh", "sigmoid", "sigmoid")
TORCH_ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """Something to check: a name for the report, the function, its reference, and its inputs."""

    name: str
    call: Callable[..., Any]
    reference: Callable[..., Any] | None
    make_inputs: MakeInputs


def normal_inputs(*shapes: tuple[int, ...]) -> MakeInputs:
    """A `make_inputs` that draws normal random numbers of these shapes."""

    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(torch.randn(s, generator=generator, dtype=torch.float64).to(device, dtype) for s in shapes)

    return make


def inputs_with_probabilities(*shapes: tuple[int, ...], at: tuple[int, ...]) -> MakeInputs:
    """As `normal_inputs`, but the tensors at the positions `at` lie between 0.05 and 0.95."""
    normal = normal_inputs(*shapes)

    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
        made = normal(dtype=torch.float64, device=torch.device("cpu"), generator=generator)
        ranged = (0.05 + 0.9 * torch.sigmoid(t) if i in at else t for i, t in enumerate(made))
        return tuple(t.to(device, dtype) for t in ranged)

    return make


def with_constant(make_inputs: MakeInputs, position: int) -> MakeInputs:
    """The same inputs; the one at `position` requires no gradient, all others do."""

    def make(**options: Any) -> tuple[Tensor, ...]:
        return tuple(t.requires_grad_(i != position) for i, t in enumerate(make_inputs(**options)))

    return make


def reference_layer(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """A dense layer with an activation."""
    return TORCH_ACTIVATIONS[activation](functional.linear(x, weight, bias))


def reference_step(z: Tensor) -> Tensor:
    """1 where z > 0, otherwise 0. Adding 0·z gives the comparison a graph, with gradient 0."""
    return (z > 0).to(z.dtype) + 0 * z


def reference_network(x: Tensor, *parameters: Tensor) -> Tensor:
    """A network of dense layers; the parameters are all weights, then all biases."""
    weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
    for weight, bias, activation in zip(weights, biases, NETWORK_ACTIVATIONS, strict=True):
        x = reference_layer(x, weight, bias, activation)
    return x


def reference_network_loss(x: Tensor, target: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of that network, computed from its logits, and its output."""
    weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
    for weight, bias, activation in zip(weights[:-1], biases[:-1], NETWORK_ACTIVATIONS, strict=False):
        x = reference_layer(x, weight, bias, activation)
    z = functional.linear(x, weights[-1], biases[-1])
    return functional.binary_cross_entropy_with_logits(z, target), torch.sigmoid(z)


def weighted_loss(loss: Callable[..., Tensor], z: Tensor, target: Tensor) -> Tensor:
    """The loss with `weight` and `pos_weight`, one number for each class."""
    weight = torch.linspace(0.5, 2, z.shape[-1], dtype=z.dtype, device=z.device)
    return loss(z, target, weight, pos_weight=weight.flip(0), reduction="none")


def torchnn_network(x: Tensor, *parameters: Tensor) -> Tensor:
    """`reference_network` by torchnn."""
    return F.mlp(x, parameters[:3], parameters[3:], NETWORK_ACTIVATIONS)


def torchnn_network_loss(x: Tensor, target: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    """`reference_network_loss` by torchnn."""
    return F.mlp_loss(x, target, parameters[:3], parameters[3:], NETWORK_ACTIVATIONS)


DENSE_INPUTS = normal_inputs((5, 3), (4, 3), (4,))
PARAMETERS = [(m, n) for n, m in pairwise(SIZES)] + [(m,) for m in SIZES[1:]]

OPERATIONS = [
    Operation(name="dense", call=F.dense, reference=functional.linear, make_inputs=DENSE_INPUTS),
    Operation(
        name="dense, shared bias",
        call=F.dense,
        reference=functional.linear,
        make_inputs=normal_inputs((5, 3), (4, 3), (1,)),
    ),
    *(
        Operation(
            name=f"dense_activation {name}",
            call=partial(F.dense_activation, activation=name),
            reference=partial(reference_layer, activation=name),
            make_inputs=DENSE_INPUTS,
        )
        for name in TORCH_ACTIVATIONS
    ),
    Operation(name="sigmoid", call=F.sigmoid, reference=torch.sigmoid, make_inputs=normal_inputs((5, 4))),
    Operation(name="tanh", call=F.tanh, reference=torch.tanh, make_inputs=normal_inputs((5, 4))),
    Operation(name="relu", call=F.relu, reference=torch.relu, make_inputs=normal_inputs((5, 4))),
    Operation(name="step", call=F.step, reference=reference_step, make_inputs=normal_inputs((5, 4))),
    Operation(
        name="binary_cross_entropy",
        call=F.binary_cross_entropy,
        reference=functional.binary_cross_entropy,
        make_inputs=inputs_with_probabilities((5, 4), (5, 4), at=(0, 1)),
    ),
    Operation(
        name="binary_cross_entropy_with_logits",
        call=F.binary_cross_entropy_with_logits,
        reference=functional.binary_cross_entropy_with_logits,
        make_inputs=inputs_with_probabilities((5, 4), (5, 4), at=(1,)),
    ),
    Operation(
        name="binary_cross_entropy_with_logits, weighted, by element",
        call=partial(weighted_loss, F.binary_cross_entropy_with_logits),
        reference=partial(weighted_loss, functional.binary_cross_entropy_with_logits),
        make_inputs=inputs_with_probabilities((5, 4), (5, 4), at=(1,)),
    ),
    Operation(
        name="mse_loss", call=F.mse_loss, reference=functional.mse_loss, make_inputs=normal_inputs((5, 4), (5, 4))
    ),
    Operation(
        name="mlp", call=torchnn_network, reference=reference_network, make_inputs=normal_inputs((6, 3), *PARAMETERS)
    ),
    Operation(
        name="mlp_loss",
        call=torchnn_network_loss,
        reference=reference_network_loss,
        make_inputs=with_constant(inputs_with_probabilities((6, 3), (6, 2), *PARAMETERS, at=(1,)), 1),
    ),
]
