"""Networks to explain, and the same networks built from torch's own modules."""

from typing import Any

import torch
from torch import Tensor, nn

import torchnn
from torchnn.explain import Trace, trace

IN_TORCH: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "step": torchnn.Step,  # torch has none
}


def network(activation: str = "sigmoid", output: str = "sigmoid", bias: Any = True, outputs: int = 1) -> torchnn.MLP:
    """A 3-4-2 network with some outputs, in float64, with biases that are not zero."""
    model = torchnn.MLP([3, 4, 2, outputs], activation, output, bias, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5)
    return model


def data(rows: int = 5, outputs: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs, and targets between 0 and 1, so that both terms of the loss matter."""
    return torch.randn(rows, 3, dtype=torch.float64), torch.rand(rows, outputs, dtype=torch.float64)


def dense(model: torchnn.MLP, position: int) -> torchnn.DenseActivation:
    """A layer of a network, by its position."""
    layer = model.layers[position]
    assert isinstance(layer, torchnn.DenseActivation)
    return layer


def in_torch(model: torchnn.MLP) -> nn.Sequential:
    """The same network in torch's own modules. A shared bias is repeated for every neuron."""
    modules: list[nn.Module] = []
    for position in range(len(model.layers)):
        layer = dense(model, position)
        bias: Tensor | None = layer.bias
        linear = nn.Linear(layer.in_features, layer.out_features, bias is not None, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(layer.weight)
            if bias is not None:
                linear.bias.copy_(bias)
        modules += [linear, IN_TORCH[layer.activation]()]
    return nn.Sequential(*modules)


def small(**options: Any) -> Trace:
    """The trace of a 2-3-1 network on two points."""
    torch.manual_seed(3)
    model = torchnn.MLP([2, 3, 1], dtype=torch.float64)
    points = torch.tensor([[0.3, -0.7], [-1.1, 0.4]], dtype=torch.float64)
    return trace(model, points, torch.tensor([1.0, 0.0]), **options)
