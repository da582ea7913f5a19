"""Activations a = g(z), each with g' written in terms of the output a, so that z is never kept (derivation.md, 5)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd import Function

from torchnn.ops._support import traceable_twin

Elements = Shaped[Tensor, "*elements"]


Kernel = Callable[..., Tensor]


class Activation(NamedTuple):
    """One activation: `forward(z)` gives a, `backward(grad_output, output)` gives ∂𝓛/∂z from ∂𝓛/∂a and a.

    `forward_` and `backward_` write over z and over ∂𝓛/∂a, for the whole-network pass, whose workspace nobody else
    sees. Where g' does not depend on a, `needs_output` is False and the output is not kept.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Any], Tensor]
    forward_: Callable[[Tensor], Tensor]
    backward_: Callable[[Tensor, Tensor], Tensor]
    needs_output: bool = True

    def jvp(self, tangent: Tensor, output: Tensor | None) -> Tensor:
        """da = g'(z) dz: `backward` without its conjugate."""
        return self.backward(tangent.conj(), output).conj()


def sigmoid_forward(z: Elements) -> Elements:
    """σ(z) = 1 / (1 + e^−z)."""
    return torch.sigmoid(z)


def sigmoid_backward(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a · a(1 − a)."""
    return grad_output * (output * (1 - output)).conj()


def tanh_forward(z: Elements) -> Elements:
    """tanh(z) = (e^z − e^−z) / (e^z + e^−z)."""
    return torch.tanh(z)


def tanh_backward(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a · (1 − a²), the square written (1 − a)(1 + a), which keeps its digits where a is near ±1."""
    return grad_output * ((1 - output) * (1 + output)).conj()


def relu_forward(z: Elements) -> Elements:
    """max(z, 0)."""
    return torch.relu(z)


def relu_backward(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a where a > 0, else 0: at the kink z = 0 it is 0. Filled, not multiplied: ∞ · 0 is not a number."""
    return grad_output.masked_fill(output <= 0, 0)


def step_forward(z: Elements, threshold: float = 0.0) -> Elements:
    """1 where z > threshold ("activated"), else 0, in the dtype of z."""
    return (z > threshold).to(z.dtype)


def step_backward(grad_output: Elements, output: Elements | None = None) -> Elements:
    """∂𝓛/∂z = 0: flat on both sides of the threshold."""
    return torch.zeros_like(grad_output)


def identity_forward(z: Elements) -> Elements:
    """z."""
    return z


def identity_backward(grad_output: Elements, output: Elements | None = None) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a."""
    return grad_output


# torch's kernels of the derivatives, which autograd runs too: one pass over memory where the formulas take three. That
# of tanh is 1 − a², so that it keeps fewer digits than `tanh_backward` where a is near ±1.
_sigmoid_backward: Kernel = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward: Kernel = torch.ops.aten.tanh_backward.grad_input
_threshold_backward: Kernel = torch.ops.aten.threshold_backward.grad_input


def sigmoid_backward_(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a · (1 − a)a, written over ∂𝓛/∂a."""
    return _sigmoid_backward(grad_output, output, grad_input=grad_output)


def tanh_backward_(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a · (1 − a²), written over ∂𝓛/∂a."""
    return _tanh_backward(grad_output, output, grad_input=grad_output)


def relu_backward_(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a where a > 0, else 0, written over ∂𝓛/∂a."""
    return _threshold_backward(grad_output, output, 0, grad_input=grad_output)


def step_forward_(z: Elements) -> Elements:
    """1 where z > 0, else 0, written over z."""
    return z.gt_(0)


def step_backward_(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = 0, written over ∂𝓛/∂a."""
    return grad_output.zero_()


ACTIVATIONS = {
    "identity": Activation(
        identity_forward, identity_backward, identity_forward, identity_backward, needs_output=False
    ),
    "sigmoid": Activation(sigmoid_forward, sigmoid_backward, torch.sigmoid_, sigmoid_backward_),
    "tanh": Activation(tanh_forward, tanh_backward, torch.tanh_, tanh_backward_),
    "relu": Activation(relu_forward, relu_backward, torch.relu_, relu_backward_),
    "step": Activation(step_forward, step_backward, step_forward_, step_backward_, needs_output=False),
}


def save_output(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """The `setup_context` of an activation whose derivative needs the output and nothing else."""
    ctx.save_for_backward(output)
    ctx.save_for_forward(output)


class SigmoidFunction(Function):
    """Sigmoid.

    Forward:   a = σ(z) = 1 / (1 + e^−z)
    Backward:  ∂𝓛/∂z = ∂𝓛/∂a · conj(a(1 − a))
    Saved:     a
    Shapes:    any; a as z. Integers give the default float dtype, as `torch.sigmoid`
    Raises:    what `torch.sigmoid` raises
    Reference: derivation.md, section 4, step 2, and section 5
    """

    generate_vmap_rule = True
    setup_context = staticmethod(save_output)

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return sigmoid_forward(z)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return sigmoid_backward(grad_output, output)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return ACTIVATIONS["sigmoid"].jvp(tangent, output)


class TanhFunction(Function):
    """Hyperbolic tangent.

    Forward:   a = tanh(z)
    Backward:  ∂𝓛/∂z = ∂𝓛/∂a · conj(1 − a²)
    Saved:     a
    Shapes:    any; a as z. Integers give the default float dtype, as `torch.tanh`
    Raises:    what `torch.tanh` raises
    Reference: derivation.md, section 5
    """

    generate_vmap_rule = True
    setup_context = staticmethod(save_output)

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return tanh_forward(z)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return tanh_backward(grad_output, output)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return ACTIVATIONS["tanh"].jvp(tangent, output)


class ReLUFunction(Function):
    """Rectified linear unit.

    Forward:   a = max(z, 0)
    Backward:  ∂𝓛/∂z = ∂𝓛/∂a where a > 0, else 0
    Saved:     a
    Shapes:    any; a as z
    Raises:    what `torch.relu` raises: complex and bool are refused
    Reference: derivation.md, section 5
    """

    generate_vmap_rule = True
    setup_context = staticmethod(save_output)

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return relu_forward(z)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return relu_backward(grad_output, output)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return ACTIVATIONS["relu"].jvp(tangent, output)


class StepFunction(Function):
    """Threshold unit of the first neurons: "activated" or not.

    Forward:   a = 1 where z > threshold, else 0
    Backward:  ∂𝓛/∂z = 0
    Saved:     nothing
    Shapes:    any; a as z
    Raises:    RuntimeError for complex z, which has no order
    Reference: derivation.md, section 5; the text's paragraph on the name "activation function"
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, threshold: float) -> Tensor:
        return step_forward(z, threshold)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return step_backward(grad_output), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, threshold: None) -> Tensor:
        return step_backward(tangent)


TraceableSigmoidFunction = traceable_twin(SigmoidFunction)
TraceableTanhFunction = traceable_twin(TanhFunction)
TraceableReLUFunction = traceable_twin(ReLUFunction)
TraceableStepFunction = traceable_twin(StepFunction)
