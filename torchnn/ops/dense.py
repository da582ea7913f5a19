"""Dense layer z = x Wᵀ + b; rows of x are examples (derivation, section 2; derivation, section 4)."""

import math
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd import Function

from torchnn.ops._support import OptionalTensor, autocast_off, without_jvp


def dense_forward(
    x: Shaped[Tensor, "*rows n_in"], weight: Shaped[Tensor, "n_out n_in"], bias: Tensor | None = None
) -> Shaped[Tensor, "*rows n_out"]:
    """z = x Wᵀ + b."""
    return torch.nn.functional.linear(x, weight, bias)


def dense_backward(
    delta: Shaped[Tensor, "*rows n_out"],
    x: Shaped[Tensor, "*rows n_in"],
    weight: Shaped[Tensor, "n_out n_in"],
    bias_shape: torch.Size | None,
    needs: tuple[bool, ...] = (True, True, True),
) -> tuple[Shaped[Tensor, "*rows n_in"] | None, Shaped[Tensor, "n_out n_in"] | None, OptionalTensor]:
    """∂𝓛/∂x = δ W̄, ∂𝓛/∂W = δᵀ x̄, ∂𝓛/∂b = Σ_rows δ; a gradient that `needs` excludes is None and costs nothing."""
    with autocast_off(delta):
        grad_input = delta @ weight.conj() if needs[0] else None
        grad_weight = rows(delta).T @ rows(x).conj() if needs[1] else None
        grad_bias = sum_to(delta, bias_shape) if needs[2] and bias_shape is not None else None
    return grad_input, grad_weight, grad_bias


def dense_jvp(
    x: Shaped[Tensor, "*rows n_in"],
    weight: Shaped[Tensor, "n_out n_in"],
    dx: Shaped[Tensor, "*rows n_in"] | None,
    dweight: Shaped[Tensor, "n_out n_in"] | None,
    dbias: OptionalTensor,
) -> Shaped[Tensor, "*rows n_out"]:
    """dz = dx Wᵀ + x dWᵀ + db; a tangent that is None is zero."""
    dz = x.new_zeros((*x.shape[:-1], weight.shape[0]))
    if dx is not None:
        dz = dz + dense_forward(dx, weight)
    if dweight is not None:
        dz = dz + dense_forward(x, dweight)
    if dbias is not None:
        dz = dz + dbias
    return dz


def rows(t: Tensor) -> Tensor:
    """View (*, features) as (rows, features); one example (features,) is one row."""
    return t if t.dim() == 2 else t.reshape(math.prod(t.shape[:-1]), t.shape[-1])


def sum_to(delta: Tensor, shape: torch.Size) -> Tensor:
    """Sum `delta` over rows, and over neurons too if all of them share one number."""
    return (delta if delta.dim() >= len(shape) else rows(delta)).sum_to_size(shape)


class DenseFunction(Function):
    """Dense layer.

    Forward:   z = x Wᵀ + b
    Backward:  ∂𝓛/∂x = δ W̄,  ∂𝓛/∂W = δᵀ x̄ summed over rows,  ∂𝓛/∂b = Σ_rows δ  (a bar is the complex conjugate)
    Saved:     x, W
    Shapes:    x (*, n_in), W (n_out, n_in), b (n_out,), (1,) or (); z (*, n_out)
    Raises:    what `torch.nn.functional.linear` raises; `functional.dense` adds what to change
    Reference: derivation, section 4, steps 3, 4, 6 and 7; Rumelhart, Hinton and Williams, 1986
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return dense_forward(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias = inputs
        ctx.bias_shape = None if bias is None else bias.shape
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return dense_backward(grad_output, x, weight, ctx.bias_shape, ctx.needs_input_grad)

    @staticmethod
    def jvp(ctx: Any, dx: OptionalTensor, dweight: OptionalTensor, dbias: OptionalTensor) -> Tensor:
        x, weight = ctx.saved_tensors
        return dense_jvp(x, weight, dx, dweight, dbias)


TraceableDenseFunction = without_jvp(DenseFunction)
