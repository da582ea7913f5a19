"""What is explained: any MLP, and a Sequential of linear layers and activations, read as weights and names."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchnn.modules.activation import ReLU, Sigmoid, Step, Tanh
from torchnn.modules.dense import Dense, DenseActivation, DenseSigmoid
from torchnn.modules.joined import Joined, JoinedDense
from torchnn.modules.mlp import MLP
from torchnn.modules.untouched import is_untouched

ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.Sigmoid: "sigmoid",
    Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    Tanh: "tanh",
    nn.ReLU: "relu",
    ReLU: "relu",
    Step: "step",
}
LINEAR = (nn.Linear, Dense, JoinedDense)
DENSE = (DenseActivation, DenseSigmoid)
KNOWN = "Linear, Sigmoid, Tanh, ReLU and Identity, and the layers of torchnn"


@dataclass(frozen=True)
class Layer:
    """Parameters and activation of one layer.

    Attributes:
        weight: (n[l], n[l−1]).
        bias: (n[l],), (1,) or None.
        activation: name of g.
    """

    weight: Tensor
    bias: Tensor | None
    activation: str

    def cast(self, dtype: torch.dtype) -> "Layer":
        """A copy in another dtype, on the CPU, that no graph and no optimiser knows of."""
        bias = None if self.bias is None else _copy(self.bias, dtype)
        return Layer(_copy(self.weight, dtype), bias, self.activation)

    @property
    def bias_kind(self) -> str:
        """How many numbers b has: "per neuron", "shared" or "none"."""
        if self.bias is None:
            return "none"
        return "shared" if self.bias.numel() == 1 < len(self.weight) else "per neuron"


def _copy(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    return parameter.detach().to("cpu", dtype, copy=True)


def layers_of(model: nn.Module) -> list[Layer]:
    """The layers of a network, with its own parameters, uncopied.

    Raises:
        ValueError: a module whose derivation is not written here; the message names it.

    >>> [layer.activation for layer in layers_of(nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)))]
    ['tanh', 'identity']
    """
    layers: list[Layer] = []
    waits_for_activation = False
    for path, module in parts(model):
        kind = type(module)
        if not is_untouched(module):
            raise ValueError(f"{described(path, module)} has hooks or a forward of its own: explain it without them.")
        if kind in DENSE or kind in LINEAR:
            layers.append(layer_of(module, path))
            waits_for_activation = kind in LINEAR and not isinstance(module, JoinedDense)
        elif kind in ACTIVATIONS:
            if not waits_for_activation:
                raise ValueError(f"{described(path, module)} has no linear layer before it: put one there.")
            if isinstance(module, Step) and module.threshold != 0:
                raise ValueError(f"{described(path, module)} has a threshold: explain takes 0, put it into the bias.")
            layers[-1] = Layer(layers[-1].weight, layers[-1].bias, ACTIVATIONS[kind])
            waits_for_activation = False
        elif kind not in (nn.Identity, Joined):
            raise ValueError(f"{described(path, module)} cannot be explained: of a Sequential, {KNOWN} can.")
    if not layers:
        raise ValueError(f"{type(model).__name__} has no layer to explain: give an MLP or a Sequential with a Linear.")
    return layers


def parts(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that a network runs one after the other, with their paths."""
    if type(model) is MLP:
        if not is_untouched(model):
            raise ValueError(f"{described(path, model)} has hooks or a forward of its own: explain it without them.")
        for name, layer in model.layers.named_children():
            yield f"{path}layers.{name}", layer
    elif type(model) is nn.Sequential:
        if not is_untouched(model):
            raise ValueError(f"{described(path, model)} has hooks or a forward of its own: explain it without them.")
        for name, module in model.named_children():
            nested = type(module) in (MLP, nn.Sequential)
            yield from parts(module, f"{path}{name}." if nested else f"{path}{name}")
    else:
        yield path, model


def layer_of(module: nn.Module, path: str) -> Layer:
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if weight is None or weight.dim() != 2:
        raise ValueError(f"{described(path, module)} has no plain weight (it is parametrised): remove that first.")
    if weight.is_complex():
        raise ValueError(f"{described(path, module)} is complex: only real numbers are explained.")
    if isinstance(weight, nn.parameter.UninitializedParameter) or weight.numel() == 0:
        raise ValueError(f"{described(path, module)} has no weights yet: call the model once before.")
    if isinstance(module, JoinedDense):
        return Layer(weight, bias, module.joined_activation)
    return Layer(weight, bias, module.activation if isinstance(module, DenseActivation) else "identity")


def described(path: str, module: nn.Module) -> str:
    """A module by its place and class."""
    place = path.rstrip(".")
    return f"layer {place} ({type(module).__name__})" if place else type(module).__name__
