"""Measures of healthy gradients, used by the warnings of `trace` and by the callback `GradientHealth`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchnn.ops.activation import ACTIVATIONS

SATURATED = 0.01  # g'(z) below 1 % of its largest value: a sigmoid beyond |z| = 6, a tanh beyond |z| = 3
STEEPEST = {"sigmoid": 0.25, "tanh": 1.0}
# Norm of a layer's gradient divided by the norm of the last layer's. Xavier times 4 keeps 7e-3 through 8 layers of 64.
VANISHED = 1e-3
WRONG = 0.01  # absolute; the error a − y is at most 1


def slope(a: Tensor, activation: str) -> Tensor:
    """g'(z), computed from the output a."""
    return ACTIVATIONS[activation].backward(torch.ones_like(a), a)


def saturated_share(a: Tensor, activation: str) -> Tensor:
    """The share of examples on which each neuron is saturated, (n,), from outputs (m, n). 0 if g cannot saturate."""
    if activation not in STEEPEST:
        return a.new_zeros(a.shape[-1])
    return (slope(a, activation) < SATURATED * STEEPEST[activation]).to(a.dtype).mean(0)


def dead(a: Tensor, activation: str) -> Tensor:
    """Whether each ReLU is 0 on every example, (n,), from outputs (m, n)."""
    if activation != "relu":
        return torch.zeros(a.shape[-1], dtype=torch.bool, device=a.device)
    return (a <= 0).all(0)


def relative_norms(gradients: Sequence[Tensor]) -> Tensor:
    """‖∂J/∂W[l]‖ / ‖∂J/∂W[L]‖ for l = 1 … L. All are 1 if the last norm is 0."""
    norms = torch.stack([torch.linalg.vector_norm(gradient.detach().float()) for gradient in gradients])
    return torch.where(norms[-1] > 0, norms / norms[-1], torch.ones_like(norms))


def delta_by_autograd(z: Tensor, y: Tensor) -> Tensor:
    """∂𝓛/∂z of BCELoss after Sigmoid as autograd computes it, one factor after the other, in the dtype of z."""
    with torch.enable_grad():
        logits = z.detach().requires_grad_()
        loss = torch.nn.functional.binary_cross_entropy(torch.sigmoid(logits), y.to(z.dtype), reduction="sum")
        (delta,) = torch.autograd.grad(loss, logits)
    return delta


def lost_errors(z: Tensor, y: Tensor, delta: Tensor) -> Tensor:
    """Whether autograd's ∂𝓛/∂z after a sigmoid is wrong by more than 0.01, (m, n[L]).

    Args:
        z: logits, in the dtype used in training.
        y: targets.
        delta: the correct δ, without a positive-class weight.
    """
    return ~((delta_by_autograd(z, y) - delta).abs() <= WRONG)
