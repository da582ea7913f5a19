"""Gradients of every operation: torch's own in every dtype, gradcheck in both modes and orders, any layout."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing._internal.common_utils import noncontiguous_like
from torch.testing._internal.composite_compliance import check_backward_formula, check_forward_ad_formula

from .catalogue import (
    ALL_DTYPES,
    DOUBLE_DTYPES,
    HALF_DTYPES,
    Operation,
    Sample,
    as_function_of,
    call,
    each_operation,
    each_operation_and,
    gradients,
    in_double,
    leaves,
    one_per_option,
    one_per_value,
    random_grad_output,
    representative,
    unless_nearer,
)

# Above this many elements the Jacobian is probed in random directions, not element by element (gradcheck's fast mode).
SMALL = 30
SMALL_IN_SECOND_ORDER = 20


@each_operation_and(ALL_DTYPES, where=Operation.differentiates)
def test_gradients_are_torchs(operation: Operation, dtype: torch.dtype) -> None:
    for sample in operation.samples(dtype):
        grad_output = random_grad_output(operation.theirs, sample)
        expected = gradients(operation.theirs, sample, grad_output)
        actual = gradients(operation.ours, sample, grad_output)
        if dtype in HALF_DTYPES:
            truth = gradients(operation.theirs, in_double(sample), grad_output.double())
            expected = tuple(map(unless_nearer, expected, actual, truth))
        torch.testing.assert_close(actual, expected, msg=functools.partial("{}: {}".format, sample.summary()))


@each_operation_and(DOUBLE_DTYPES, where=Operation.differentiates)
def test_one_gradient_at_a_time_is_the_same_as_all_at_once(operation: Operation, dtype: torch.dtype) -> None:
    for sample in operation.samples(dtype):
        grad_output = random_grad_output(operation.ours, sample)
        for leaf, expected in zip(leaves(sample), gradients(operation.ours, sample, grad_output), strict=True):
            alone = sample.transform(lambda t, leaf=leaf: t.detach().requires_grad_(t is leaf))
            (actual,) = gradients(operation.ours, alone, grad_output)
            torch.testing.assert_close(actual, expected)


# --- gradcheck --------------------------------------------------------------------------------------------------------


def _check_arguments(operation: Operation, sample: Sample, small: int) -> dict[str, Any]:
    return {
        "inputs": leaves(sample),
        "nondet_tol": operation.info.gradcheck_nondet_tol,
        "fast_mode": sum(leaf.numel() for leaf in leaves(sample)) > small,
    }


@each_operation_and(DOUBLE_DTYPES, where=Operation.differentiates)
def test_gradcheck_in_reverse_and_forward_mode_batched_and_undefined(operation: Operation, dtype: torch.dtype) -> None:
    info = operation.info
    for sample in representative(operation.samples(dtype)):
        assert gradcheck(
            as_function_of(operation.ours, sample),
            **_check_arguments(operation, sample, SMALL),
            check_grad_dtypes=True,
            check_undefined_grad=True,
            check_batched_grad=info.check_batched_grad,
            check_forward_ad=info.supports_forward_ad,
            check_batched_forward_grad=info.check_batched_forward_grad,
        )


@pytest.mark.parametrize("non_contiguous", [False, True], ids=["contiguous", "non-contiguous"])
@each_operation_and(DOUBLE_DTYPES, where=Operation.differentiates, slow=[torch.complex128])
def test_gradgradcheck_in_reverse_over_reverse_and_forward_over_reverse_mode(
    operation: Operation, dtype: torch.dtype, non_contiguous: bool
) -> None:
    for sample in one_per_value(operation.samples(dtype)):
        check = functools.partial(
            gradgradcheck,
            as_function_of(operation.ours, sample),
            **_check_arguments(operation, sample, SMALL_IN_SECOND_ORDER),
            gen_non_contig_grad_outputs=non_contiguous,
            check_grad_dtypes=True,
        )
        assert check(check_undefined_grad=True, check_batched_grad=operation.info.check_batched_gradgrad)
        if operation.info.supports_fwgrad_bwgrad:
            assert check(check_undefined_grad=False, check_fwd_over_rev=True, check_rev_over_rev=False)


# --- layouts ----------------------------------------------------------------------------------------------------------


@each_operation_and(DOUBLE_DTYPES, where=Operation.differentiates)
def test_non_contiguous_arguments_and_grad_output_give_the_gradients_of_contiguous_ones(
    operation: Operation, dtype: torch.dtype
) -> None:
    for sample in operation.samples(dtype):
        grad_output = random_grad_output(operation.ours, sample)
        expected = gradients(operation.theirs, sample, grad_output)
        strided_grad_output = noncontiguous_like(grad_output)
        actual = gradients(operation.ours, sample.noncontiguous(), strided_grad_output)
        torch.testing.assert_close(actual, expected)


def _expanded(grad_output: Tensor) -> Tensor:
    return grad_output.flatten()[:1].squeeze().expand_as(grad_output) if grad_output.numel() else grad_output


def _reversed_strides(grad_output: Tensor) -> Tensor:
    dims = tuple(reversed(range(grad_output.dim())))
    return grad_output.permute(dims).contiguous().permute(dims)


def _slice_of_a_larger_one(grad_output: Tensor) -> Tensor:
    larger = torch.stack([torch.full_like(grad_output, torch.nan), grad_output], dim=-1)
    return larger[..., 1]


def _lazily_negated(grad_output: Tensor) -> Tensor:
    return torch._neg_view(-grad_output)


LAYOUTS = [_expanded, _reversed_strides, _slice_of_a_larger_one, _lazily_negated]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__.strip("_"))
@each_operation
def test_any_layout_of_grad_output_gives_torchs_gradients(operation: Operation, layout: Any) -> None:
    for sample in operation.samples(torch.float64):
        grad_output = layout(random_grad_output(operation.theirs, sample))
        expected = gradients(operation.theirs, sample, grad_output)
        torch.testing.assert_close(gradients(operation.ours, sample, grad_output), expected)


# --- tensor subclasses ------------------------------------------------------------------------------------------------


@each_operation
def test_tensor_subclasses_pass_through_backward_and_forward_mode(operation: Operation) -> None:
    check = {"gradcheck_wrapper": operation.info.gradcheck_wrapper, "assert_equal_fn": torch.testing.assert_close}
    for sample in one_per_option(operation.samples(torch.float32)):
        args, kwargs = (sample.input, *sample.args), sample.kwargs
        check_backward_formula(operation.ours, args, kwargs, sample.output_process_fn_grad, **check)
        check_forward_ad_formula(operation.ours, args, kwargs, **check)


# --- engine -----------------------------------------------------------------------------------------------------------


@each_operation
def test_backward_twice_over_a_retained_graph_gives_the_same_gradients(operation: Operation) -> None:
    for sample in operation.samples(torch.float64):
        output = call(operation.ours, sample)
        grad_output = torch.randn_like(output)
        first = torch.autograd.grad(output, leaves(sample), grad_output, retain_graph=True)
        second = torch.autograd.grad(output, leaves(sample), grad_output)
        torch.testing.assert_close(second, first, rtol=0, atol=0)
