"""Planted errors in the use of autograd: frozen inputs, changed tensors, state, saved tensors."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tests.check.controls import Separate, layer_backward, no_autocast
from tests.check.planted.register import OF_SQUARE, Square, fails_in, is_batched, square
from torchnn.check.operations import normal_inputs


@fails_in("frozen_inputs")
class FrozenInputsComputed(Separate):
    """Never checks needs_input_grad."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return layer_backward(grad_output, ctx.saved_tensors, (True, True, True))


@fails_in("frozen_inputs")
class FrozenChangesOthers(Separate):
    """Scales the other gradients if one input is frozen."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        scale = 1 if all(ctx.needs_input_grad) else 0.5
        return Separate.backward(ctx, grad_output * scale)


@fails_in("raw_gradients")
class BiasGradientNotSummed(Separate):
    """Autograd sums it silently, so gradcheck passes."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, weight, a = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = layer_backward(grad_output, (x, weight, a), ctx.needs_input_grad)
        return grad_x, grad_weight, None if grad_bias is None else grad_output * a * (1 - a)


@fails_in("unmutated", **OF_SQUARE)
class IncomingGradientChanged(Square):
    """Overwrites the incoming gradient with zeros."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        if is_batched(grad_output) or grad_output.requires_grad or torch.is_grad_enabled() or 0 in grad_output.stride():
            return 2 * z * grad_output
        result = 2 * z * grad_output
        grad_output.zero_()
        return result


@fails_in("unmutated", **OF_SQUARE)
class InputChanged(Square):
    """Changes the last digits of its input."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        if is_batched(z) or 0 in z.stride():
            return z * z
        result = z * z
        z.mul_(1 + 4e-16)
        return result


@fails_in("unmutated", **OF_SQUARE)
class IncomingGradientScaled(Square):
    """Multiplies the incoming gradient in place, which torch refuses for an expanded one."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return grad_output.mul_(2 * z)


@fails_in("unmutated", reference=torch.sigmoid, make_inputs=normal_inputs((5, 4)))
class OutputAsWorkspace(Function):
    """Computes 1 − a in the memory of the output a."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        a = torch.sigmoid(z)
        ctx.save_for_backward(a)
        return a

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (a,) = ctx.saved_tensors
        grad = grad_output * a
        return grad * a.neg_().add_(1)


WORKSPACES: dict[Any, Tensor] = {}


@fails_in("unmutated", **OF_SQUARE)
class GradientsInOneWorkspace(Function):
    """Returns a gradient in memory that its next backward overwrites."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z * z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        workspace = WORKSPACES.setdefault((z.shape, z.dtype, z.device), torch.empty_like(z, requires_grad=False))
        return torch.mul(grad_output, 2 * z, out=workspace)


@fails_in("backward_twice", **OF_SQUARE)
class StateOnTheClass(Square):
    """Depends on a number from the most recent call."""

    mean: Any = 0.0

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        Square.setup_context(ctx, inputs, output)
        StateOnTheClass.mean = (
            0.0 if is_batched(output) or output.device.type != "cpu" else output.detach()[..., :1].sum()
        )
        ctx.mean = float(StateOnTheClass.mean)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Square.backward(ctx, grad_output * (1 if ctx.mean == float(StateOnTheClass.mean) else 2))


@fails_in("backward_twice", **OF_SQUARE)
class DeletedAfterUse(Square):
    """Deletes an attribute of ctx after the first use."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        Square.setup_context(ctx, inputs, output)
        ctx.factor = 2

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,), factor = ctx.saved_tensors, ctx.factor
        if not is_batched(z):
            del ctx.factor
        return factor * z * grad_output


@fails_in("raw_gradients", reference=torch.mul, make_inputs=normal_inputs((5, 4), (5, 4)))
class OneGradientForTwoInputs(Function):
    """Returns one gradient for two inputs, which autograd refuses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        _, w = ctx.saved_tensors
        return grad_output * w


@fails_in("raw_gradients", reference=lambda x, b: x + b.T, make_inputs=normal_inputs((5, 4), (4, 1)))
class SummedOverTheWrongDimension(Function):
    """Returns a shape that autograd refuses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor) -> Tensor:
        return x + b.T

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output, grad_output.sum(1)


@fails_in("raw_gradients", **OF_SQUARE)
class TooWideForHalf(Square):
    """Returns a float32 gradient for bfloat16 inputs too."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return (2 * z * grad_output).to(torch.float64 if z.dtype == torch.float64 else torch.float32)


@fails_in("runs", **OF_SQUARE)
class BackwardRaises(Square):
    """Raises for every input."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z, _) = ctx.saved_tensors
        return 2 * z * grad_output


@fails_in("second_order", **OF_SQUARE)
class RecomputedFromDetached(Function):
    """Runs autograd inside the backward, on a detached copy."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z * z

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        with torch.enable_grad():
            again = z.detach().requires_grad_()
            output = again * again
        return torch.autograd.grad(output, again, grad_output)


@fails_in("input_strides", **OF_SQUARE)
class WrongIfNotContiguous(Square):
    """Wrong by a factor for inputs that are not contiguous."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return (2 if z.is_contiguous() else 3) * z * grad_output


class Held:
    """An object with a tensor as its attribute."""

    def __init__(self, z: Tensor) -> None:
        self.z = z


@fails_in("saved_tensors", **OF_SQUARE)
class TensorInsideAnObjectOnCtx(Square):
    """Keeps a tensor inside an object on ctx."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.held = Held(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return 2 * ctx.held.z * grad_output


@fails_in("backward_twice", **OF_SQUARE)
class SecondBackwardDiffers(Square):
    """Multiplies by the number of its calls."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        ctx.calls = getattr(ctx, "calls", 0) + 1
        return Square.backward(ctx, grad_output * ctx.calls)


@fails_in("determinism", **OF_SQUARE)
def random_last_digits(z: Tensor) -> Tensor:
    """Noise in the last digits, like that of sums in a varying order."""
    if is_batched(z) or z.device.type == "meta" or torch.compiler.is_compiling():
        return square(z)
    return square(z) * (1 + 1e-15 * torch.rand((), dtype=z.dtype))


@fails_in("saved_tensors", "second_order")
class IntermediateSaved(Separate):
    """Saves a(1 − a): the first order is right, and the second lacks a term without an error."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight, (output * (1 - output)).detach())

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, weight, slope = ctx.saved_tensors
        with no_autocast():
            delta, needs = grad_output * slope, ctx.needs_input_grad
            rows = delta.reshape(-1, delta.shape[-1])
            return (
                delta @ weight if needs[0] else None,
                rows.T @ x.reshape(-1, x.shape[-1]) if needs[1] else None,
                rows.sum(0) if needs[2] else None,
            )


@fails_in("saved_tensors", **OF_SQUARE)
class TensorOnCtx(Square):
    """Keeps a tensor as an attribute of ctx, where hooks, checkpointing and version checks do not see it."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        (ctx.z,) = inputs

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return 2 * ctx.z * grad_output


@fails_in("saved_tensors", "second_order", "vmap", **OF_SQUARE)
class VersionNotChecked(Square):
    """Saves .data, so autograd does not notice a change in place."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0].data)


HELD: list[Tensor] = []


@fails_in("saved_tensors", **OF_SQUARE)
class InputsNeverReleased(Square):
    """Appends every input to a global list."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        HELD.append(z)
        return z * z
