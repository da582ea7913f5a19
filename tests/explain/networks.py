"""Networks to explain, with their twins in torch's own modules."""

from typing import Any

import torch
from torch import Tensor, nn

import torchnn
from torchnn.explain import Trace, trace

TWINS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "step": torchnn.Step,
}


def network(activation: str = "sigmoid", output: str = "sigmoid", bias: Any = True, outputs: int = 1) -> torchnn.MLP:
    """A 3-4-2-outputs network in float64, with biases that are not zero."""
    model = torchnn.MLP([3, 4, 2, outputs], activation, output, bias, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5)
    return model


def data(rows: int = 5, outputs: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs, and soft targets, so that both halves of the loss count."""
    return torch.randn(rows, 3, dtype=torch.float64), torch.rand(rows, outputs, dtype=torch.float64)


def dense(model: torchnn.MLP, position: int) -> torchnn.DenseActivation:
    """A layer of a network, by its place."""
    layer = model.layers[position]
    assert isinstance(layer, torchnn.DenseActivation)
    return layer


def in_torch(model: torchnn.MLP) -> nn.Sequential:
    """The same numbers in torch's own modules (a step has no twin); a shared bias is written out."""
    parts: list[nn.Module] = []
    for position in range(len(model.layers)):
        layer = dense(model, position)
        bias: Tensor | None = layer.bias
        twin = nn.Linear(layer.in_features, layer.out_features, bias is not None, dtype=torch.float64)
        with torch.no_grad():
            twin.weight.copy_(layer.weight)
            if bias is not None:
                twin.bias.copy_(bias)
        parts += [twin, TWINS[layer.activation]()]
    return nn.Sequential(*parts)


def small(**options: Any) -> Trace:
    """The trace of a 2-3-1 network on two points."""
    torch.manual_seed(3)
    model = torchnn.MLP([2, 3, 1], dtype=torch.float64)
    points = torch.tensor([[0.3, -0.7], [-1.1, 0.4]], dtype=torch.float64)
    return trace(model, points, torch.tensor([1.0, 0.0]), **options)
