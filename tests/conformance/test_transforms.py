"""Every operation under `torch.func`: vmap, vjp and jvp, and their compositions, agree with torch's function."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap

from .catalogue import (
    DOUBLE_DTYPES,
    Operation,
    Sample,
    TensorFunction,
    as_function_of,
    each_operation,
    each_operation_and,
    leaves,
    one_per_value,
    representative,
    tensors,
)

Outputs = tuple[Tensor, ...]
Function = Callable[..., Outputs]
Transform = Callable[[Function, Outputs], tuple[Function, Outputs]]

# --- each transform takes a function and arguments for it, and gives a new function and its arguments -----------------


def pullback(function: Function, arguments: Outputs) -> tuple[Function, Outputs]:
    """The vector-Jacobian product as a function of the arguments and the cotangents."""
    cotangents = tuple(map(torch.randn_like, function(*arguments)))

    def product(*values: Tensor) -> Outputs:
        pull = vjp(function, *values[: len(arguments)])[1]
        products: Outputs = pull(values[len(arguments) :])
        return products

    return product, (*arguments, *cotangents)


def pushforward(function: Function, arguments: Outputs) -> tuple[Function, Outputs]:
    """The value and the Jacobian-vector product as a function of the arguments and the tangents."""
    tangents = tuple(map(torch.randn_like, arguments))

    def product(*values: Tensor) -> Outputs:
        outputs_and_products: Any = jvp(function, values[: len(arguments)], values[len(arguments) :])
        outputs, products = outputs_and_products
        return *outputs, *products

    return product, (*arguments, *tangents)


def batched(function: Function, arguments: Outputs) -> tuple[Function, Outputs]:
    """The function over a new leading dimension of every argument."""
    return vmap(function), tuple(torch.stack([argument, argument / 2]) for argument in arguments)


COMPOSITIONS: dict[str, list[Transform]] = {
    "vjp": [pullback],
    "jvp": [pushforward],
    "vmap": [batched],
    "vmap of vmap": [batched, batched],
    "vmap of vjp": [pullback, batched],
    "vmap of jvp": [pushforward, batched],
    "vjp of vmap": [batched, pullback],
    "jvp of vmap": [batched, pushforward],
    "vjp of vjp": [pullback, pullback],
    "jvp of vjp": [pullback, pushforward],
    "vjp of jvp": [pushforward, pullback],
    "jvp of jvp": [pushforward, pushforward],
    "vmap of jvp of vjp": [pullback, pushforward, batched],
    "vjp of vmap of vjp": [pullback, batched, pullback],
}


def _composed(function: TensorFunction, arguments: Outputs, transforms: list[Transform]) -> tuple[Function, Outputs]:
    composed: Function = lambda *values: (function(*values),)  # noqa: E731
    for transform in transforms:
        composed, arguments = transform(composed, arguments)
    return composed, arguments


@pytest.mark.parametrize("transforms", COMPOSITIONS.values(), ids=COMPOSITIONS)
@each_operation_and(DOUBLE_DTYPES, where=Operation.differentiates, slow=[torch.complex128])
def test_composition_of_transforms_is_torchs(
    operation: Operation, dtype: torch.dtype, transforms: list[Transform]
) -> None:
    """With every value of an option; the single transforms of real numbers with every combination of options."""
    thin = one_per_value if dtype.is_complex or len(transforms) > 1 else representative
    for sample in thin(operation.samples(dtype)):
        leaf_values = tuple(leaf.detach() for leaf in leaves(sample))
        theirs, arguments = _composed(as_function_of(operation.theirs, sample), leaf_values, transforms)
        ours, _ = _composed(as_function_of(operation.ours, sample), leaf_values, transforms)
        torch.testing.assert_close(ours(*arguments), theirs(*arguments))


# --- vmap against a loop: over every argument in turn, the constants too, along the first or the last dimension -------

InDims = tuple[int | None, ...]


def _batch_dimensions(count: int) -> list[InDims]:
    """All arguments, and each one separately, batched along the first dimension or the last."""
    alone = [tuple(dim if i == k else None for i in range(count)) for k in range(count) for dim in (0, -1)]
    return [(0,) * count, (-1,) * count, *alone]


def _stacked(values: list[Tensor], in_dims: InDims) -> list[Tensor]:
    return [
        value if dim is None else torch.stack([value, value / 2, value / 4], dim=dim)
        for value, dim in zip(values, in_dims, strict=True)
    ]


def _looped(function: TensorFunction, values: list[Tensor], in_dims: InDims) -> Tensor:
    pairs = list(zip(values, in_dims, strict=True))
    one = [[value if dim is None else value.select(dim, i) for value, dim in pairs] for i in range(3)]
    return torch.stack([function(*values) for values in one])


@each_operation_and((torch.float64, torch.complex128, torch.int64), where=Operation.supports)
def test_vmap_over_any_argument_and_dimension_is_a_loop(operation: Operation, dtype: torch.dtype) -> None:
    for sample in operation.samples(dtype, requires_grad=False):
        if dtype is torch.int64:
            sample = sample.transform(lambda leaf: leaf * 4)  # so that halves are whole numbers
        theirs = as_function_of(operation.theirs, sample, chosen=lambda leaf: True)
        ours = as_function_of(operation.ours, sample, chosen=lambda leaf: True)
        for in_dims in _batch_dimensions(len(tensors(sample))):
            values = _stacked(tensors(sample), in_dims)
            if dtype is torch.int64:
                values = [value.long() for value in values]
            torch.testing.assert_close(vmap(ours, in_dims)(*values), _looped(theirs, values, in_dims))


def _flat_gradient(function: TensorFunction, differentiable: tuple[int, ...]) -> TensorFunction:
    gradient = torch.func.grad(lambda *values: function(*values).square().sum(), argnums=differentiable)
    return lambda *values: torch.cat([part.flatten() for part in gradient(*values)])


@each_operation
def test_vmap_of_a_gradient_over_any_argument_and_dimension_is_a_loop(operation: Operation) -> None:
    for sample in representative(operation.samples(torch.float64)):
        values = tensors(sample)
        differentiable = tuple(k for k, value in enumerate(values) if value.requires_grad)
        theirs = _flat_gradient(as_function_of(operation.theirs, sample, chosen=lambda leaf: True), differentiable)
        ours = _flat_gradient(as_function_of(operation.ours, sample, chosen=lambda leaf: True), differentiable)
        for in_dims in _batch_dimensions(len(values)):
            stacked = [value.detach() for value in _stacked(values, in_dims)]
            torch.testing.assert_close(vmap(ours, in_dims)(*stacked), _looped(theirs, stacked, in_dims))


def _hessian(function: TensorFunction, sample: Sample) -> Tensor:
    """Of the sum of squares of the outputs, with respect to the first argument."""
    first, *others = (leaf.detach() for leaf in leaves(sample))
    outputs = as_function_of(function, sample)
    hessian: Tensor = torch.func.hessian(lambda value: outputs(value, *others).square().sum())(first)
    return hessian


@each_operation
def test_hessian_by_jacfwd_of_jacrev_is_torchs(operation: Operation) -> None:
    for sample in representative(operation.samples(torch.float64)):
        if leaves(sample)[0].numel() <= 30:
            torch.testing.assert_close(_hessian(operation.ours, sample), _hessian(operation.theirs, sample))
