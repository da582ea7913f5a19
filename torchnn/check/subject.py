"""The function to check, its reference, and their inputs."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from torchnn._torch import name_of_custom_op, tree_leaves
from torchnn.check.gradients import (
    Call,
    Inputs,
    describe,
    gradients,
    is_floating,
    leaves,
    new_leaves,
    numerical_gradients,
    outputs_of,
    random_like,
    weighted_outputs,
)
from torchnn.check.input_variants import with_rows
from torchnn.check.refusals import error_line

ARGUMENTS = ("dtype", "device", "generator")  # of make_inputs


class WrongUseError(ValueError):
    """The check cannot be made with these arguments; the message says what to change."""


class Subject:
    """A function of tensors, the reference that it should equal, and inputs for both.

    Args:
        target: a `torch.autograd.Function`, a function, a module, or a custom operator.
        reference: the same in plain torch operations, or None for central differences.
        make_inputs: `make_inputs(dtype, device, generator)`, with arguments by name, returns the tensors of one call,
            or a list of such tuples. If no tensor requires a gradient, all floating-point ones are differentiated.
        device: where the inputs are made.
        seed: of the generator.
        quick: use the first call only.
    """

    def __init__(
        self, target: Any, reference: Any, make_inputs: Call, device: str = "cpu", seed: int = 0, quick: bool = False
    ) -> None:
        self.name = name_of(target)
        self.call, parameters = as_function(target, "target")
        self.has_reference = reference is not None
        self.reference, of_reference = as_function(reference, "reference") if reference is not None else (self.call, [])
        if isinstance(reference, nn.Module) and [p.shape for p in of_reference] != [p.shape for p in parameters]:
            raise WrongUseError(
                "the target and the reference have parameters of different shapes: use modules of the same sizes."
            )
        self.parameters = parameters
        self.make_inputs = make_inputs
        self.device = device
        self.seed = seed
        self.quick = quick
        self.most_rows: int | None = None

    def with_rows(self, count: int) -> "Subject":
        """The same subject with at most this number of rows in each call, where the reference accepts that."""
        smaller = copy.copy(self)
        smaller.most_rows = count
        return smaller

    def cases(self, dtype: torch.dtype = torch.float64) -> list[Inputs]:
        """The inputs of each call, as leaves.

        Raises:
            WrongUseError: make_inputs cannot be called, or returns something unusable.
        """
        generator = torch.Generator().manual_seed(self.seed)
        try:
            made = self.make_inputs(dtype=dtype, device=torch.device(self.device), generator=generator)
        except Exception as error:
            if not accepts_arguments(self.make_inputs, *ARGUMENTS):
                raise WrongUseError(
                    f"make_inputs has to accept {', '.join(ARGUMENTS)} as keyword arguments."
                ) from error
            raise WrongUseError(f"make_inputs raises {type(error).__name__}: {error_line(error)}.") from error
        made = [made] if isinstance(made, Tensor) else made
        cases = (
            [(one,) if isinstance(one, Tensor) else tuple(one) for one in made] if isinstance(made, list) else [made]
        )
        if not cases or not all(
            isinstance(case, tuple) and any(map(is_floating, (*case, *self.parameters))) for case in cases
        ):
            raise WrongUseError(
                "make_inputs has to return a tuple of tensors, or a list of such tuples, and each tuple needs at least "
                "one floating-point tensor."
            )
        check_cases(cases, dtype, self.device)
        parameters = [p.detach().to(self.device, dtype).requires_grad_(p.requires_grad) for p in self.parameters]
        cases = [(*leaves(case), *parameters) for case in (cases[:1] if self.quick else cases)]
        if self.most_rows is None:
            return cases
        return [with_rows(self.reference, case, lambda t: t[: self.most_rows]) or case for case in cases]

    def generator(self) -> torch.Generator:
        """For random numbers other than the inputs; the same in every call."""
        return torch.Generator().manual_seed(self.seed + 1)

    def grad_outputs(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Random incoming gradients for these outputs."""
        generator = self.generator()
        return [random_like(t, generator) for t in outputs]

    def sizes(self, inputs: Inputs) -> list[tuple[torch.Size, float]]:
        """Shape and largest element of each output, and of each gradient for random incoming gradients."""
        outputs = outputs_of(self.reference, new_leaves(inputs))
        grads = gradients(self.reference, new_leaves(inputs), self.grad_outputs(outputs))
        return [(t.shape, float(t.detach().abs().max())) for t in (*outputs, *grads) if t.numel()]

    def expected_gradients(self, inputs: Inputs, grad_outputs: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of the reference, or central differences if there is none."""
        if self.has_reference:
            return gradients(self.reference, inputs, grad_outputs)

        def total(*values: Any) -> Tensor:
            pairs = zip(outputs_of(self.call, values), grad_outputs, strict=True)
            differentiable = [(t, g) for t, g in pairs if t.requires_grad]  # others are marked as non-differentiable
            return weighted_outputs(*zip(*differentiable, strict=True))

        return numerical_gradients(total, inputs)


def check_cases(cases: list[Inputs], dtype: torch.dtype, device: str) -> None:
    """Raise WrongUseError unless dtype and device are as requested and every tensor is an argument of its own."""
    for case in cases:
        floating = [t for t in case if is_floating(t)]
        if not any(t.dtype in (dtype, dtype.to_complex()) for t in floating):
            raise WrongUseError(
                f"make_inputs was called with {dtype} but returned {describe(case)}: create the tensors with "
                "its dtype argument."
            )
        if any(t.device.type != torch.device(device).type for t in floating):
            raise WrongUseError(
                f"make_inputs was called with device {device} but returned a tensor on {floating[0].device}: create "
                "the tensors with its device argument."
            )
        if any(isinstance(t, Tensor) for value in case if not isinstance(value, Tensor) for t in tree_leaves(value)):
            raise WrongUseError(
                "make_inputs returned tensors inside a list or dictionary: pass each tensor as an argument of its own."
            )


def as_function(target: Any, argument: str) -> tuple[Call, list[Tensor]]:
    """A function of tensors, and the parameters that it takes after its inputs."""
    if isinstance(target, type) and issubclass(target, Function):
        return target.apply, []
    if isinstance(target, nn.Module):
        module = copy.deepcopy(target)
        names = [name for name, _ in module.named_parameters()]

        def call(*args: Any) -> Any:
            inputs, parameters = args[: len(args) - len(names)], args[len(args) - len(names) :]
            like = next(t for t in args if is_floating(t))
            buffers = {name: as_buffer(b, like) for name, b in module.named_buffers()}
            return torch.func.functional_call(module, {**buffers, **dict(zip(names, parameters, strict=True))}, inputs)

        return call, list(module.parameters())
    if not callable(target):
        raise WrongUseError(
            f"the {argument} is a {type(target).__name__}: pass an autograd Function, a function or a module."
        )
    return target, []


def as_buffer(buffer: Tensor, like: Tensor) -> Tensor:
    """A copy of a buffer, so that a call does not change the module. `like` gives the device and floating dtype."""
    return buffer.to(like.device, like.dtype if is_floating(buffer) else buffer.dtype, copy=True)


def name_of(target: Any) -> str:
    """A name for the report."""
    if isinstance(target, nn.Module):
        return type(target).__name__
    if hasattr(target, "func"):  # functools.partial
        return name_of(target.func)
    return str(getattr(target, "__qualname__", name_of_custom_op(target) or type(target).__name__))


def accepts_arguments(function: Call, *names: str) -> bool:
    """Whether a function can be called with these keyword arguments."""
    try:
        inspect.signature(function).bind(**dict.fromkeys(names))
    except TypeError:
        return False
    return True
