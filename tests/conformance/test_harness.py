"""The tests of this folder catch planted errors: each wrong function passes the tests that it should and fails one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import Unsupported
from torch.autograd import Function
from torch.autograd.gradcheck import GradcheckError
from torch.nn.functional import linear

from . import test_autocast, test_compile, test_derivatives, test_errors, test_transforms, test_values
from .calls import BAD_PROBABILITY
from .catalogue import OPERATIONS, Operation

Check = Callable[[Operation], None]


class Sound(Function):
    """A correct sigmoid by hand; each wrong one below differs from it in one method."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return torch.sigmoid(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (a,) = ctx.saved_tensors
        return grad_output * (a * (1 - a)).conj()

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Any:
        (a,) = ctx.saved_tensors
        return tangent * a * (1 - a)


class HalfOfTheProduct(Sound):
    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (a,) = ctx.saved_tensors
        return grad_output * (1 - a)


class WithoutConjugate(Sound):
    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (a,) = ctx.saved_tensors
        return grad_output * a * (1 - a)


class ForContiguousGradients(Sound):
    """Reads the storage of grad_output in order, like a kernel that ignores strides."""

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (a,) = ctx.saved_tensors
        in_order = grad_output.resolve_neg().as_strided(a.shape, a.contiguous().stride())
        return in_order * (a * (1 - a)).conj()


class KeepsTheSlope(Sound):
    """Saves an intermediate that autograd does not know, so the second derivative is silently wrong."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.slope = (output * (1 - output)).conj()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output * ctx.slope


class WritesIntoItsArgument(Sound):
    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (a,) = ctx.saved_tensors
        return grad_output.mul_((a * (1 - a)).conj())


class TangentForgotten(Sound):
    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Any:
        return torch.zeros_like(tangent)


class WithoutVmapRule(Sound):
    generate_vmap_rule = False


class BranchesOnValues(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        a = torch.sigmoid(z) if z.sum() > 0 else 1 - torch.sigmoid(-z)
        ctx.save_for_backward(a)
        return a

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        (a,) = ctx.saved_tensors
        return grad_outputs[0] * (a * (1 - a)).conj()


class MeanBiasGradient(Function):
    """A dense layer whose bias gradient is the mean over rows, not their sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        (delta,) = grad_outputs
        rows = delta.reshape(-1, weight.shape[0])
        grad_weight = rows.T @ x.reshape(-1, weight.shape[1]).conj()
        return delta @ weight.conj(), grad_weight, rows.mean(0) if ctx.needs_input_grad[2] else None


def sigmoid_by(function: type[Function]) -> Operation:
    return replace(OPERATIONS["sigmoid"], ours=lambda input: function.apply(input))


def _mean_bias(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    return MeanBiasGradient.apply(input, weight, bias)  # type: ignore[no-untyped-call]


def _rounded_weights(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Casts as autocast does, but always: the value loses bits, and the dtype changes."""
    lower = torch.bfloat16
    return linear(input.to(lower), weight.to(lower), None if bias is None else bias.to(lower))


def _wrong_strides(input: Tensor) -> Tensor:
    return torch.sigmoid(input).contiguous()


def _without_range_check(input: Tensor, target: Tensor, weight: Any = None, *, reduction: str = "mean") -> Tensor:
    return (-target * input.clamp(1e-6).log() - (1 - target) * (1 - input).clamp(1e-6).log()).mean()


# --- the checks, on one operation each --------------------------------------------------------------------------------


def value(operation: Operation) -> None:
    test_values.test_value_dtype_and_strides_are_torchs_and_an_unsupported_dtype_raises_the_same(
        operation, torch.float64
    )


def unchanged_arguments(operation: Operation) -> None:
    test_values.test_no_argument_is_changed(operation, torch.float64)


def gradient(operation: Operation) -> None:
    test_derivatives.test_gradients_are_torchs(operation, torch.float64)


def complex_gradient(operation: Operation) -> None:
    test_derivatives.test_gradients_are_torchs(operation, torch.complex128)


def layouts(operation: Operation) -> None:
    test_derivatives.test_non_contiguous_arguments_and_grad_output_give_the_gradients_of_contiguous_ones(
        operation, torch.float64
    )


def first_order(operation: Operation) -> None:
    test_derivatives.test_gradcheck_in_reverse_and_forward_mode_batched_and_undefined(operation, torch.float64)


def second_order(operation: Operation) -> None:
    test_derivatives.test_gradgradcheck_in_reverse_over_reverse_and_forward_over_reverse_mode(
        operation, torch.float64, False
    )


def batching(operation: Operation) -> None:
    test_transforms.test_vmap_over_any_argument_and_dimension_is_a_loop(operation, torch.float64)


def compilation(operation: Operation) -> None:
    test_compile.test_compiled_without_gradients_is_eager(operation)


def autocast(operation: Operation) -> None:
    test_autocast.test_value_and_dtype_under_autocast_are_torchs(operation, torch.float64, torch.bfloat16)


def refusal(operation: Operation) -> None:
    bad_call = BAD_PROBABILITY["probability above 1"]
    test_errors.test_bad_call_raises_the_type_that_torch_raises_and_says_why(operation, bad_call)


EAGER = [value, unchanged_arguments, gradient, complex_gradient, layouts, first_order, second_order, batching, autocast]


@pytest.mark.parametrize("check", EAGER, ids=lambda check: check.__name__)
def test_a_correct_function_passes(check: Check) -> None:
    check(sigmoid_by(Sound))


# The operation with its error, a test that does not see it (or None), the test that does, and how that test fails.
PLANTED: dict[str, tuple[Operation, Check | None, Check, type[Exception]]] = {
    "half of the product, compared": (sigmoid_by(HalfOfTheProduct), value, gradient, AssertionError),
    "half of the product, measured": (sigmoid_by(HalfOfTheProduct), value, first_order, GradcheckError),
    "mean bias gradient": (replace(OPERATIONS["linear"], ours=_mean_bias), value, gradient, AssertionError),
    "no conjugate": (sigmoid_by(WithoutConjugate), gradient, complex_gradient, AssertionError),
    "contiguous gradients only": (sigmoid_by(ForContiguousGradients), gradient, layouts, AssertionError),
    "intermediate saved": (sigmoid_by(KeepsTheSlope), gradient, second_order, GradcheckError),
    "argument overwritten": (sigmoid_by(WritesIntoItsArgument), None, unchanged_arguments, AssertionError),
    "tangent forgotten": (sigmoid_by(TangentForgotten), gradient, first_order, GradcheckError),
    "no vmap rule": (sigmoid_by(WithoutVmapRule), gradient, batching, RuntimeError),
    "branch on values": (sigmoid_by(BranchesOnValues), gradient, compilation, Unsupported),
    "strides of its own": (replace(OPERATIONS["sigmoid"], ours=_wrong_strides), gradient, value, AssertionError),
    "autocast of float64": (replace(OPERATIONS["linear"], ours=_rounded_weights), None, autocast, AssertionError),
    "no range check": (
        replace(OPERATIONS["binary_cross_entropy"], ours=_without_range_check),
        None,
        refusal,
        AssertionError,
    ),
}


@pytest.mark.parametrize(("operation", "blind", "seeing", "error"), PLANTED.values(), ids=PLANTED)
def test_a_planted_error_is_caught(
    operation: Operation, blind: Check | None, seeing: Check, error: type[Exception]
) -> None:
    if blind is not None:
        blind(operation)
    with pytest.raises(error):
        seeing(operation)
