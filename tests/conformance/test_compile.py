"""Every operation in one graph of `torch.compile`, forward and backward, static and dynamic shapes, equals eager."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from .catalogue import (
    Operation,
    Sample,
    TensorFunction,
    call,
    each_operation,
    each_operation_and,
    gradients,
    one_per_option,
    one_per_value,
    random_grad_output,
)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _compiled(function: TensorFunction, dynamic: bool = False) -> TensorFunction:
    """Compile into one graph, through all of AOTAutograd but without generating code."""
    torch._dynamo.reset()
    compiled: TensorFunction = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    return compiled


def _assert_compiled_is_eager(operation: Operation, compiled: TensorFunction, sample: Sample) -> None:
    torch.testing.assert_close(call(compiled, sample), call(operation.ours, sample))
    grad_output = random_grad_output(operation.ours, sample)
    expected = gradients(operation.ours, sample, grad_output)
    torch.testing.assert_close(gradients(compiled, sample, grad_output), expected)


def _richest(samples: list[Sample]) -> list[Sample]:
    """The two samples with most options, which torch lists last."""
    return one_per_option(samples)[-2:]


@each_operation
def test_compiled_forward_and_backward_are_eager(operation: Operation) -> None:
    for sample in one_per_value(operation.samples(torch.float32)):
        _assert_compiled_is_eager(operation, _compiled(operation.ours), sample)


@each_operation_and((torch.bfloat16, torch.complex64), where=Operation.differentiates)
def test_compiled_forward_and_backward_in_other_dtypes_are_eager(operation: Operation, dtype: torch.dtype) -> None:
    for sample in _richest(operation.samples(dtype)):
        _assert_compiled_is_eager(operation, _compiled(operation.ours), sample)


@each_operation
def test_compiled_without_gradients_is_eager(operation: Operation) -> None:
    for sample in _richest(operation.samples(torch.float32))[-1:]:
        with torch.no_grad():
            torch.testing.assert_close(call(_compiled(operation.ours), sample), call(operation.ours, sample))


def _with_batch_size(sample: Sample, batch_size: int) -> Sample:
    """Tensors with as many rows and dimensions as the input get this many rows; parameters keep their shape."""
    dim, size = sample.input.dim(), sample.input.shape[0]

    def resized(leaf: Tensor) -> Tensor:
        if leaf.dim() < dim or leaf.shape[0] != size:
            return leaf.detach().requires_grad_(leaf.requires_grad)
        rows = torch.arange(batch_size) % size
        return leaf.detach()[rows].requires_grad_(leaf.requires_grad)

    return sample.transform(resized)


@each_operation
def test_one_compilation_with_dynamic_shapes_serves_several_batch_sizes(operation: Operation) -> None:
    sample = max(operation.samples(torch.float32), key=lambda sample: sample.input.dim())
    compiled = _compiled(operation.ours, dynamic=True)
    counters.clear()
    for batch_size in (6, 7, 11):  # no other size of the sample, because equal sizes would become one symbol
        _assert_compiled_is_eager(operation, compiled, _with_batch_size(sample, batch_size))
        assert counters["stats"]["unique_graphs"] == 1, f"recompiled for a batch of {batch_size}"


@each_operation
def test_compiled_function_that_uses_the_operation_twice_is_eager(operation: Operation) -> None:
    """Once on the arguments and once on strided tensors made inside the graph."""

    def twice(function: TensorFunction) -> TensorFunction:
        def composed(first: Any, *args: Any, **kwargs: Any) -> Any:
            strided = torch.stack([first, first], dim=-1)[..., 0]
            return function(first, *args, **kwargs) * 2 + function(strided, *args, **kwargs).sum()

        return composed

    for sample in _richest(operation.samples(torch.float32))[-1:]:
        compiled = _compiled(twice(operation.ours))
        grad_output = random_grad_output(operation.ours, sample)
        expected = gradients(twice(operation.ours), sample, grad_output)
        torch.testing.assert_close(gradients(compiled, sample, grad_output), expected)
