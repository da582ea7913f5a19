"""The last layer of the whole-network pass: from z[L] of a block to its output, loss and δ[L].

Reference: derivation, section 5.

δ[L] includes the scale of the reduction, 1/m for a mean of m elements; the elements of the loss do not.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchnn.ops.activation import ACTIVATIONS
from torchnn.ops.loss import (
    LOW_PRECISION,
    Derivative,
    apply_weight,
    at_least_float32,
    binary_cross_entropy_forward,
    binary_cross_entropy_slope,
    binary_cross_entropy_with_logits_delta,
    mse_loss_forward,
    mse_loss_slope,
)
from torchnn.ops.network.products import Block

# Above this z, log(1 + e^z) equals z in every dtype.
SOFTPLUS_IS_Z = 40.0

softplus: Any = torch.nn.functional.softplus  # its stub does not know `out`

Labels = tuple[Any, Tensor | None, Tensor | None]  # target y, element weight w and positive-class weight p of some rows


class LossFormulas(NamedTuple):
    """The elements 𝓛(a, y, p) of a loss of the output, and ∂𝓛/∂a."""

    forward: Derivative
    slope: Derivative


LOSS_FORMULAS = {
    "binary_cross_entropy": LossFormulas(binary_cross_entropy_forward, binary_cross_entropy_slope),
    "mse": LossFormulas(mse_loss_forward, mse_loss_slope),
}


def cancels(activation: str, loss: str | None) -> bool:
    """Return whether σ' cancels the denominator of the loss, so that δ[L] is computed from the logits."""
    return activation == "sigmoid" and loss == "binary_cross_entropy"


def loss_from_logits(
    z: Block, labels: Labels, scale: float, output: Tensor | None = None, needs_delta: bool = True
) -> tuple[Block, Block, Block | None]:
    """a = σ(z), 𝓛 = w [ (1 − y)·softplus(z) + y·p·softplus(−z) ], δ = scale·w [ (1 − y)·σ(z) − y·p·σ(−z) ].

    Loss and δ interpolate between the values for a negative and a positive label. `lerp` returns the end itself for
    y = 0 or 1, so that neither tail cancels. a is written into `output` if there is one; z is overwritten.
    """
    y, w, p = labels
    a = sigma = torch.sigmoid(z, out=output)
    if y.dtype in LOW_PRECISION:
        y = y.float()
    if z.dtype != y.dtype:
        z = z.to(y.dtype)
        sigma = torch.sigmoid(z)
    minus_z, delta = -z, None
    if needs_delta:
        positive = torch.sigmoid(minus_z).neg_()
        delta = torch.lerp(sigma, positive if p is None else positive * p, y).mul_(scale)
        if w is not None:
            delta = delta * w
    positive = softplus(minus_z, 1.0, SOFTPLUS_IS_Z, out=minus_z)
    loss = softplus(z, 1.0, SOFTPLUS_IS_Z, out=z).lerp_(positive if p is None else positive * p, y)
    return a, loss if w is None else loss * w, delta


def loss_from_output(
    a: Block, labels: Labels, scale: float, activation: str, loss: str, needs_delta: bool = True
) -> tuple[Block, Block | None]:
    """w·𝓛(a, y) and δ = scale·w·∂𝓛/∂a ⊙ g'(z)."""
    y, w, p = labels
    prediction = _in_target_dtype(a, y)
    elements = apply_weight(LOSS_FORMULAS[loss].forward(prediction, y, p).to(at_least_float32(y.dtype)), w)
    if not needs_delta:
        return elements, None
    return elements, ACTIVATIONS[activation].backward(
        apply_weight(LOSS_FORMULAS[loss].slope(prediction, y, p), w) * scale, a
    )


def delta_of_loss(z: Block, labels: Labels, activation: str, loss: str) -> Block:
    """δ = w·∂𝓛/∂z, in differentiable operations."""
    y, w, p = labels
    if cancels(activation, loss):
        return apply_weight(binary_cross_entropy_with_logits_delta(z, y, p), w)
    a = ACTIVATIONS[activation].forward(z)
    return ACTIVATIONS[activation].backward(apply_weight(LOSS_FORMULAS[loss].slope(_in_target_dtype(a, y), y, p), w), a)


def _in_target_dtype(a: Tensor, target: Tensor) -> Tensor:
    """Return the output in the dtype of a target that autocast keeps in a wider one."""
    return a if a.dtype == target.dtype else a.to(at_least_float32(target.dtype))
