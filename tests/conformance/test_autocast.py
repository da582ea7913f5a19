"""Under autocast every operation has torch's dtype and value, and gradients come back in the dtype of each leaf."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from torchnn import functional

from .catalogue import (
    OPERATIONS,
    Operation,
    TensorFunction,
    as_function_of,
    call,
    each_operation,
    each_operation_and,
    gradients,
    in_double,
    leaves,
    one_per_value,
    outcome,
    representative,
    unless_nearer,
)

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

each_lower_precision = pytest.mark.parametrize(
    "lower",
    [pytest.param(torch.float16, id="float16", marks=pytest.mark.slow), pytest.param(torch.bfloat16, id="bfloat16")],
)


@each_lower_precision
@each_operation_and(FLOATS, where=Operation.supports)
def test_value_and_dtype_under_autocast_are_torchs(
    operation: Operation, dtype: torch.dtype, lower: torch.dtype
) -> None:
    for sample in operation.samples(dtype):
        truth = call(operation.theirs, in_double(sample))
        with torch.autocast("cpu", lower):
            expected, actual = call(operation.theirs, sample), call(operation.ours, sample)
        torch.testing.assert_close(actual, unless_nearer(expected, actual, truth))


@each_lower_precision
@pytest.mark.parametrize("backward_inside", [False, True], ids=["backward-outside", "backward-inside"])
@each_operation_and(FLOATS, where=Operation.supports)
def test_gradients_under_autocast_are_torchs_in_the_dtype_of_each_leaf(
    operation: Operation, dtype: torch.dtype, lower: torch.dtype, backward_inside: bool
) -> None:
    for sample in one_per_value(operation.samples(dtype)):
        with torch.autocast("cpu", lower):
            expected_output, actual_output = call(operation.theirs, sample), call(operation.ours, sample)
        grad_output = torch.randn_like(expected_output)
        with torch.autocast("cpu", lower, enabled=backward_inside):
            expected = torch.autograd.grad(expected_output, leaves(sample), grad_output)
            actual = torch.autograd.grad(actual_output, leaves(sample), grad_output)
        truth = gradients(operation.theirs, in_double(sample), grad_output.double())
        assert all(gradient.dtype == dtype for gradient in actual)
        torch.testing.assert_close(actual, tuple(map(unless_nearer, expected, actual, truth)))


def _dtype_of_outcome(function: TensorFunction, *args: Any) -> Any:
    result = outcome(function, *args)
    return result.dtype if isinstance(result, Tensor) else type(result)


@each_lower_precision
def test_mixed_dtypes_of_dense_arguments_give_torchs_dtype(lower: torch.dtype) -> None:
    operation = OPERATIONS["linear"]
    for x, weight, bias in itertools.product((*FLOATS, torch.int64, torch.complex64), FLOATS, (*FLOATS, None)):
        arguments = (
            torch.ones(2, 3).to(x),
            torch.ones(4, 3).to(weight),
            None if bias is None else torch.ones(4).to(bias),
        )
        with torch.autocast("cpu", lower):
            expected = _dtype_of_outcome(operation.theirs, *arguments)
            assert _dtype_of_outcome(operation.ours, *arguments) == expected, (x, weight, bias)


@each_lower_precision
@pytest.mark.parametrize("name", ["binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss"])
def test_mixed_dtypes_of_loss_arguments_give_torchs_dtype(name: str, lower: torch.dtype) -> None:
    operation = OPERATIONS[name]
    for input_dtype, target_dtype in itertools.product(FLOATS, (*FLOATS, torch.int64, torch.bool)):
        arguments = torch.rand(4).to(input_dtype), torch.ones(4).to(target_dtype)
        with torch.autocast("cpu", lower):
            expected = _dtype_of_outcome(operation.theirs, *arguments)
            assert _dtype_of_outcome(operation.ours, *arguments) == expected, (input_dtype, target_dtype)


@each_operation
def test_an_inner_disabled_autocast_is_respected(operation: Operation) -> None:
    for sample in representative(operation.samples(torch.float32)):
        with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
            torch.testing.assert_close(call(operation.ours, sample), call(operation.theirs, sample))


@each_operation
def test_forward_mode_under_autocast_has_torchs_dtypes(operation: Operation) -> None:
    for sample in one_per_value(operation.samples(torch.float32)):
        primals = tuple(leaf.detach() for leaf in leaves(sample))
        tangents = tuple(map(torch.ones_like, primals))
        with torch.autocast("cpu", torch.bfloat16):
            expected = torch.func.jvp(as_function_of(operation.theirs, sample), primals, tangents)
            actual = torch.func.jvp(as_function_of(operation.ours, sample), primals, tangents)
        assert [t.dtype for t in actual] == [t.dtype for t in expected]
        torch.testing.assert_close(actual, expected, rtol=2e-2, atol=1e-1)


@each_operation
def test_compiled_under_autocast_has_eager_dtypes_and_gradients(operation: Operation) -> None:
    sample = max(operation.samples(torch.float32), key=lambda sample: sample.input.dim())
    torch._dynamo.reset()
    compiled: TensorFunction = torch.compile(operation.ours, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = call(operation.ours, sample), call(compiled, sample)
    torch.testing.assert_close(actual, expected)
    grad_output = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, leaves(sample), grad_output),
        torch.autograd.grad(expected, leaves(sample), grad_output),
    )


def test_compiled_on_a_device_without_autocast_ignores_the_autocast_of_another() -> None:
    torch._dynamo.reset()
    x, weight = torch.randn(3, 4, device="meta"), torch.randn(2, 4, device="meta")
    compiled = torch.compile(lambda x, weight: functional.dense(x, weight), fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = compiled(x, weight)
    assert output.shape == (3, 2)
    assert output.dtype == torch.float32
