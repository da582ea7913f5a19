"""Wrong backwards, each with one real mistake, that the checks must catch; every one passes at first sight."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class Correct(Function):
    """A dense sigmoid layer without mistakes, in the style of the library; the others change one thing."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        output: Tensor = torch.sigmoid(torch.nn.functional.linear(x, weight, bias))
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight, output)
        ctx.save_for_forward(x, weight, output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, weight, a = ctx.saved_tensors
        delta: Tensor = grad_output * a * (1 - a)
        needs = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):
            return (
                delta @ weight if needs[0] else None,
                delta.T @ x if needs[1] else None,
                delta.sum(0) if needs[2] else None,
            )


class CorrectForwardMode(Correct):
    """With a forward-mode rule, which torch.compile refuses: correct, and a mistake while it traces."""

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dweight: Tensor, dbias: Tensor) -> Tensor:
        x, weight, a = ctx.saved_tensors
        tangent: Tensor = (dx @ weight.T + x @ dweight.T + dbias) * a * (1 - a)
        return tangent


class TransposeForgotten(Correct):
    """x.T @ δ for δ.T @ x: with as many inputs as neurons the shape is the same."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        grad_input, grad_weight, grad_bias = Correct.backward(ctx, grad_output)
        return grad_input, grad_weight.T, grad_bias


class BiasGradientNotSummed(Correct):
    """The engine sums it, so that gradcheck passes."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        _, _, a = ctx.saved_tensors
        return *Correct.backward(ctx, grad_output)[:2], grad_output * a * (1 - a)


class StridesIgnored(Correct):
    """Reads the incoming gradient's memory as if it were contiguous."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        if not any(s == 0 for s in grad_output.stride()):
            contiguous = (grad_output.shape[1], 1)
            grad_output = grad_output.as_strided(grad_output.shape, contiguous)
        return Correct.backward(ctx, grad_output)


class FirstElementForAll(Correct):
    """Scales by one number of the incoming gradient."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Correct.backward(ctx, grad_output.flatten()[0].expand_as(grad_output))


class IncomingGradientChanged(Correct):
    """Saves memory by writing into what belongs to somebody else."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        _, _, a = ctx.saved_tensors
        grad_output.mul_(a * (1 - a))
        return Correct.backward(ctx, grad_output / (a * (1 - a)))


class FrozenInputsComputed(Correct):
    """Never asks needs_input_grad."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, weight, a = ctx.saved_tensors
        delta = grad_output * a * (1 - a)
        return delta @ weight, delta.T @ x, delta.sum(0)


class IntermediateSaved(Correct):
    """Saves a(1 − a): first order is right, second order silently drops a term."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight, (output * (1 - output)).detach())
        ctx.save_for_forward(x, weight, output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, weight, slope = ctx.saved_tensors
        delta = grad_output * slope
        return delta @ weight, delta.T @ x, delta.sum(0)


class KeptBesideTheHooks(Correct):
    """Keeps tensors as attributes of ctx: hooks, checkpointing and version checks never see them."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.x, ctx.weight, _ = inputs
        ctx.output = output.detach()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        delta = grad_output * ctx.output * (1 - ctx.output)
        return delta @ ctx.weight, delta.T @ ctx.x, delta.sum(0)


class JvpDropsTheBias(CorrectForwardMode):
    """Forward mode without one term."""

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dweight: Tensor, dbias: Tensor) -> Tensor:
        return CorrectForwardMode.jvp(ctx, dx, dweight, torch.zeros_like(dbias))


class VmapOverTheWrongAxis(Correct):
    """A vmap rule that takes the last dimension for the batch."""

    generate_vmap_rule = False

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Tensor) -> Any:
        moved = [t if d is None else t.flip(d) for t, d in zip(inputs, in_dims, strict=True)]
        return torch.vmap(Correct.apply, in_dims)(*moved), 0


class ErrorOf1e4(Correct):
    """A relative error of 1e-4, which gradcheck's default tolerance lets through."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Correct.backward(ctx, grad_output * (1 + 1e-4))


class DtypeOfAutocast(Correct):
    """Lets autocast choose the dtype of the gradients."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, weight, a = ctx.saved_tensors
        delta = grad_output * a * (1 - a)
        return torch.mm(delta, weight), torch.mm(delta.T, x), delta.sum(0)


class BranchOnValues(Correct):
    """A range check in Python: no vmap, no compilation, and a device that has to be waited for."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if bool((x > 1e6).any()):
            raise ValueError("too large")
        return Correct.forward(x, weight, bias)


class AutocastIgnored(Correct):
    """A forward that leaves autocast, so that its output has another dtype than torch's."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return Correct.forward(x, weight, bias)


class SecondBackwardDiffers(Correct):
    """Counts its calls, and gives something else the second time."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        ctx.calls = getattr(ctx, "calls", 0) + 1
        return Correct.backward(ctx, grad_output * ctx.calls)


def applied(function: type[Function]) -> Callable[..., Tensor]:
    return lambda *tensors: function.apply(*tensors)
