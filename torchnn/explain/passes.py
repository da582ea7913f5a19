"""Forward passes, backward passes and steps of gradient descent, layer by layer, by the operations used in training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchnn.explain.network import Layer
from torchnn.explain.records import Descent, Frame
from torchnn.ops import loss as losses
from torchnn.ops.activation import ACTIVATIONS
from torchnn.ops.dense import dense_backward, dense_forward
from torchnn.ops.network.loss import cancels

Gradient = tuple[Tensor, Tensor | None]  # of a layer's weight and bias

MAX_FRAMES = 41
GRID_POINTS = 33  # along each side of a surface
MARGIN = 0.35  # around the examples, as a share of their range


def forward(layers: Sequence[Layer], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """z[1] … z[L], and a[0] … a[L]."""
    zs: list[Tensor] = []
    activations = [x]
    for layer in layers:
        zs.append(dense_forward(activations[-1], layer.weight, layer.bias))
        activations.append(ACTIVATIONS[layer.activation].forward(zs[-1]))
    return zs, activations


def loss_elements(z: Tensor, y: Tensor, activation: str, loss: str, p: Tensor | None) -> Tensor:
    """𝓛 of each element, from the weighted sums of the last layer."""
    if cancels(activation, loss):
        return losses.binary_cross_entropy_with_logits_forward(z, y, p)
    a = ACTIVATIONS[activation].forward(z)
    if loss == "mse":
        return losses.mse_loss_forward(a, y)
    if not bool(((a >= 0) & (a <= 1)).all()):  # after a step of gradient descent the outputs may leave [0, 1]
        return torch.full_like(a, torch.nan)
    return losses.binary_cross_entropy_forward(a, y, p)


def mean_loss(layers: Sequence[Layer], x: Tensor, y: Tensor, loss: str, p: Tensor | None) -> Tensor:
    """J of a network."""
    zs, _ = forward(layers, x)
    return loss_elements(zs[-1], y, layers[-1].activation, loss, p).mean()


def grad_output(a: Tensor, y: Tensor, loss: str, p: Tensor | None) -> Tensor:
    """∂𝓛/∂a[L]."""
    return losses.mse_loss_slope(a, y) if loss == "mse" else losses.binary_cross_entropy_slope(a, y, p)


def output_delta(z: Tensor, a: Tensor, y: Tensor, activation: str, loss: str, p: Tensor | None) -> Tensor:
    """δ[L] of each example, by the cancelled form if there is one."""
    if cancels(activation, loss):
        return losses.binary_cross_entropy_with_logits_delta(z, y, p)
    return ACTIVATIONS[activation].backward(grad_output(a, y, loss, p), a)


def backward(
    layers: Sequence[Layer], zs: Sequence[Tensor], activations: Sequence[Tensor], y: Tensor, loss: str, p: Tensor | None
) -> list[Gradient]:
    """∂J/∂W and ∂J/∂b of every layer. The mean over the elements of the loss is taken last."""
    gradients: list[Gradient] = []
    delta = output_delta(zs[-1], activations[-1], y, layers[-1].activation, loss, p)
    for number in range(len(layers), 0, -1):
        layer = layers[number - 1]
        bias_shape = None if layer.bias is None else layer.bias.shape
        grad_input, grad_weight, grad_bias = dense_backward(delta, activations[number - 1], layer.weight, bias_shape)
        assert grad_input is not None
        assert grad_weight is not None
        mean_grad_bias = None if grad_bias is None else losses.reduce_backward(grad_bias, y.numel(), "mean")
        gradients.insert(0, (losses.reduce_backward(grad_weight, y.numel(), "mean"), mean_grad_bias))
        if number > 1:
            delta = ACTIVATIONS[layers[number - 2].activation].backward(grad_input, activations[number - 1])
    return gradients


def gradient_step(layers: Sequence[Layer], gradients: Sequence[Gradient], lr: float) -> list[Layer]:
    """The network after one step of gradient descent: every parameter minus η times its gradient."""
    return [
        Layer(
            layer.weight - lr * grad_weight,
            None if layer.bias is None or grad_bias is None else layer.bias - lr * grad_bias,
            layer.activation,
        )
        for layer, (grad_weight, grad_bias) in zip(layers, gradients, strict=True)
    ]


def descend(
    layers: Sequence[Layer], x: Tensor, y: Tensor, loss: str, p: Tensor | None, lr: float, steps: int
) -> Descent:
    """Take `steps` steps of gradient descent from `layers`, which do not change, and keep some of them as frames."""
    has_surface = x.shape[1] == 2 and len(layers[-1].weight) == 1
    horizontal, vertical = (grid_axis(x[:, 0]), grid_axis(x[:, 1])) if has_surface else (None, None)
    # The loss falls fastest at the start, so more frames are kept there.
    kept = {round(steps * (number / (MAX_FRAMES - 1)) ** 2) for number in range(MAX_FRAMES)}
    values: list[float] = []
    frames: list[Frame] = []
    for step in range(steps + 1):
        values.append(float(mean_loss(layers, x, y, loss, p)))
        if step in kept:
            surface = None
            if horizontal is not None and vertical is not None:
                points = torch.cartesian_prod(vertical, horizontal).flip(1)
                surface = forward(layers, points)[1][-1].reshape(GRID_POINTS, GRID_POINTS)
            frames.append(Frame(step, values[-1], surface))
        if step < steps:
            layers = gradient_step(layers, backward(layers, *forward(layers, x), y, loss, p), lr)
    return Descent(lr=lr, losses=tuple(values), frames=tuple(frames), horizontal=horizontal, vertical=vertical)


def grid_axis(values: Tensor) -> Tensor:
    """Evenly spaced points that cover all values, with a margin."""
    low, high = float(values.min()), float(values.max())
    margin = MARGIN * (high - low) or 1.0
    return torch.linspace(low - margin, high + margin, GRID_POINTS, dtype=values.dtype)
