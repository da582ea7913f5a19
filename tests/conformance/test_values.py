"""The value of every operation is torch's, for every dtype, layout and lazily evaluated view that torch accepts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from .catalogue import (
    ALL_DTYPES,
    HALF_DTYPES,
    Operation,
    Sample,
    assert_same_outcome,
    call,
    each_operation,
    each_operation_and,
    in_double,
    outcome,
    representative,
    tensors,
    unless_nearer,
)


@each_operation_and(ALL_DTYPES)
def test_value_dtype_and_strides_are_torchs_and_an_unsupported_dtype_raises_the_same(
    operation: Operation, dtype: torch.dtype
) -> None:
    for sample in operation.values(dtype):
        expected = outcome(call, operation.theirs, sample)
        actual = outcome(call, operation.ours, sample)
        assert not operation.supports(dtype) or isinstance(expected, Tensor)
        if dtype in HALF_DTYPES and isinstance(actual, Tensor):
            truth = call(operation.theirs, in_double(sample))
            expected = unless_nearer(expected, actual, truth)
        assert_same_outcome(actual, expected, sample.summary())


@each_operation_and((torch.float32, torch.int64, torch.complex64), where=Operation.supports)
def test_non_contiguous_arguments_give_the_value_of_contiguous_ones(operation: Operation, dtype: torch.dtype) -> None:
    for sample in operation.samples(dtype, requires_grad=False):
        strided = call(operation.ours, sample.noncontiguous())
        torch.testing.assert_close(strided, call(operation.ours, sample))


def _conjugate_view(tensor: Tensor) -> Tensor:
    return torch.conj_physical(tensor).conj()


def _negative_view(tensor: Tensor) -> Tensor:
    return torch._neg_view(-tensor)


def _negative_conjugate_view(tensor: Tensor) -> Tensor:
    return _negative_view(_conjugate_view(tensor))


@each_operation_and((torch.float64, torch.complex128), where=Operation.supports)
def test_lazily_negated_or_conjugated_arguments_give_the_value_of_plain_ones(
    operation: Operation, dtype: torch.dtype
) -> None:
    complex_views = [_conjugate_view, _negative_conjugate_view] if dtype.is_complex else []
    for sample in operation.samples(dtype, requires_grad=False):
        for lazy_view in (_negative_view, *complex_views):
            torch.testing.assert_close(call(operation.ours, sample.transform(lazy_view)), call(operation.ours, sample))


@each_operation_and((torch.float32, torch.float64, torch.complex64), where=Operation.supports)
def test_no_argument_is_changed(operation: Operation, dtype: torch.dtype) -> None:
    for sample in representative(operation.samples(dtype)):
        output = call(operation.ours, sample)
        given = (*tensors(sample), grad_output := torch.randn_like(output), output)
        before = [(tensor.detach().clone(), tensor._version) for tensor in given]
        torch.autograd.backward(output, grad_output)
        assert [tensor._version for tensor in given] == [version for _, version in before]
        torch.testing.assert_close([t.detach() for t in given], [value for value, _ in before], rtol=0, atol=0)


# --- fake tensors -----------------------------------------------------------------------------------------------------


def _metadata(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.stride()


@contextmanager
def _fakes(sample: Sample, device: str) -> Iterator[Sample]:
    """The sample as fake tensors on a device that need not exist, with gradients off: on a CPU build of torch, a fake
    CUDA tensor that requires gradients aborts the process.
    """

    def fake(leaf: Tensor) -> Tensor:
        return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=device)

    with torch.no_grad(), FakeTensorMode():
        yield sample.transform(fake)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@each_operation_and((torch.float32, torch.bfloat16, torch.int64), where=Operation.supports)
def test_fake_tensors_have_the_metadata_of_real_ones(operation: Operation, dtype: torch.dtype, device: str) -> None:
    contiguous = representative(operation.samples(dtype, requires_grad=False))
    for sample in [*contiguous, *(s.noncontiguous() for s in contiguous)]:
        real = call(operation.ours, sample)
        with _fakes(sample, device) as fake_sample:
            fake = call(operation.ours, fake_sample)
        assert (_metadata(fake), fake.device.type) == (_metadata(real), device), sample.summary()


@each_operation
def test_meta_tensors_have_the_metadata_of_real_ones(operation: Operation) -> None:
    for sample in operation.samples(torch.float32, requires_grad=False):
        meta = call(operation.ours, sample.transform(lambda leaf: leaf.to("meta")))
        assert meta.is_meta
        assert _metadata(meta) == _metadata(call(operation.ours, sample)), sample.summary()
