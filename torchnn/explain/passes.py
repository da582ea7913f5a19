"""One pass forward and one back, layer by layer, by the operations that train."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchnn.explain.network import Layer
from torchnn.ops import loss as losses
from torchnn.ops.activation import ACTIVATIONS
from torchnn.ops.dense import dense_backward, dense_forward
from torchnn.ops.network.loss import cancels

Gradient = tuple[Tensor, Tensor | None]  # of a layer's weight and bias


def forward(layers: Sequence[Layer], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """z[1] … z[L], and a[0] … a[L]."""
    zs: list[Tensor] = []
    activations = [x]
    for layer in layers:
        zs.append(dense_forward(activations[-1], layer.weight, layer.bias))
        activations.append(ACTIVATIONS[layer.activation].forward(zs[-1]))
    return zs, activations


def loss_elements(z: Tensor, y: Tensor, activation: str, loss: str, p: Tensor | None) -> Tensor:
    """𝓛 of each element from the weighted sums of the last layer."""
    if cancels(activation, loss):
        return losses.binary_cross_entropy_with_logits_forward(z, y, p)
    a = ACTIVATIONS[activation].forward(z)
    if loss == "mse":
        return losses.mse_loss_forward(a, y)
    if not bool(((a >= 0) & (a <= 1)).all()):  # a step of gradient descent has left the probabilities
        return torch.full_like(a, torch.nan)
    return losses.binary_cross_entropy_forward(a, y, p)


def value_of(layers: Sequence[Layer], x: Tensor, y: Tensor, loss: str, p: Tensor | None) -> Tensor:
    """J of a network."""
    zs, _ = forward(layers, x)
    return loss_elements(zs[-1], y, layers[-1].activation, loss, p).mean()


def loss_slope(a: Tensor, y: Tensor, loss: str, p: Tensor | None) -> Tensor:
    """∂𝓛/∂a[L]."""
    return losses.mse_loss_slope(a, y) if loss == "mse" else losses.binary_cross_entropy_slope(a, y, p)


def last_delta(z: Tensor, a: Tensor, y: Tensor, activation: str, loss: str, p: Tensor | None) -> Tensor:
    """δ[L] of each example, by the cancelled form where there is one."""
    if cancels(activation, loss):
        return losses.binary_cross_entropy_with_logits_delta(z, y, p)
    return ACTIVATIONS[activation].backward(loss_slope(a, y, loss, p), a)


def backward(
    layers: Sequence[Layer], zs: Sequence[Tensor], activations: Sequence[Tensor], y: Tensor, loss: str, p: Tensor | None
) -> list[Gradient]:
    """∂J/∂W and ∂J/∂b of every layer: δ down the layers, the mean over the elements of the loss last."""
    found: list[Gradient] = []
    delta = last_delta(zs[-1], activations[-1], y, layers[-1].activation, loss, p)
    for number in range(len(layers), 0, -1):
        layer = layers[number - 1]
        bias_shape = None if layer.bias is None else layer.bias.shape
        passed, grad_weight, grad_bias = dense_backward(delta, activations[number - 1], layer.weight, bias_shape)
        assert passed is not None
        assert grad_weight is not None
        mean = [None if g is None else losses.reduce_backward(g, y.numel(), "mean") for g in (grad_weight, grad_bias)]
        assert mean[0] is not None
        found.insert(0, (mean[0], mean[1]))
        if number > 1:
            delta = ACTIVATIONS[layers[number - 2].activation].backward(passed, activations[number - 1])
    return found


def descended(layers: Sequence[Layer], gradients: Sequence[Gradient], lr: float) -> list[Layer]:
    """Every parameter minus η times its gradient."""
    return [
        Layer(
            layer.weight - lr * weight,
            None if layer.bias is None or bias is None else layer.bias - lr * bias,
            layer.activation,
        )
        for layer, (weight, bias) in zip(layers, gradients, strict=True)
    ]
