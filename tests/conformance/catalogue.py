"""Our operations and torch's equivalents, with the sample inputs and dtypes of torch's own test suite.

Only `OPERATIONS` pairs ours with theirs, so a test of the tests can pass in another pair.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_dtype import all_types_and_complex_and
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from torchnn import functional

TensorFunction = Callable[..., Tensor]
Sample = Any  # torch's `SampleInput`, which has no types, like its `OpInfo` below

_all_dtypes = all_types_and_complex_and(torch.bool, torch.half, torch.bfloat16)
ALL_DTYPES: tuple[torch.dtype, ...] = tuple(sorted(_all_dtypes, key=str))
DOUBLE_DTYPES = (torch.float64, torch.complex128)
HALF_DTYPES = (torch.float16, torch.bfloat16)
# A neighbour takes the same path through the code: bfloat16, int64, complex64.
RARE_DTYPES = (torch.float16, torch.uint8, torch.int8, torch.int16, torch.int32)

# Set by conftest.py: `make test` leaves out samples that repeat what others show, `make test-all` takes all of them.
FEWER_SAMPLES = True

# Samples with more elements are left out: torch keeps some of a million to reach every lane of its vectorised kernels.
MANY = 10_000


@dataclass(frozen=True)
class Operation:
    """One of our functions, and torch's information about its equivalent."""

    ours: TensorFunction
    info: Any = field(repr=False)

    def __str__(self) -> str:
        return str(self.info.name).removeprefix("nn.functional.")

    @property
    def theirs(self) -> TensorFunction:
        theirs: TensorFunction = self.info.op
        return theirs

    def supports(self, dtype: torch.dtype) -> bool:
        return dtype in self.info.dtypes

    def differentiates(self, dtype: torch.dtype) -> bool:
        supported = dtype in self.info.supported_backward_dtypes("cpu")
        return supported and (dtype.is_floating_point or dtype.is_complex)

    def samples(self, dtype: torch.dtype, requires_grad: bool = True) -> list[Sample]:
        """torch's own sample inputs; with gradients, complex ones come lazily conjugated too."""
        lazily_conjugated = requires_grad and dtype.is_complex
        return list(self.info.sample_inputs("cpu", dtype, requires_grad, include_conjugated_inputs=lazily_conjugated))

    def values(self, dtype: torch.dtype) -> list[Sample]:
        """Inputs for the forward value only: for element-wise functions also extremal, huge and strided ones.

        For a dtype that torch does not support, the float32 samples are cast.
        """
        if self.supports(dtype):
            return [s for s in self.info.reference_inputs("cpu", dtype) if s.input.numel() <= MANY]
        return [sample.transform(cast_to(dtype)) for sample in self.samples(torch.float32, requires_grad=False)]


def cast_to(dtype: torch.dtype) -> Callable[[Any], Any]:
    return lambda value: value.to(dtype) if isinstance(value, Tensor) else value


def _pairs() -> dict[str, TensorFunction]:
    return {
        "nn.functional.linear": functional.dense,
        "sigmoid": functional.sigmoid,
        "tanh": functional.tanh,
        "nn.functional.relu": functional.relu,
        "nn.functional.binary_cross_entropy": functional.binary_cross_entropy,
        "nn.functional.binary_cross_entropy_with_logits": functional.binary_cross_entropy_with_logits,
        "nn.functional.mse_loss": functional.mse_loss,
    }


_INFO = {info.name: info for info in op_db if not info.variant_test_name}

OPERATIONS = {str(operation): operation for operation in (Operation(f, _INFO[name]) for name, f in _pairs().items())}

each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=str)


def each_operation_and(
    dtypes: Iterable[torch.dtype],
    where: Callable[[Operation, torch.dtype], bool] = lambda operation, dtype: True,
    slow: Iterable[torch.dtype] = RARE_DTYPES,
) -> pytest.MarkDecorator:
    """Parametrise over (operation, dtype), for the dtypes for which `where` holds; those in `slow` are marked slow."""
    pairs = [(operation, dtype) for dtype in dtypes for operation in OPERATIONS.values() if where(operation, dtype)]
    params = [
        pytest.param(
            operation,
            dtype,
            id=f"{operation}-{str(dtype).removeprefix('torch.')}",
            marks=[pytest.mark.slow] if dtype in slow else [],
        )
        for operation, dtype in pairs
    ]
    return pytest.mark.parametrize(("operation", "dtype"), params)


# --- what is done with a sample ---------------------------------------------------------------------------------------


def call(function: TensorFunction, sample: Sample) -> Tensor:
    return function(sample.input, *sample.args, **sample.kwargs)


def tensors(sample: Sample) -> list[Tensor]:
    return [leaf for leaf in _leaves(sample) if isinstance(leaf, Tensor)]


def leaves(sample: Sample) -> tuple[Tensor, ...]:
    """The tensors of a sample that require a gradient."""
    return tuple(leaf for leaf in tensors(sample) if leaf.requires_grad)


def _leaves(sample: Sample) -> list[Any]:
    return tree_leaves((sample.input, sample.args, sample.kwargs))


def as_function_of(
    function: TensorFunction, sample: Sample, chosen: Callable[[Tensor], bool] = lambda leaf: leaf.requires_grad
) -> TensorFunction:
    """The call on `sample` as a function of its `chosen` tensors only, in their order."""
    flat, structure = tree_flatten((sample.input, sample.args, sample.kwargs))

    def function_of_tensors(*values: Tensor) -> Tensor:
        remaining: Iterator[Tensor] = iter(values)
        filled = [next(remaining) if isinstance(leaf, Tensor) and chosen(leaf) else leaf for leaf in flat]
        first, args, kwargs = tree_unflatten(filled, structure)
        return function(first, *args, **kwargs)

    return function_of_tensors


def gradients(function: TensorFunction, sample: Sample, grad_output: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(call(function, sample), leaves(sample), grad_output)


def random_grad_output(function: TensorFunction, sample: Sample) -> Tensor:
    return torch.randn_like(call(function, sample).detach())


def in_double(sample: Sample) -> Sample:
    return sample.transform(lambda leaf: leaf.detach().double().requires_grad_(leaf.requires_grad))


def unless_nearer(expected: Tensor, actual: Tensor, truth: Tensor) -> Tensor:
    """Return `expected`, replaced by `actual` where `actual` is at least as close to the float64 `truth`.

    In half precision torch rounds after each of its steps, so its result only limits how inexact ours may be.
    """
    if (actual.shape, actual.dtype) != (expected.shape, expected.dtype):
        return expected
    nearer = (actual.double() - truth).abs() <= (expected.double() - truth).abs()
    allowed = expected.clone()
    allowed[nearer] = actual[nearer]
    return allowed


def representative(samples: Iterable[Sample]) -> list[Sample]:
    """One sample of every distinct combination of options, dimensions and emptiness; all samples in `make test-all`."""
    return _one_per_combination(samples) if FEWER_SAMPLES else list(samples)


def _one_per_combination(samples: Iterable[Sample]) -> list[Sample]:
    return list({(_options(sample), _dimensions(sample)): sample for sample in samples}.values())


def one_per_option(samples: Iterable[Sample]) -> list[Sample]:
    """One sample of every distinct combination of options, for the slowest checks."""
    return list({_options(sample): sample for sample in samples}.values())


def one_per_value(samples: Iterable[Sample]) -> list[Sample]:
    """A few samples in which each option takes each of its values and each argument each number of dimensions.

    In `make test-all` one of every distinct combination of them.
    """
    if not FEWER_SAMPLES:
        return _one_per_combination(samples)
    chosen, seen = [], set[Any]()
    for sample in reversed(list(samples)):  # torch lists those with most options last
        dimensions = enumerate(_dimensions(sample))
        values = {*_options(sample)[1:], *dimensions}
        if not values <= seen:
            chosen.append(sample)
            seen |= values
    return chosen


def _options(sample: Sample) -> tuple[Any, ...]:
    options = [(name, isinstance(value, Tensor) or value) for name, value in sorted(sample.kwargs.items())]
    return (len(sample.args), *options)


def _dimensions(sample: Sample) -> tuple[Any, ...]:
    return tuple((leaf.dim(), leaf.numel() == 0) for leaf in (sample.input, *sample.args))


def outcome(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What a call returns, or the exception that it raises."""
    try:
        return function(*args, **options)
    except Exception as error:
        return error


def assert_same_outcome(actual: Any, expected: Any, describe: str) -> None:
    """Equal tensors, dtypes and strides, or an exception of exactly the same type."""
    if isinstance(expected, Exception) or isinstance(actual, Exception):
        assert type(actual) is type(expected), f"{describe}: expected {expected!r}, got {actual!r}"
    else:
        torch.testing.assert_close(
            actual, expected, equal_nan=True, check_stride=True, msg=lambda reason: f"{describe}: {reason}"
        )
