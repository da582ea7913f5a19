"""Read the layers of a network: any MLP, or a Sequential of linear layers and activations."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchnn._torch import own_parameters
from torchnn.modules.activation import Joined, ReLU, Sigmoid, Step, Tanh
from torchnn.modules.dense import Dense, DenseActivation, DenseSigmoid, JoinedDense
from torchnn.modules.mlp import MLP, is_unmodified

NAME_OF_ACTIVATION: dict[type[nn.Module], str] = {
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
KNOWN = "Linear, Sigmoid, Tanh, ReLU, Identity or the layers of torchnn"


@dataclass(frozen=True)
class Layer:
    """The parameters and the activation of one layer.

    Attributes:
        weight: (n[l], n[l−1]).
        bias: (n[l],), (1,) or None.
        activation: the name of g.
    """

    weight: Tensor
    bias: Tensor | None
    activation: str

    def cast(self, dtype: torch.dtype) -> "Layer":
        """A detached copy on the CPU in another dtype."""
        bias = None if self.bias is None else _copy(self.bias, dtype)
        return Layer(_copy(self.weight, dtype), bias, self.activation)

    @property
    def bias_kind(self) -> str:
        """Whether b has one number "per neuron", one "shared" number, or "none"."""
        if self.bias is None:
            return "none"
        return "shared" if self.bias.numel() == 1 < len(self.weight) else "per neuron"


def _copy(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    return parameter.detach().to("cpu", dtype, copy=True)


def layers_of(model: nn.Module) -> list[Layer]:
    """The layers of a network, with its own parameters, not copies.

    Raises:
        ValueError: the network contains a module that cannot be explained. The message names it.

    >>> [layer.activation for layer in layers_of(nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)))]
    ['tanh', 'identity']
    """
    layers: list[Layer] = []
    expects_activation = False
    for path, module in modules_in_order(model):
        kind = type(module)
        check_untouched(module, path)
        if kind in DENSE or kind in LINEAR:
            layers.append(layer_of(module, path))
            expects_activation = kind in LINEAR and not isinstance(module, JoinedDense)
        elif kind in NAME_OF_ACTIVATION:
            if not expects_activation:
                raise ValueError(f"{described(path, module)} does not follow a linear layer: put one before it.")
            if isinstance(module, Step) and module.threshold != 0:
                raise ValueError(
                    f"{described(path, module)} has a threshold that is not 0: subtract it from the bias instead."
                )
            layers[-1] = Layer(layers[-1].weight, layers[-1].bias, NAME_OF_ACTIVATION[kind])
            expects_activation = False
        elif kind not in (nn.Identity, Joined):
            raise ValueError(f"{described(path, module)} cannot be explained: give an MLP, or a Sequential of {KNOWN}.")
    if not layers:
        raise ValueError(f"{type(model).__name__} has no layer to explain: give an MLP, or a Sequential with a Linear.")
    return layers


def modules_in_order(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that a network runs one after the other, with their paths."""
    if type(model) is MLP:
        check_untouched(model, path)
        for name, layer in model.layers.named_children():
            yield f"{path}layers.{name}", layer
    elif type(model) is nn.Sequential:
        check_untouched(model, path)
        for name, module in model.named_children():
            nested = type(module) in (MLP, nn.Sequential)
            yield from modules_in_order(module, f"{path}{name}." if nested else f"{path}{name}")
    else:
        yield path, model


def check_untouched(module: nn.Module, path: str) -> None:
    if not is_unmodified(module):
        raise ValueError(f"{described(path, module)} has hooks or its own forward: explain needs a plain layer.")


def layer_of(module: nn.Module, path: str) -> Layer:
    own = own_parameters(module)
    weight, bias = own.get("weight"), own.get("bias")
    if weight is None or weight.dim() != 2:
        raise ValueError(f"{described(path, module)} has a parametrised weight: remove the parametrisation first.")
    if weight.is_complex():
        raise ValueError(f"{described(path, module)} has complex weights: explain takes real numbers only.")
    if isinstance(weight, nn.parameter.UninitializedParameter) or weight.numel() == 0:
        raise ValueError(f"{described(path, module)} has no weights yet: call the model once first.")
    if isinstance(module, JoinedDense):
        return Layer(weight, bias, module.joined_activation)
    return Layer(weight, bias, module.activation if isinstance(module, DenseActivation) else "identity")


def described(path: str, module: nn.Module) -> str:
    """A module's place and class, for an error message."""
    place = path.rstrip(".")
    return f"layer {place} ({type(module).__name__})" if place else type(module).__name__
