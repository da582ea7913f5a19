"""The network that is explained when none is given: 2-3-1, so small that every number fits."""

import torch
from torch import Tensor

from torchnn.modules.dense import DenseActivation
from torchnn.modules.mlp import MLP

WEIGHTS = ([[0.8, -0.5], [-0.6, 0.9], [0.4, 0.7]], [[0.9, -1.1, 0.3]])
BIASES = ([0.1, -0.2, 0.3], [0.2])


def example() -> tuple[MLP, Tensor, Tensor]:
    """A 2-3-1 sigmoid network with short weights, two points (2, 2) and their targets (2, 1)."""
    model = MLP([2, 3, 1], dtype=torch.float64)
    with torch.no_grad():
        for layer, weight, bias in zip(model.layers, WEIGHTS, BIASES, strict=True):
            assert isinstance(layer, DenseActivation)
            layer.weight.copy_(torch.tensor(weight))
            assert layer.bias is not None
            layer.bias.copy_(torch.tensor(bias))
    points = torch.tensor([[0.5, -1.0], [-1.5, 1.0]], dtype=torch.float64)
    return model, points, torch.tensor([[0.0], [1.0]], dtype=torch.float64)
