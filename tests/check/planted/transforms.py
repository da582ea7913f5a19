"""Planted errors that show in derivatives, transforms, graphs, on other devices, or in two processes."""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd import Function

from tests.check.controls import Separate, WithJvp, layer
from tests.check.planted.register import OF_SQUARE, Square, apply, fails_in, is_batched, square
from torchnn.check.operations import normal_inputs

# --- derivatives and transforms ---------------------------------------------------------------------------------------


@fails_in("second_order", **OF_SQUARE)
class OnceDifferentiableMissing(Square):
    """Computes its gradients without a graph, and does not declare once_differentiable."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        with torch.no_grad():
            return Square.backward(ctx, grad_output)


@fails_in("second_order_in_graph", **OF_SQUARE)
class DetachedInsideAGraph(Square):
    """Detaches inputs that are not leaves."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return 2 * (z if z.is_leaf or is_batched(z) else z.detach()) * grad_output


@fails_in("forward_mode")
class JvpDropsTheBias(WithJvp):
    """Leaves out one term in forward mode."""

    @staticmethod
    def jvp(ctx: Any, dx: Any, dweight: Any, dbias: Any) -> Tensor:
        return WithJvp.jvp(ctx, dx, dweight, None)


@fails_in("forward_mode")
class JvpWithoutTheDerivative(WithJvp):
    """Leaves out the derivative of the activation in forward mode."""

    @staticmethod
    def jvp(ctx: Any, dx: Any, dweight: Any, dbias: Any) -> Tensor:
        _, _, a = ctx.saved_tensors
        tangent: Tensor = WithJvp.jvp(ctx, dx, dweight, dbias) / (a * (1 - a))
        return tangent


@fails_in("vmap")
class VmapReversesTheBatch(Separate):
    """A vmap rule that reverses the batch."""

    generate_vmap_rule = False

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Tensor) -> Any:
        moved = [t if d is None else t.movedim(d, 0).flip(0) for t, d in zip(inputs, in_dims, strict=True)]
        dims = tuple(None if d is None else 0 for d in in_dims)
        return torch.func.vmap(Separate.apply, dims)(*moved), 0


@fails_in("vmap", "exported", "fake_tensors", "compiled", "graph_breaks")
class BranchOnValues(Separate):
    """A Python branch on values, which prevents vmap and tracing and synchronises with the device."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if bool((x > 1e6).any()):
            raise ValueError("too large")
        return layer(x, weight, bias)


@fails_in("func_grad", "vmap", **OF_SQUARE)
def wrong_under_transforms(z: Tensor) -> Any:
    """A special path for torch.func that lacks a factor."""
    return square(z) / 2 if torch._C._are_functorch_transforms_active() else square(z)


@fails_in("jacobian", **OF_SQUARE)
class WritesIntoABuffer(Square):
    """Writes into a buffer that is too small for many incoming gradients at once."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return 2 * z * grad_output
        return torch.empty_like(z).copy_(2 * z * grad_output)


# --- graphs, devices, processes ---------------------------------------------------------------------------------------


@fails_in("compiled", "graph_breaks", **OF_SQUARE)
def breaks_the_graph(z: Tensor) -> Any:
    """Calls something that the compiler cannot trace."""
    torch._dynamo.graph_break()
    return square(z)


@fails_in("compiled", "exported", **OF_SQUARE)
def wrong_when_traced(z: Tensor) -> Any:
    """A special path for tracing that lacks a factor."""
    return square(z) / 2 if torch.compiler.is_compiling() else square(z)


@fails_in("fake_tensors", **OF_SQUARE)
class DeviceForgotten(Square):
    """Makes a tensor on the CPU, whatever the device of the inputs."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return Square.backward(ctx, grad_output) + torch.zeros(grad_output.shape, dtype=grad_output.dtype)


@fails_in("checkpointing", **OF_SQUARE)
def rounded_without_gradients(z: Tensor) -> Any:
    """Rounds the output under no_grad."""
    return square(z) if torch.is_grad_enabled() or is_batched(z) else square(z).round(decimals=3)


@fails_in("two_processes", **OF_SQUARE)
class AveragedTwice(Square):
    """Divides by the number of processes, as DistributedDataParallel does again."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return 2 * z * grad_output / (distributed.get_world_size() if distributed.is_initialized() else 1)


@fails_in("hooks", **OF_SQUARE)
class SavedTensorByIdentity(Square):
    """Expects the saved tensor to be the same object, but hooks replace it."""

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
def branch_on_the_number_of_rows(z: Tensor) -> Tensor:
    """A special path for five rows, which the compiler keeps as a constant."""
    return square(z) if z.shape[0] == 5 else square(-z)


class Product(Function):
    """x · w, which checks needs_input_grad."""

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


@fails_in("compiled_func_grad", reference=lambda x, w, v: x * w * v, make_inputs=normal_inputs((5, 4), (5, 4), (5, 4)))
def needs_input_grad_of_compiled_grad(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """Inside a compiled torch.func.grad, torch 2.13 says that v needs no gradient."""
    return apply(Product)(apply(Product)(x, w), v)


@fails_in("onnx", **OF_SQUARE)
def wrong_in_onnx(z: Tensor) -> Tensor:
    """A special formula for ONNX that lacks a factor."""
    return square(z) / 2 if torch.onnx.is_in_onnx_export() else square(z)


@fails_in("hessian", **OF_SQUARE)
class DetachedUnderTransforms(Square):
    """Detaches under torch.func, so the second order is lost there only."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return 2 * (z.detach() if is_batched(z) else z) * grad_output


@fails_in("forward_mode")
class JvpOfAnotherShape(WithJvp):
    """torch's error message for it is similar to that for a missing jvp."""

    @staticmethod
    def jvp(ctx: Any, dx: Any, dweight: Any, dbias: Any) -> Tensor:
        return WithJvp.jvp(ctx, dx, dweight, dbias)[..., :1]


@fails_in("vmap")
class TwoRulesForVmap(Separate):
    """Defines vmap and sets generate_vmap_rule, and torch accepts only one of them."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Tensor) -> Any:
        return None


class Shifted(Function):
    """x + b for a number or a tensor b, whose gradient is not summed."""

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


@fails_in("raw_gradients", reference=lambda x, b: x + b + 1, make_inputs=normal_inputs((5, 4), (4,)))
def bias_not_summed_in_one_of_two_calls(x: Tensor, b: Tensor) -> Tensor:
    """Applies the Function once with a number and once with a tensor."""
    return apply(Shifted)(apply(Shifted)(x, b), 1.0)


@fails_in("fake_tensors", reference=lambda z: z**4, make_inputs=normal_inputs((5, 4)))
def device_forgotten_twice(z: Tensor) -> Tensor:
    """Applies a Function twice whose backward makes a tensor on the CPU."""
    return apply(OnTheCpu)(apply(OnTheCpu)(z))


class OnTheCpu(Square):
    """Makes a tensor on the CPU; with dimensions, because torch allows mixing devices with a 0-dimensional one."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return 2 * z * grad_output * torch.ones(z.shape, dtype=z.dtype)


MANY = [(4,)] * 7


@fails_in("frozen_inputs", reference=lambda *t: sum(t), make_inputs=normal_inputs(*MANY))
def frozen_first_of_seven(*inputs: Tensor) -> Any:
    """Wrong only if the first of seven inputs is frozen."""
    total: Any = sum(inputs)
    return (
        total if inputs[0].requires_grad or torch._C._are_functorch_transforms_active() else apply(HalfGradient)(total)
    )


class HalfGradient(Function):
    """The identity, with half its gradient."""

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
