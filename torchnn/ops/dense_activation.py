"""A dense layer and its activation in one node of the graph; it calls the formulas of both."""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd import Function

from torchnn.ops._support import OptionalTensor, without_jvp
from torchnn.ops.activation import ACTIVATIONS
from torchnn.ops.dense import dense_backward, dense_forward, dense_jvp


def dense_activation_forward(
    x: Shaped[Tensor, "*rows n_in"], weight: Shaped[Tensor, "n_out n_in"], bias: Tensor | None, activation: str
) -> Shaped[Tensor, "*rows n_out"]:
    """a = g(x Wᵀ + b)."""
    return ACTIVATIONS[activation].forward(dense_forward(x, weight, bias))


def dense_activation_backward(
    grad_output: Shaped[Tensor, "*rows n_out"],
    x: Shaped[Tensor, "*rows n_in"],
    weight: Shaped[Tensor, "n_out n_in"],
    bias_shape: torch.Size | None,
    output: Shaped[Tensor, "*rows n_out"] | None,
    activation: str,
    needs: tuple[bool, ...] = (True, True, True),
) -> tuple[Shaped[Tensor, "*rows n_in"] | None, Shaped[Tensor, "n_out n_in"] | None, OptionalTensor]:
    """δ = ∂𝓛/∂a ⊙ g'(z), then the dense layer's backward with that δ."""
    delta = ACTIVATIONS[activation].backward(grad_output, output)
    return dense_backward(delta, x, weight, bias_shape, needs)


class DenseActivationFunction(Function):
    """Dense layer and activation.

    Forward:   a = g(z),  z = x Wᵀ + b
    Backward:  δ = ∂𝓛/∂a ⊙ conj(g'(z));  ∂𝓛/∂x = δ W̄,  ∂𝓛/∂W = δᵀ x̄,  ∂𝓛/∂b = Σ_rows δ
    Saved:     x, W, and a if g' depends on it; never z
    Shapes:    x (*, n_in), W (n_out, n_in), b (n_out,), (1,) or (); a (*, n_out)
    Raises:    what the dense layer and the activation raise
    Reference: derivation, section 4, step 6; derivation, section 5
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
        return dense_activation_forward(x, weight, bias, activation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, ctx.activation = inputs
        ctx.bias_shape = None if bias is None else bias.shape
        saved_output = output if ACTIVATIONS[ctx.activation].needs_output else None
        ctx.save_for_backward(x, weight, saved_output)
        ctx.save_for_forward(x, weight, saved_output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, weight, output = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        return *dense_activation_backward(grad_output, x, weight, ctx.bias_shape, output, ctx.activation, needs), None

    @staticmethod
    def jvp(ctx: Any, dx: OptionalTensor, dweight: OptionalTensor, dbias: OptionalTensor, activation: None) -> Tensor:
        x, weight, output = ctx.saved_tensors
        return ACTIVATIONS[ctx.activation].jvp(dense_jvp(x, weight, dx, dweight, dbias), output)


TraceableDenseActivationFunction = without_jvp(DenseActivationFunction)
