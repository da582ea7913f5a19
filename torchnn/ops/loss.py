"""Losses: binary cross-entropy on probabilities and on logits, and squared error.

References: derivation, section 3; derivation, section 5.

Every loss multiplies its elements by an optional weight w, and `reduction` is "none", "mean" (over elements) or "sum".
The weight and the positive-class weight p are constants, as in torch: they get no gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from torchnn.ops._support import Elements, OptionalTensor, without_jvp

Derivative = Callable[..., Tensor]

# torch clamps a(1 − a) at this value before it divides by it (ATen, binary_cross_entropy_backward).
SMALLEST_VARIANCE = 1e-12

LOW_PRECISION = (torch.float16, torch.bfloat16)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a loss is computed and accumulated."""
    return torch.promote_types(dtype, torch.float32)


def reduce(loss: Tensor, reduction: str, dtype: torch.dtype) -> Tensor:
    """Return J in a dtype: the mean of the elements of the loss, their sum, or the elements themselves."""
    if reduction != "none":
        loss = loss.mean() if reduction == "mean" else loss.sum()
    # Never a conversion to the same dtype: compiled by torch 2.11, a forward that ends in one gets the wrong saved
    # tensors in its backward, and the gradients are zero.
    return loss if loss.dtype == dtype else loss.to(dtype)


def reduce_backward(grad_output: Tensor, num_elements: int, reduction: str) -> Tensor:
    """Return `grad_output` · ∂J/∂loss, which broadcasts to the elements; a mean of m elements divides it by m."""
    if grad_output.dtype in LOW_PRECISION:
        grad_output = grad_output.float()
    return grad_output / num_elements if reduction == "mean" else grad_output


def apply_weight(value: Tensor, weight: Tensor | None) -> Tensor:
    """Return value · w in the dtype of the value; no weight means w = 1."""
    return value if weight is None else value * weight.to(value.dtype)


# --- binary cross-entropy from logits ---------------------------------------------------------------------------------


def exp_minus_abs(z: Elements) -> Elements:
    """e = exp(−|z|), which never overflows.

    Written as a choice between z and −z, not with `abs`, because autograd takes the derivative of |z| at 0 to be 0.
    Each branch is the analytic function, so every higher derivative is right at z = 0 too.
    """
    return torch.exp(torch.where(z < 0, z, -z))


def sigmoid_pair(z: Elements) -> tuple[Elements, Elements]:
    """σ(z) and σ(−z), each exact to the last bits: the smaller is e/(1+e), the larger 1/(1+e), with e = exp(−|z|)."""
    e = exp_minus_abs(z)
    negative, denominator = z < 0, 1 + e
    one = torch.ones_like(e)
    return torch.where(negative, e, one) / denominator, torch.where(negative, one, e) / denominator


def softplus_pair(z: Elements) -> tuple[Elements, Elements]:
    """softplus(z) and softplus(−z), as max(±z, 0) + log1p(e) with e = exp(−|z|)."""
    tail, negative, zero = torch.log1p(exp_minus_abs(z)), z < 0, torch.zeros_like(z)
    return torch.where(negative, zero, z) + tail, torch.where(negative, -z, zero) + tail


def binary_cross_entropy_with_logits_forward(
    z: Elements, target: Elements, pos_weight: Tensor | None = None
) -> Elements:
    """Elements p·y·softplus(−z) + (1 − y)·softplus(z), in the promoted dtype of z and y, at least float32."""
    z, y = _in_loss_dtype(z, target)
    positive, negative = softplus_pair(z)
    return apply_weight(y * negative, pos_weight) + (1 - y) * positive


def binary_cross_entropy_with_logits_delta(z: Elements, target: Elements, pos_weight: Tensor | None = None) -> Elements:
    """δ = −p·y·σ(−z) + (1 − y)·σ(z); for p = 1 this is a − y without cancellation."""
    z, y = _in_loss_dtype(z, target)
    sigma, sigma_of_minus = sigmoid_pair(z)
    return (1 - y) * sigma - apply_weight(y * sigma_of_minus, pos_weight)


def binary_cross_entropy_with_logits_target(
    z: Elements, target: Elements, pos_weight: Tensor | None = None
) -> Elements:
    """∂𝓛/∂y = p·softplus(−z) − softplus(z); for p = 1 this is −z."""
    z, _ = _in_loss_dtype(z, target)
    if pos_weight is None:
        return -z
    positive, negative = softplus_pair(z)
    return apply_weight(negative, pos_weight) - positive


# --- binary cross-entropy on probabilities ----------------------------------------------------------------------------


def binary_cross_entropy_forward(a: Elements, target: Elements, pos_weight: Tensor | None = None) -> Elements:
    """Elements −[ p·y·log a + (1 − y)·log(1 − a) ], the logarithms clamped at −100.

    torch's own kernel computes them, because it also checks on every device that a and y are in [0, 1].
    """
    kernel = torch.nn.functional.binary_cross_entropy
    if pos_weight is None:
        return kernel(a, target, reduction="none")
    kernel(a, target, reduction="none")  # only to check the target: the calls below see only a
    minus_log_a = kernel(a, torch.ones_like(a), reduction="none")
    minus_log_rest = kernel(a, torch.zeros_like(a), reduction="none")
    return apply_weight(target * minus_log_a, pos_weight) + (1 - target) * minus_log_rest


def binary_cross_entropy_slope(a: Elements, target: Elements, pos_weight: Tensor | None = None) -> Elements:
    """∂𝓛/∂a = (a − y) / (a(1 − a)); with p the numerator is a(1 − y) − p·y(1 − a). The denominator is ≥ 1e−12."""
    a, y = _in_loss_dtype(a, target)
    numerator = a - y if pos_weight is None else a * (1 - y) - apply_weight(y * (1 - a), pos_weight)
    return numerator / (a * (1 - a)).clamp_min(SMALLEST_VARIANCE)


def binary_cross_entropy_target(a: Elements, target: Elements, pos_weight: Tensor | None = None) -> Elements:
    """∂𝓛/∂y = log(1 − a) − p·log a."""
    a, _ = _in_loss_dtype(a, target)
    return torch.log1p(-a) - apply_weight(torch.log(a), pos_weight)


# --- squared error ----------------------------------------------------------------------------------------------------


def mse_loss_forward(a: Elements, target: Elements, pos_weight: None = None) -> Elements:
    """Elements (a − y)²."""
    a, y = _in_loss_dtype(a, target)
    return (a - y) * (a - y)


def mse_loss_slope(a: Elements, target: Elements, pos_weight: None = None) -> Elements:
    """∂𝓛/∂a = 2(a − y)."""
    a, y = _in_loss_dtype(a, target)
    return 2 * (a - y)


def mse_loss_target(a: Elements, target: Elements) -> Elements:
    """∂𝓛/∂y = −2(a − y)."""
    return -mse_loss_slope(a, target)


def _in_loss_dtype(a: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    dtype = at_least_float32(torch.promote_types(a.dtype, target.dtype))
    return a.to(dtype), target.to(dtype)


# --- the Functions ----------------------------------------------------------------------------------------------------


def save_loss_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """The `setup_context` of every loss, whose inputs are (prediction, target, weight, constants …, reduction)."""
    *tensors, ctx.reduction = inputs
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def loss_backward(
    ctx: Any, grad_output: Tensor, slope: Derivative, target_slope: Derivative
) -> tuple[OptionalTensor, ...]:
    """∂J/∂loss · w · ∂𝓛/∂prediction and, if needed, ∂J/∂loss · w · ∂𝓛/∂y, each in the dtype of its input."""
    prediction, target, weight, *constants = ctx.saved_tensors
    scale = apply_weight(reduce_backward(grad_output, prediction.numel(), ctx.reduction), weight)
    grad_input = grad_target = None
    if ctx.needs_input_grad[0]:
        grad_input = (scale * slope(prediction, target, *constants)).to(prediction.dtype)
    if ctx.needs_input_grad[1]:
        grad_target = (scale * target_slope(prediction, target, *constants)).to(target.dtype)
    return grad_input, grad_target, None, *[None for _ in constants], None


def loss_jvp(
    ctx: Any,
    dtype: torch.dtype,
    tangents: tuple[OptionalTensor, OptionalTensor],
    slope: Derivative,
    target_slope: Derivative,
) -> Tensor:
    """dJ = reduce( w (∂𝓛/∂prediction · dprediction + ∂𝓛/∂y · dy) )."""
    prediction, target, weight, *constants = ctx.saved_tensors
    dloss = torch.zeros_like(prediction, dtype=at_least_float32(dtype))
    for tangent, derivative in zip(tangents, (slope, target_slope), strict=True):
        if tangent is not None:
            dloss = dloss + tangent * derivative(prediction, target, *constants)
    return reduce(apply_weight(dloss, weight), ctx.reduction, dtype)


class BinaryCrossEntropyWithLogitsFunction(Function):
    """Binary cross-entropy from logits.

    Forward:   𝓛 = w [ p·y·softplus(−z) + (1 − y)·softplus(z) ], reduced
    Backward:  δ = w [ −p·y·σ(−z) + (1 − y)·σ(z) ] and ∂𝓛/∂y = w [ p·softplus(−z) − softplus(z) ], times ∂J/∂𝓛
    Saved:     z, y, w, p
    Shapes:    z and y the same; w and p broadcast to them; J () or, for "none", the shape of z. J has the dtype of y,
               as in torch
    Raises:    nothing, because `functional` checks the arguments
    Reference: derivation, section 5; its canonical link is in derivation, section 8
    """

    generate_vmap_rule = True
    setup_context = staticmethod(save_loss_inputs)

    @staticmethod
    def forward(z: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: str) -> Tensor:
        loss = binary_cross_entropy_with_logits_forward(z, target, pos_weight)
        return reduce(apply_weight(loss, weight), reduction, target.dtype)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        slopes = binary_cross_entropy_with_logits_delta, binary_cross_entropy_with_logits_target
        return loss_backward(ctx, grad_output, *slopes)

    @staticmethod
    def jvp(ctx: Any, dz: OptionalTensor, dtarget: OptionalTensor, *constants: None) -> Tensor:
        dtype = ctx.saved_tensors[1].dtype
        slopes = binary_cross_entropy_with_logits_delta, binary_cross_entropy_with_logits_target
        return loss_jvp(ctx, dtype, (dz, dtarget), *slopes)


class BinaryCrossEntropyFunction(Function):
    """Binary cross-entropy on probabilities.

    Forward:   𝓛 = −w [ p·y·log a + (1 − y)·log(1 − a) ], logarithms ≥ −100, reduced
    Backward:  ∂𝓛/∂a = w (a(1 − y) − p·y(1 − a)) / max(a(1 − a), 1e−12) and ∂𝓛/∂y = w [ log(1 − a) − p·log a ]
    Saved:     a, y, w, p
    Shapes:    a and y the same; w and p broadcast to them; J () or, for "none", the shape of a. J has the dtype of a
    Raises:    RuntimeError if a or y is outside [0, 1]
    Reference: derivation, section 4, step 1; derivation, section 5
    """

    generate_vmap_rule = True
    setup_context = staticmethod(save_loss_inputs)

    @staticmethod
    def forward(a: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: str) -> Tensor:
        loss = binary_cross_entropy_forward(a, target, pos_weight).to(at_least_float32(a.dtype))
        return reduce(apply_weight(loss, weight), reduction, a.dtype)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return loss_backward(ctx, grad_output, binary_cross_entropy_slope, binary_cross_entropy_target)

    @staticmethod
    def jvp(ctx: Any, da: OptionalTensor, dtarget: OptionalTensor, *constants: None) -> Tensor:
        slopes = binary_cross_entropy_slope, binary_cross_entropy_target
        return loss_jvp(ctx, ctx.saved_tensors[0].dtype, (da, dtarget), *slopes)


class MSELossFunction(Function):
    """Squared error.

    Forward:   𝓛 = w (a − y)², reduced (1986 uses ½ Σ (a − y)²: half of "sum")
    Backward:  ∂𝓛/∂a = 2w(a − y), ∂𝓛/∂y = −2w(a − y)
    Saved:     a, y, w
    Shapes:    a and y the same; w broadcasts to them; J () or, for "none", the shape of a. J has the promoted dtype
               of a and y
    Raises:    nothing, because `functional` checks the arguments
    Reference: derivation, section 5
    """

    generate_vmap_rule = True
    setup_context = staticmethod(save_loss_inputs)

    @staticmethod
    def forward(a: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        loss = mse_loss_forward(a, target)
        return reduce(apply_weight(loss, weight), reduction, torch.promote_types(a.dtype, target.dtype))

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return loss_backward(ctx, grad_output, mse_loss_slope, mse_loss_target)

    @staticmethod
    def jvp(ctx: Any, da: OptionalTensor, dtarget: OptionalTensor, *constants: None) -> Tensor:
        a, target, _ = ctx.saved_tensors
        dtype = torch.promote_types(a.dtype, target.dtype)
        return loss_jvp(ctx, dtype, (da, dtarget), mse_loss_slope, mse_loss_target)


TraceableBinaryCrossEntropyWithLogitsFunction = without_jvp(BinaryCrossEntropyWithLogitsFunction)
TraceableBinaryCrossEntropyFunction = without_jvp(BinaryCrossEntropyFunction)
TraceableMSELossFunction = without_jvp(MSELossFunction)
