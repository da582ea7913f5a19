"""Wrong backwards, each with one mistake that people make, and the rows in which it must fail: these and no others."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tests.check.controls import LAYER, Apart, WithJvp, by_door, layer, layer_backward, no_autocast
from torchnn.check.operations import normal, with_probabilities


class Planted(NamedTuple):
    """A wrong function, its reference, its inputs, and the properties that must fail."""

    target: Callable[..., Any]
    failing: set[str]
    reference: Callable[..., Any] = layer
    make_inputs: Callable[..., Any] = LAYER
    name: str = ""


PLANTED: list[Planted] = []


def fails_in(*rows: str, **options: Any) -> Callable[[Any], Any]:
    """Register a wrong Function, or a wrong door, with the rows in which it must fail."""

    def register(wrong: Any) -> Any:
        function: Any = wrong
        door = by_door(function.apply) if isinstance(wrong, type) else wrong
        PLANTED.append(Planted(door, set(rows), name=wrong.__name__, **options))
        return wrong

    return register


def apply(function: Any) -> Callable[..., Tensor]:
    """The bare `apply` of a Function."""
    bare: Callable[..., Tensor] = function.apply
    return bare


SQUARE = normal((5, 4), (4, 4), (4,))
apart = apply(Apart)


# --- the formula ------------------------------------------------------------------------------------------------------


@fails_in("gradient", make_inputs=SQUARE)
class TransposeForgotten(Apart):
    """With as many inputs as neurons the shape is the same."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = Apart.backward(ctx, grad_output)
        return grad_x, None if grad_weight is None else grad_weight.T, grad_bias


@fails_in("gradient")
class MeanForSum(Apart):
    """The bias gradient averaged over rows."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = Apart.backward(ctx, grad_output)
        return grad_x, grad_weight, None if grad_bias is None else grad_bias / max(1, grad_output.shape[0])


@fails_in("gradient")
class SignFlipped(Apart):
    """y − a for a − y, and its like."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Apart.backward(ctx, -grad_output)


@fails_in("gradient")
class ErrorOf1e4(Apart):
    """A relative error that gradcheck's default tolerance lets through."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Apart.backward(ctx, grad_output * (1 + 1e-4))


@fails_in("gradient")
class DerivativeForgotten(Apart):
    """g' left out: δ is the incoming gradient."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, weight, a = ctx.saved_tensors
        return layer_backward(grad_output / (a * (1 - a)), (x, weight, a), ctx.needs_input_grad)


class Square(Function):
    """z²."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return z * z

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return 2 * z * grad_output


def square(z: Tensor) -> Tensor:
    """The door of `Square`."""
    return apply(Square)(z)


OF_SQUARE: dict[str, Any] = {"reference": torch.square, "make_inputs": normal((5, 4))}


@fails_in("gradient", **OF_SQUARE)
class FactorForgotten(Square):
    """z² has the derivative 2z."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Square.backward(ctx, grad_output) / 2


POS_WEIGHT = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.double)


def weighted_loss(z: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(z, y, pos_weight=POS_WEIGHT.to(z))


@fails_in("gradient", reference=weighted_loss, make_inputs=with_probabilities((5, 4), (5, 4), of=(1,)))
class PosWeightIgnored(Function):
    """The loss weighs the positives, its backward does not."""

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
class ForwardIsAnother(Square):
    """A forward that is a millionth off, with a backward that is right for what it should be."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return z * z + 1e-6


# --- the incoming gradient --------------------------------------------------------------------------------------------


@fails_in("incoming_gradient")
class FirstElementForAll(Apart):
    """Scales by one number of the incoming gradient."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        if grad_output.numel() == 0:
            return Apart.backward(ctx, grad_output)
        return Apart.backward(ctx, grad_output.flatten()[0].expand_as(grad_output))


@fails_in("incoming_gradient")
class IncomingForgotten(Apart):
    """Right for the gradient of a sum, and for nothing else."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Apart.backward(ctx, torch.ones_like(grad_output))


# --- precision --------------------------------------------------------------------------------------------------------


def with_large(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.tensor([[-20.0, 1.0, 12.0], [0.3, -2.0, 20.0]], dtype=torch.float64).to(device, dtype),)


@fails_in("dtypes", reference=torch.sigmoid, make_inputs=with_large)
class Overflows(Function):
    """e^z / (1 + e^z) is not a number in float16 from 11.1 on."""

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
    """A result in float32, whatever the input is."""
    wide = z if z.dtype == torch.float64 else z.float()
    return square(wide)


@fails_in("raw_gradients", **OF_SQUARE)
class GradientTooWide(Square):
    """A gradient in float64 for any input."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return (2 * z.double()) * grad_output


@fails_in("autocast")
def autocast_ignored(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
    """A call that leaves autocast, and gives float32 where torch gives bfloat16."""
    with no_autocast():
        return apart(x, weight, bias)


class DtypesOfAutocastMixed(Function):
    """The incoming gradient is what autocast made of the output, the saved inputs are not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, w = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return grad_output @ w.mT if needs[0] else None, x.mT @ grad_output if needs[1] else None


@fails_in("autocast", reference=torch.matmul, make_inputs=normal((5, 3), (3, 4)))
def dtypes_of_autocast_mixed(x: Tensor, w: Tensor) -> Tensor:
    """Without a door that lowers the inputs first."""
    return apply(DtypesOfAutocastMixed)(x, w)


@fails_in("autocast")
def wrong_under_autocast(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
    """A path of its own for autocast, which forgets the bias."""
    if not torch.is_autocast_enabled("cpu"):
        return apart(x, weight, bias)
    return apart(*(t.bfloat16() for t in (x, weight, 0 * bias)))


# --- shapes and strides -----------------------------------------------------------------------------------------------


@fails_in("shapes")
class WrongForOneRow(Apart):
    """squeeze() drops the row of a single example too, and what follows broadcasts."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = Apart.backward(ctx, grad_output)
        if grad_output.dim() == 2 and grad_output.shape[0] == 1 and grad_weight is not None:
            grad_weight = grad_weight * 2
        return grad_x, grad_weight, grad_bias


@fails_in("shapes", "per_sample_gradients")
class OnlyTwoDimensions(Apart):
    """Averages over the first dimension and multiplies by its size, which is another one without rows or with more."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        grad_x, grad_weight, grad_bias = Apart.backward(ctx, grad_output)
        return grad_x, grad_weight, None if grad_bias is None else grad_bias / grad_output[..., 0].numel() * 5


@fails_in("shapes", reference=lambda z: z.sum(0), make_inputs=normal((5, 4)))
class ZeroRowsForgotten(Function):
    """A mean times a count: 0 / 0 where there are no rows."""

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
class MemoryOfInputs(Square):
    """Reads an input's memory as if it were contiguous."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        flat = z.as_strided((z.numel(),), (1,)) if 0 not in z.stride() and not is_batched(z) else z
        return 2 * flat.reshape(z.shape) * grad_output


def is_batched(t: Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(t) or torch._C._functorch.is_legacy_batchedtensor(t)


@fails_in("grad_strides", **OF_SQUARE)
class StridesIgnored(Square):
    """Reads the incoming gradient's memory as if it were contiguous."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        if 0 not in grad_output.stride() and not is_batched(grad_output) and grad_output.dim() == 2:
            grad_output = grad_output.as_strided(grad_output.shape, (grad_output.shape[1], 1))
        return Square.backward(ctx, grad_output)


# --- the engine -------------------------------------------------------------------------------------------------------


@fails_in("frozen_inputs")
class FrozenInputsComputed(Apart):
    """Never asks needs_input_grad."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return layer_backward(grad_output, ctx.saved_tensors, (True, True, True))


@fails_in("frozen_inputs")
class FrozenChangesOthers(Apart):
    """Numbers of the gradients shifted where one is left out."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        scale = 1 if all(ctx.needs_input_grad) else 0.5
        return Apart.backward(ctx, grad_output * scale)


@fails_in("raw_gradients")
class BiasGradientNotSummed(Apart):
    """The engine sums it, so that gradcheck passes."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, weight, a = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = layer_backward(grad_output, (x, weight, a), ctx.needs_input_grad)
        return grad_x, grad_weight, None if grad_bias is None else grad_output * a * (1 - a)


@fails_in("unmutated", **OF_SQUARE)
class IncomingGradientChanged(Square):
    """Saves memory by writing into what belongs to somebody else, and puts it back a little off."""

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
    """A workspace that turns out to be the input: changed, and put back but for its last digits."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        if is_batched(z) or 0 in z.stride():
            return z * z
        result = z * z
        z.mul_(1 + 4e-16)
        return result


@fails_in("unmutated", **OF_SQUARE)
class IncomingGradientScaled(Square):
    """The same, in plain view: an expanded one cannot be written, and other rows fail for that alone."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return grad_output.mul_(2 * z)


@fails_in("unmutated", reference=torch.sigmoid, make_inputs=normal((5, 4)))
class OutputAsWorkspace(Function):
    """Computes 1 − a where a is, which is the output that everybody has."""

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
    """Hands out the memory that its next backward writes into."""

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
class KeptOnTheClass(Square):
    """A number of the last call, whichever that was."""

    mean: Any = 0.0

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        Square.setup_context(ctx, inputs, output)
        KeptOnTheClass.mean = (
            0.0 if is_batched(output) or output.device.type != "cpu" else output.detach()[..., :1].sum()
        )
        ctx.mean = float(KeptOnTheClass.mean)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Square.backward(ctx, grad_output * (1 if ctx.mean == float(KeptOnTheClass.mean) else 2))


@fails_in("backward_twice", **OF_SQUARE)
class UsedUp(Square):
    """Gives back what it keeps as soon as it is used."""

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


@fails_in("raw_gradients", reference=torch.mul, make_inputs=normal((5, 4), (5, 4)))
class OneGradientForTwo(Function):
    """The engine refuses it, whatever is asked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        _, w = ctx.saved_tensors
        return grad_output * w


@fails_in("raw_gradients", reference=lambda x, b: x + b.T, make_inputs=normal((5, 4), (4, 1)))
class SummedOverTheWrongDimension(Function):
    """And gives a shape that the engine does not take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor) -> Tensor:
        return x + b.T

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output, grad_output.sum(1)


@fails_in("raw_gradients", **OF_SQUARE)
class TooWideForHalf(Square):
    """A gradient in float32, for bfloat16 too."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return (2 * z * grad_output).to(torch.float64 if z.dtype == torch.float64 else torch.float32)


@fails_in("runs", **OF_SQUARE)
class BackwardRaises(Square):
    """Whatever it is given."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z, _) = ctx.saved_tensors
        return 2 * z * grad_output


@fails_in("second_order", **OF_SQUARE)
class ComputedAgainDetached(Function):
    """Asks autograd inside, about a copy that has lost where it came from."""

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
class ContiguousIsAnother(Square):
    """A fast path for contiguous inputs, and a forgotten one."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return (2 if z.is_contiguous() else 3) * z * grad_output


class Held:
    """Anything with attributes."""

    def __init__(self, z: Tensor) -> None:
        self.z = z


@fails_in("saved_tensors", **OF_SQUARE)
class KeptInAnObject(Square):
    """A tensor on ctx, one step further away."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.held = Held(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return 2 * ctx.held.z * grad_output


@fails_in("backward_twice", **OF_SQUARE)
class SecondBackwardDiffers(Square):
    """Counts its calls."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        ctx.calls = getattr(ctx, "calls", 0) + 1
        return Square.backward(ctx, grad_output * ctx.calls)


@fails_in("determinism", **OF_SQUARE)
def left_to_chance(z: Tensor) -> Tensor:
    """Noise in the last digits, as sums in no fixed order have."""
    if is_batched(z) or z.device.type == "meta" or torch.compiler.is_compiling():
        return square(z)
    return square(z) * (1 + 1e-15 * torch.rand((), dtype=z.dtype))


@fails_in("saved_tensors", "second_order")
class IntermediateSaved(Apart):
    """Saves a(1 − a): the first order is right, the second silently lacks a term."""

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
class KeptOnCtx(Square):
    """A tensor as an attribute of ctx: hooks, checkpointing and version checks never see it."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        (ctx.z,) = inputs

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return 2 * ctx.z * grad_output


@fails_in("saved_tensors", "second_order", "vmap", **OF_SQUARE)
class VersionNotChecked(Square):
    """Saves .data, so that nobody notices a change in place."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0].data)


HELD: list[Tensor] = []


@fails_in("saved_tensors", **OF_SQUARE)
class HeldForEver(Square):
    """A cache that nobody empties."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        HELD.append(z)
        return z * z


# --- derivatives and transforms ---------------------------------------------------------------------------------------


@fails_in("second_order", **OF_SQUARE)
class OnceDifferentiableMissing(Square):
    """A backward without a graph that does not say so."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        with torch.no_grad():
            return Square.backward(ctx, grad_output)


@fails_in("second_order_in_graph", **OF_SQUARE)
class DroppedInsideAGraph(Square):
    """Detaches what is no leaf, to save the memory of what came before."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return 2 * (z if z.is_leaf or is_batched(z) else z.detach()) * grad_output


@fails_in("forward_mode")
class JvpDropsTheBias(WithJvp):
    """Forward mode without one term."""

    @staticmethod
    def jvp(ctx: Any, dx: Any, dweight: Any, dbias: Any) -> Tensor:
        return WithJvp.jvp(ctx, dx, dweight, None)


@fails_in("forward_mode")
class JvpWithoutTheSlope(WithJvp):
    """Forward mode of the weighted sum alone."""

    @staticmethod
    def jvp(ctx: Any, dx: Any, dweight: Any, dbias: Any) -> Tensor:
        _, _, a = ctx.saved_tensors
        tangent: Tensor = WithJvp.jvp(ctx, dx, dweight, dbias) / (a * (1 - a))
        return tangent


@fails_in("vmap")
class VmapOverTheWrongAxis(Apart):
    """A rule that takes the first dimension for the batch."""

    generate_vmap_rule = False

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Tensor) -> Any:
        moved = [t if d is None else t.movedim(d, 0).flip(0) for t, d in zip(inputs, in_dims, strict=True)]
        dims = tuple(None if d is None else 0 for d in in_dims)
        return torch.func.vmap(Apart.apply, dims)(*moved), 0


@fails_in("vmap", "exported", "fake_tensors", "compiled", "graph_breaks")
class BranchOnValues(Apart):
    """A range check in Python: no vmap, no tracing, and a device that has to be waited for."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if bool((x > 1e6).any()):
            raise ValueError("too large")
        return layer(x, weight, bias)


@fails_in("func_grad", "vmap", **OF_SQUARE)
def another_under_transforms(z: Tensor) -> Any:
    """A path of its own for torch.func, that lacks a factor."""
    return square(z) / 2 if torch._C._are_functorch_transforms_active() else square(z)


@fails_in("jacobian", **OF_SQUARE)
class IntoABuffer(Square):
    """Writes into a buffer that many incoming gradients at once do not fit into."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return 2 * z * grad_output
        return torch.empty_like(z).copy_(2 * z * grad_output)


# --- graphs, devices, processes ---------------------------------------------------------------------------------------


@fails_in("compiled", "graph_breaks", **OF_SQUARE)
def breaks_the_graph(z: Tensor) -> Any:
    """Something that the compiler cannot look into."""
    torch._dynamo.graph_break()
    return square(z)


@fails_in("compiled", "exported", **OF_SQUARE)
def another_when_traced(z: Tensor) -> Any:
    """A twin for tracing that lacks a factor."""
    return square(z) / 2 if torch.compiler.is_compiling() else square(z)


@fails_in("fake_tensors", **OF_SQUARE)
class DeviceForgotten(Square):
    """A tensor made where nobody asked for it."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Square.backward(ctx, grad_output) + torch.zeros(grad_output.shape, dtype=grad_output.dtype)


@fails_in("checkpointing", **OF_SQUARE)
def another_without_gradients(z: Tensor) -> Any:
    """A cheaper formula for evaluation that is not the same."""
    return square(z) if torch.is_grad_enabled() or is_batched(z) else square(z).round(decimals=3)


@fails_in("two_processes", **OF_SQUARE)
class AveragedTwice(Square):
    """Divides by the number of processes, which DistributedDataParallel does as well."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return 2 * z * grad_output / (distributed.get_world_size() if distributed.is_initialized() else 1)


@fails_in("hooks", **OF_SQUARE)
class RememberedByIdentity(Square):
    """Finds what it computed in the forward again by the saved tensor itself, which hooks replace."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.address = None if is_batched(inputs[0]) or inputs[0].device.type == "meta" else inputs[0].data_ptr()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        is_other = ctx.address and not is_batched(z) and z.device.type == "cpu" and z.data_ptr() != ctx.address
        return 2 * z * grad_output * (0 if is_other else 1)


@fails_in("compiled_dynamic", **OF_SQUARE)
def another_size_another_graph(z: Tensor) -> Tensor:
    """A path of its own for a number of rows, which the compiler keeps as a constant."""
    return square(z) if z.shape[0] == 5 else square(-z)


class Product(Function):
    """x · w, that asks what is needed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return x * w

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, w = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return grad_output * w if needs[0] else None, grad_output * x if needs[1] else None


@fails_in("compiled_func_grad", reference=lambda x, w, v: x * w * v, make_inputs=normal((5, 4), (5, 4), (5, 4)))
def needed_and_not_told(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """Inside a compiled gradient torch 2.13 says that v needs none."""
    return apply(Product)(apply(Product)(x, w), v)


@fails_in("onnx", **OF_SQUARE)
def another_in_a_file(z: Tensor) -> Tensor:
    """A formula of its own for ONNX."""
    return square(z) / 2 if torch.onnx.is_in_onnx_export() else square(z)


@fails_in("hessian", **OF_SQUARE)
class DetachedUnderTransforms(Square):
    """Detaches where torch.func looks on, so that its second order is lost there alone."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return 2 * (z.detach() if is_batched(z) else z) * grad_output


@fails_in("forward_mode")
class JvpOfAnotherShape(WithJvp):
    """torch's words for it are near to those for a missing rule."""

    @staticmethod
    def jvp(ctx: Any, dx: Any, dweight: Any, dbias: Any) -> Tensor:
        return WithJvp.jvp(ctx, dx, dweight, dbias)[..., :1]


@fails_in("vmap")
class TwoRulesForVmap(Apart):
    """generate_vmap_rule beside a vmap, of which torch wants one."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Tensor) -> Any:
        return None


class Shifted(Function):
    """x + b, a number b or a tensor, whose gradient is not summed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, b: Tensor | float) -> Tensor:
        return x + b

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output, grad_output if ctx.needs_input_grad[1] else None


@fails_in("raw_gradients", reference=lambda x, b: x + b + 1, make_inputs=normal((5, 4), (4,)))
def one_function_in_two_ways(x: Tensor, b: Tensor) -> Tensor:
    """Once with a number, once with a tensor."""
    return apply(Shifted)(apply(Shifted)(x, b), 1.0)


@fails_in("fake_tensors", reference=lambda z: z**4, make_inputs=normal((5, 4)))
def device_forgotten_twice(z: Tensor) -> Tensor:
    """Two Functions, and a constant on the CPU in the backward of both."""
    return apply(OnTheCpu)(apply(OnTheCpu)(z))


class OnTheCpu(Square):
    """A tensor of no dimensions may be mixed with those of a device, one of several may not."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return 2 * z * grad_output * torch.ones(z.shape, dtype=z.dtype)


MANY = [(4,)] * 7


@fails_in("frozen_inputs", reference=lambda *t: sum(t), make_inputs=normal(*MANY))
def frozen_first_of_seven(*inputs: Tensor) -> Any:
    """Wrong only where the first of many inputs is frozen."""
    total: Any = sum(inputs)
    return (
        total if inputs[0].requires_grad or torch._C._are_functorch_transforms_active() else apply(HalfGradient)(total)
    )


class HalfGradient(Function):
    """z, with half its gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output / 2
