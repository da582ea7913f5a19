"""A call that torch refuses raises the same type of exception; an unusual one that torch accepts gives its value."""

import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from .calls import BAD_CALLS, CALLS_WITHOUT_A_TENSOR, ODD_CALLS, Call, Calls
from .catalogue import OPERATIONS, Operation, assert_same_outcome, each_operation, leaves, outcome
from .catalogue import call as call_sample


def each_call(table: dict[str, Calls]) -> pytest.MarkDecorator:
    rows = [(OPERATIONS[name], call, f"{name}-{what}") for name, calls in table.items() for what, call in calls.items()]
    return pytest.mark.parametrize(
        ("operation", "call"), [row[:2] for row in rows], ids=[row[2].replace(" ", "_") for row in rows]
    )


# --- tests ------------------------------------------------------------------------------------------------------------


@each_operation
def test_torchs_own_error_inputs_raise_what_torch_says(operation: Operation) -> None:
    """torch has none for these operations today; if it adds some, this test checks them."""
    errors = operation.info.error_inputs_func
    for error in errors(operation.info, "cpu") if errors else ():
        with pytest.raises(error.error_type, match=error.error_regex):
            call_sample(operation.ours, error.sample_input)


@each_call(BAD_CALLS)
@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
def test_bad_call_raises_the_type_that_torch_raises_and_says_why(operation: Operation, call: Call) -> None:
    expected = outcome(call, operation.theirs)
    assert isinstance(expected, Exception), f"torch accepts this call: {expected}"
    actual = outcome(call, operation.ours)
    assert type(actual) is type(expected), f"expected {expected!r}, got {actual!r}"
    assert str(actual)


@each_call(BAD_CALLS)
@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
def test_bad_call_without_gradients_has_torchs_outcome(operation: Operation, call: Call) -> None:
    """torch accepts some of them then: a constant may require a gradient if none is recorded."""
    with torch.no_grad():
        expected = outcome(_seeded, call, operation.theirs)
        assert_same_outcome(outcome(_seeded, call, operation.ours), expected, str(operation))


@each_call(CALLS_WITHOUT_A_TENSOR)
def test_an_argument_that_is_not_a_tensor_raises_a_type_error(operation: Operation, call: Call) -> None:
    """TypeError, as in torch's own operators; torch's losses, which are written in Python, raise AttributeError."""
    expected = outcome(call, operation.theirs)
    assert isinstance(expected, TypeError | AttributeError)
    assert type(outcome(call, operation.ours)) in (TypeError, type(expected))


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("name", ["binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss"])
def test_any_mixture_of_float_dtypes_gives_torchs_dtype_or_exception(name: str, reduction: str) -> None:
    for input_dtype, target_dtype in itertools.product(FLOATS, FLOATS):
        arguments = torch.rand(4).to(input_dtype), torch.rand(4).to(target_dtype)
        expected = outcome(OPERATIONS[name].theirs, *arguments, reduction=reduction)
        actual = outcome(OPERATIONS[name].ours, *arguments, reduction=reduction)
        assert _type_of(actual) == _type_of(expected), f"input {input_dtype}, target {target_dtype}"


def _type_of(value: Any) -> Any:
    return value.dtype if isinstance(value, Tensor) else type(value)


@each_call(ODD_CALLS)
def test_an_unusual_call_gives_torchs_value_dtype_and_warnings(operation: Operation, call: Call) -> None:
    with warnings.catch_warnings(record=True) as expected_warnings:
        warnings.simplefilter("always")
        expected = _seeded(call, operation.theirs)
    with warnings.catch_warnings(record=True) as actual_warnings:
        warnings.simplefilter("always")
        actual = _seeded(call, operation.ours)
    torch.testing.assert_close(actual, expected, equal_nan=True)
    assert [w.category for w in actual_warnings] == [w.category for w in expected_warnings]


@each_call(ODD_CALLS)
@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
def test_gradients_of_an_unusual_call_are_torchs(operation: Operation, call: Call) -> None:
    try:
        expected = _gradients(operation, operation.theirs, call)
    except RuntimeError as error:  # up to 2.11 the backward of mse_loss fails for some dtypes that its forward accepts
        pytest.skip(f"torch has no gradient for this call: {error}")
    torch.testing.assert_close(_gradients(operation, operation.ours, call), expected, equal_nan=True)


# The number of leading arguments that torch differentiates: those that require a gradient in its samples.
DIFFERENTIABLE = {
    name: max(len(leaves(sample)) for sample in operation.samples(torch.float32))
    for name, operation in OPERATIONS.items()
}


def _seeded(call: Call, function: Any) -> Tensor:
    torch.manual_seed(1)
    output: Tensor = call(function)
    return output


def _gradients(operation: Operation, function: Any, call: Call) -> tuple[Tensor, ...]:
    """With respect to every floating argument except the constants, which torch does not differentiate."""
    asked: list[Tensor] = []

    def asking(*args: Any, **options: Any) -> Any:
        candidates = [*args, *options.values()][: DIFFERENTIABLE[str(operation)]]
        asked.extend(t.requires_grad_() for t in candidates if isinstance(t, Tensor) and t.is_floating_point())
        return function(*args, **options)

    output = _seeded(call, asking)
    return torch.autograd.grad(output, asked, torch.randn_like(output))
