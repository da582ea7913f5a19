"""Activations a = g(z). Each g' is written in terms of the output a, so z is never saved (derivation, section 5).

Names that end with an underscore write the result over their first argument. The whole-network pass uses them on its
own workspace. They run torch's kernels of the derivatives, as autograd does: one pass over memory instead of three.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from torchnn.ops._support import Elements, without_jvp

_sigmoid_backward: Callable[..., Tensor] = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward: Callable[..., Tensor] = torch.ops.aten.tanh_backward.grad_input
_threshold_backward: Callable[..., Tensor] = torch.ops.aten.threshold_backward.grad_input


def save_output(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """The `setup_context` of an activation whose derivative needs only the output."""
    ctx.save_for_backward(output)
    ctx.save_for_forward(output)


# --- sigmoid ----------------------------------------------------------------------------------------------------------


def sigmoid_forward(z: Elements) -> Elements:
    """σ(z) = 1 / (1 + e^−z)."""
    return torch.sigmoid(z)


def sigmoid_backward(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a · a(1 − a)."""
    return grad_output * (output * (1 - output)).conj()


def sigmoid_backward_(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a · (1 − a)a, written over ∂𝓛/∂a."""
    return _sigmoid_backward(grad_output, output, grad_input=grad_output)


class SigmoidFunction(Function):
    """Sigmoid.

    Forward:   a = σ(z) = 1 / (1 + e^−z)
    Backward:  ∂𝓛/∂z = ∂𝓛/∂a · conj(a(1 − a))
    Saved:     a
    Shapes:    any; a has the shape of z. Integers give the default float dtype, as in `torch.sigmoid`
    Raises:    what `torch.sigmoid` raises
    Reference: derivation, section 4, step 2; derivation, section 5
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


# --- tanh -------------------------------------------------------------------------------------------------------------


def tanh_forward(z: Elements) -> Elements:
    """tanh(z) = (e^z − e^−z) / (e^z + e^−z)."""
    return torch.tanh(z)


def tanh_backward(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a · (1 − a²), with the square written (1 − a)(1 + a), which keeps its digits where a is near ±1."""
    return grad_output * ((1 - output) * (1 + output)).conj()


def tanh_backward_(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a · (1 − a²), written over ∂𝓛/∂a; near ±1 it keeps fewer digits than `tanh_backward`."""
    return _tanh_backward(grad_output, output, grad_input=grad_output)


class TanhFunction(Function):
    """Hyperbolic tangent.

    Forward:   a = tanh(z)
    Backward:  ∂𝓛/∂z = ∂𝓛/∂a · conj(1 − a²)
    Saved:     a
    Shapes:    any; a has the shape of z. Integers give the default float dtype, as in `torch.tanh`
    Raises:    what `torch.tanh` raises
    Reference: derivation, section 5
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


# --- relu -------------------------------------------------------------------------------------------------------------


def relu_forward(z: Elements) -> Elements:
    """max(z, 0)."""
    return torch.relu(z)


def relu_backward(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a where a > 0, else 0; 0 at the kink z = 0. Filled, not multiplied, because ∞ · 0 is NaN."""
    return grad_output.masked_fill(output <= 0, 0)


def relu_backward_(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a where a > 0, else 0, written over ∂𝓛/∂a."""
    return _threshold_backward(grad_output, output, 0, grad_input=grad_output)


class ReLUFunction(Function):
    """Rectified linear unit.

    Forward:   a = max(z, 0)
    Backward:  ∂𝓛/∂z = ∂𝓛/∂a where a > 0, else 0
    Saved:     a
    Shapes:    any; a has the shape of z
    Raises:    what `torch.relu` raises; it refuses complex and bool
    Reference: derivation, section 5
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


# --- step -------------------------------------------------------------------------------------------------------------


def step_forward(z: Elements, threshold: float = 0.0) -> Elements:
    """1 where z > threshold ("activated"), else 0, in the dtype of z."""
    return (z > threshold).to(z.dtype)


def step_forward_(z: Elements) -> Elements:
    """1 where z > 0, else 0, written over z."""
    return z.gt_(0)


def step_backward(grad_output: Elements, output: Elements | None = None) -> Elements:
    """∂𝓛/∂z = 0: the step is flat on both sides of the threshold."""
    return torch.zeros_like(grad_output)


def step_backward_(grad_output: Elements, output: Elements) -> Elements:
    """∂𝓛/∂z = 0, written over ∂𝓛/∂a."""
    return grad_output.zero_()


class StepFunction(Function):
    """Threshold unit of the first neurons: "activated" or not.

    Forward:   a = 1 where z > threshold, else 0
    Backward:  ∂𝓛/∂z = 0
    Saved:     nothing
    Shapes:    any; a has the shape of z
    Raises:    RuntimeError for complex z, because complex numbers have no order
    Reference: derivation, section 5
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


# --- identity ---------------------------------------------------------------------------------------------------------


def identity_forward(z: Elements) -> Elements:
    """z."""
    return z


def identity_backward(grad_output: Elements, output: Elements | None = None) -> Elements:
    """∂𝓛/∂z = ∂𝓛/∂a."""
    return grad_output


# --- all by name ------------------------------------------------------------------------------------------------------


class Activation(NamedTuple):
    """The formulas of one activation.

    Attributes:
        forward: `forward(z)` returns a.
        backward: `backward(grad_output, output)` returns ∂𝓛/∂z from ∂𝓛/∂a and a.
        forward_: `forward`, written over z.
        backward_: `backward`, written over ∂𝓛/∂a.
        needs_output: whether g' depends on a; if not, the output is not saved.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Any], Tensor]
    forward_: Callable[[Tensor], Tensor]
    backward_: Callable[[Tensor, Tensor], Tensor]
    needs_output: bool = True

    def jvp(self, tangent: Tensor, output: Tensor | None) -> Tensor:
        """da = g'(z) dz: `backward` without its conjugate."""
        return self.backward(tangent.conj(), output).conj()


ACTIVATIONS = {
    "identity": Activation(
        forward=identity_forward,
        backward=identity_backward,
        forward_=identity_forward,
        backward_=identity_backward,
        needs_output=False,
    ),
    "sigmoid": Activation(
        forward=sigmoid_forward, backward=sigmoid_backward, forward_=torch.sigmoid_, backward_=sigmoid_backward_
    ),
    "tanh": Activation(forward=tanh_forward, backward=tanh_backward, forward_=torch.tanh_, backward_=tanh_backward_),
    "relu": Activation(forward=relu_forward, backward=relu_backward, forward_=torch.relu_, backward_=relu_backward_),
    "step": Activation(
        forward=step_forward,
        backward=step_backward,
        forward_=step_forward_,
        backward_=step_backward_,
        needs_output=False,
    ),
}

TraceableSigmoidFunction = without_jvp(SigmoidFunction)
TraceableTanhFunction = without_jvp(TanhFunction)
TraceableReLUFunction = without_jvp(ReLUFunction)
TraceableStepFunction = without_jvp(StepFunction)
