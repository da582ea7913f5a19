"""The health of a pass, measured: one definition each, for the warnings here and for `GradientHealth` in training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchnn.ops.activation import ACTIVATIONS

SATURATED = 0.01  # g'(z) below 1 % of its largest value: a sigmoid beyond |z| = 6, a tanh beyond |z| = 3
STEEPEST = {"sigmoid": 0.25, "tanh": 1.0}
VANISHED = 1e-3  # norm of a layer's gradient by that of the last layer's: 4 × Xavier keeps 7e-3 through 8 layers of 64
WRONG = 0.01  # of the size of an error a − y, which is at most 1


def slope(a: Tensor, activation: str) -> Tensor:
    """g'(z) from the output a."""
    return ACTIVATIONS[activation].backward(torch.ones_like(a), a)


def saturated_share(a: Tensor, activation: str) -> Tensor:
    """The share of examples on which each neuron is saturated, from outputs (m, n), as (n,); 0 where g never is."""
    if activation not in STEEPEST:
        return a.new_zeros(a.shape[-1])
    return (slope(a, activation) < SATURATED * STEEPEST[activation]).to(a.dtype).mean(0)


def dead(a: Tensor, activation: str) -> Tensor:
    """Which ReLUs are 0 on every example, from outputs (m, n), as booleans (n,)."""
    if activation != "relu":
        return torch.zeros(a.shape[-1], dtype=torch.bool, device=a.device)
    return (a <= 0).all(0)


def relative_norms(gradients: Sequence[Tensor]) -> Tensor:
    """‖∂J/∂W[l]‖ / ‖∂J/∂W[L]‖ for l = 1 … L; 1 throughout where the last is 0."""
    norms = torch.stack([torch.linalg.vector_norm(gradient.detach().float()) for gradient in gradients])
    return torch.where(norms[-1] > 0, norms / norms[-1], torch.ones_like(norms))


def delta_by_autograd(z: Tensor, y: Tensor) -> Tensor:
    """∂𝓛/∂z of BCELoss after Sigmoid as autograd computes it, the two terms apart, in the dtype of z."""
    with torch.enable_grad():
        logits = z.detach().requires_grad_()
        loss = torch.nn.functional.binary_cross_entropy(torch.sigmoid(logits), y.to(z.dtype), reduction="sum")
        (delta,) = torch.autograd.grad(loss, logits)
    return delta


def lost_errors(z: Tensor, y: Tensor, delta: Tensor) -> Tensor:
    """Where autograd's ∂𝓛/∂z after a saturated sigmoid is off by a hundredth or more, as booleans (m, n[L]).

    Args:
        z: logits, in the dtype of the training.
        y: targets.
        delta: the right δ, without a positive-class weight.
    """
    return ~((delta_by_autograd(z, y) - delta).abs() <= WRONG)
