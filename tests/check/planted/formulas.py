"""Planted errors in values and gradients: formulas, incoming gradients, dtypes, shapes and strides."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from tests.check.controls import Separate, layer_backward, no_autocast
from tests.check.planted.register import OF_SQUARE, Square, apply, fails_in, is_batched, separate, square
from torchnn.check.operations import inputs_with_probabilities, normal_inputs

SQUARE = normal_inputs((5, 4), (4, 4), (4,))

# --- the formula ------------------------------------------------------------------------------------------------------


@fails_in("gradient", make_inputs=SQUARE)
class TransposeForgotten(Separate):
    """With the same number of inputs and neurons the transpose has the right shape."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = Separate.backward(ctx, grad_output)
        return grad_x, None if grad_weight is None else grad_weight.T, grad_bias


@fails_in("gradient")
class MeanInsteadOfSum(Separate):
    """Averages the bias gradient over the rows."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = Separate.backward(ctx, grad_output)
        return grad_x, grad_weight, None if grad_bias is None else grad_bias / max(1, grad_output.shape[0])


@fails_in("gradient")
class SignFlipped(Separate):
    """y − a instead of a − y."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Separate.backward(ctx, -grad_output)


@fails_in("gradient")
class ErrorOf1e4(Separate):
    """A relative error that passes gradcheck with its default tolerance."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Separate.backward(ctx, grad_output * (1 + 1e-4))


@fails_in("gradient")
class DerivativeForgotten(Separate):
    """Leaves out g': δ is the incoming gradient."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, weight, a = ctx.saved_tensors
        return layer_backward(grad_output / (a * (1 - a)), (x, weight, a), ctx.needs_input_grad)


@fails_in("gradient", **OF_SQUARE)
class FactorForgotten(Square):
    """z² has the derivative 2z."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Square.backward(ctx, grad_output) / 2


POS_WEIGHT = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.double)


def weighted_loss(z: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z, y, pos_weight=POS_WEIGHT.to(z))


@fails_in("gradient", reference=weighted_loss, make_inputs=inputs_with_probabilities((5, 4), (5, 4), at=(1,)))
class PosWeightIgnored(Function):
    """The loss uses pos_weight, and its backward does not."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, y: Tensor) -> Tensor:
        return weighted_loss(z, y)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        z, y = ctx.saved_tensors
        return grad_output * (torch.sigmoid(z) - y) / z.numel(), -grad_output * z / z.numel()


@fails_in("value", **OF_SQUARE)
class WrongForward(Square):
    """A forward with an error of a millionth, and the right backward."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return z * z + 1e-6


# --- the incoming gradient --------------------------------------------------------------------------------------------


@fails_in("incoming_gradient")
class FirstElementForAll(Separate):
    """Multiplies by one element of the incoming gradient only."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        if grad_output.numel() == 0:
            return Separate.backward(ctx, grad_output)
        return Separate.backward(ctx, grad_output.flatten()[0].expand_as(grad_output))


@fails_in("incoming_gradient")
class IncomingGradientForgotten(Separate):
    """Right only if the outputs are summed."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Separate.backward(ctx, torch.ones_like(grad_output))


# --- precision --------------------------------------------------------------------------------------------------------


def with_large(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.tensor([[-20.0, 1.0, 12.0], [0.3, -2.0, 20.0]], dtype=torch.float64).to(device, dtype),)


@fails_in("dtypes", reference=torch.sigmoid, make_inputs=with_large)
class Overflows(Function):
    """e^z / (1 + e^z) is NaN in float16 from z = 11.1."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return z.exp() / (1 + z.exp())

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (a,) = ctx.saved_tensors
        return grad_output * a * (1 - a)


@fails_in("dtypes", **OF_SQUARE)
def always_float32(z: Tensor) -> Tensor:
    """Returns float32 for every narrower input."""
    wide = z if z.dtype == torch.float64 else z.float()
    return square(wide)


@fails_in("raw_gradients", **OF_SQUARE)
class GradientTooWide(Square):
    """Returns a gradient in float64 for every input."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return (2 * z.double()) * grad_output


@fails_in("autocast")
def autocast_ignored(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
    """Disables autocast, and returns float32 where torch returns bfloat16."""
    with no_autocast():
        return separate(x, weight, bias)


class DtypesOfAutocastMixed(Function):
    """Under autocast the incoming gradient is bfloat16 and the saved inputs are float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, w = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return grad_output @ w.mT if needs[0] else None, x.mT @ grad_output if needs[1] else None


@fails_in("autocast", reference=torch.matmul, make_inputs=normal_inputs((5, 3), (3, 4)))
def dtypes_of_autocast_mixed(x: Tensor, w: Tensor) -> Tensor:
    """Does not cast the inputs before apply."""
    return apply(DtypesOfAutocastMixed)(x, w)


@fails_in("autocast")
def wrong_under_autocast(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
    """A special path for autocast that forgets the bias."""
    if not torch.is_autocast_enabled("cpu"):
        return separate(x, weight, bias)
    return separate(*(t.bfloat16() for t in (x, weight, 0 * bias)))


# --- shapes and strides -----------------------------------------------------------------------------------------------


@fails_in("shapes")
class WrongForOneRow(Separate):
    """Wrong by a factor if there is a single row."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = Separate.backward(ctx, grad_output)
        if grad_output.dim() == 2 and grad_output.shape[0] == 1 and grad_weight is not None:
            grad_weight = grad_weight * 2
        return grad_x, grad_weight, grad_bias


@fails_in("shapes", "per_sample_gradients")
class OnlyTwoDimensions(Separate):
    """Divides by the number of rows and multiplies by 5, the number that it was written for."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = Separate.backward(ctx, grad_output)
        return grad_x, grad_weight, None if grad_bias is None else grad_bias / grad_output[..., 0].numel() * 5


@fails_in("shapes", reference=lambda z: z.sum(0), make_inputs=normal_inputs((5, 4)))
class ZeroRowsForgotten(Function):
    """A mean times a count: 0 / 0 if there are no rows."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return z.mean(0) * z.shape[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.shape = inputs[0].shape

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output.expand(ctx.shape)


@fails_in("input_strides", **OF_SQUARE)
class InputStridesIgnored(Square):
    """Reads the memory of an input as if it were contiguous."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        flat = z.as_strided((z.numel(),), (1,)) if 0 not in z.stride() and not is_batched(z) else z
        return 2 * flat.reshape(z.shape) * grad_output


@fails_in("grad_strides", **OF_SQUARE)
class GradStridesIgnored(Square):
    """Reads the memory of the incoming gradient as if it were contiguous."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        if 0 not in grad_output.stride() and not is_batched(grad_output) and grad_output.dim() == 2:
            grad_output = grad_output.as_strided(grad_output.shape, (grad_output.shape[1], 1))
        return Square.backward(ctx, grad_output)
