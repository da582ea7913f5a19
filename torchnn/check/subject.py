"""What is checked: a function of tensors made of whatever the user gave, its reference, and their inputs."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils._pytree import tree_leaves

from torchnn.check.refusals import first_line
from torchnn.check.tensors import (
    Call,
    Inputs,
    describe,
    fresh,
    gradients,
    is_number,
    leaves,
    numerical_gradients,
    outputs_of,
    random_like,
    weighted_sum,
)
from torchnn.check.variants import with_rows

ARGUMENTS = ("dtype", "device", "generator")  # of make_inputs


class WrongUseError(ValueError):
    """The check cannot be made as it was asked for; the message says what to change."""


class Subject:
    """A function of tensors, what it should equal, and inputs for both.

    Args:
        target: a `torch.autograd.Function`, a function, a module, or a custom operator.
        reference: the same in plain torch operations, or None for central differences.
        make_inputs: `make_inputs(dtype, device, generator)`, arguments by name, gives the tensors of one call, or a
            list of such tuples. Floating-point tensors are differentiated: all, or those that ask for a gradient if
            some do.
        device: where the inputs are made.
        seed: of the generator.
        quick: fewer inputs.
    """

    def __init__(
        self, target: Any, reference: Any, make_inputs: Call, device: str = "cpu", seed: int = 0, quick: bool = False
    ) -> None:
        self.target = target
        self.name = name_of(target)
        self.call, parameters = as_function(target, "target")
        self.has_reference = reference is not None
        self.reference, of_reference = as_function(reference, "reference") if reference is not None else (self.call, [])
        if isinstance(reference, nn.Module) and [p.shape for p in of_reference] != [p.shape for p in parameters]:
            raise WrongUseError("target and reference have parameters of different shapes: give them the same ones.")
        self.parameters = parameters
        self.make_inputs = make_inputs
        self.device = device
        self.seed = seed
        self.quick = quick
        self.most_rows: int | None = None

    def with_rows(self, count: int) -> "Subject":
        """The same with the first rows of each call only, where the reference takes fewer."""
        smaller = copy.copy(self)
        smaller.most_rows = count
        return smaller

    def cases(self, dtype: torch.dtype = torch.float64) -> list[Inputs]:
        """The inputs of each call, as leaves."""
        generator = torch.Generator().manual_seed(self.seed)
        try:
            made = self.make_inputs(dtype=dtype, device=torch.device(self.device), generator=generator)
        except Exception as error:
            if not takes(self.make_inputs, *ARGUMENTS):
                raise WrongUseError(f"make_inputs has to take {', '.join(ARGUMENTS)} by name.") from error
            raise WrongUseError(f"make_inputs raises {type(error).__name__}: {first_line(error)}.") from error
        made = [made] if isinstance(made, Tensor) else made
        cases = (
            [(one,) if isinstance(one, Tensor) else tuple(one) for one in made] if isinstance(made, list) else [made]
        )
        if not cases or not all(
            isinstance(case, tuple) and any(map(is_number, (*case, *self.parameters))) for case in cases
        ):
            raise WrongUseError(
                "make_inputs has to give a tuple of tensors, some of them floating-point, or a list of such."
            )
        check_made(cases, dtype, self.device)
        parameters = [p.detach().to(self.device, dtype).requires_grad_(p.requires_grad) for p in self.parameters]
        cases = [(*leaves(case), *parameters) for case in (cases[:1] if self.quick else cases)]
        if self.most_rows is None:
            return cases
        return [with_rows(self.reference, case, lambda t: t[: self.most_rows]) or case for case in cases]

    def generator(self) -> torch.Generator:
        """For random numbers beside the inputs, the same in every run."""
        return torch.Generator().manual_seed(self.seed + 1)

    def incoming(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Random gradients of the outputs."""
        generator = self.generator()
        return [random_like(t, generator) for t in outputs]

    def sizes(self, inputs: Inputs) -> list[tuple[torch.Size, float]]:
        """Shape and largest element of each output, and of each gradient from random incoming ones."""
        outputs = outputs_of(self.reference, fresh(inputs))
        grads = gradients(self.reference, fresh(inputs), self.incoming(outputs))
        return [(t.shape, float(t.detach().abs().max())) for t in (*outputs, *grads) if t.numel()]

    def expected_gradients(self, inputs: Inputs, incoming: Sequence[Tensor]) -> list[Tensor]:
        """The gradients by the reference, or by central differences."""
        if self.has_reference:
            return gradients(self.reference, inputs, incoming)

        def total(*values: Any) -> Tensor:
            pairs = [(t, g) for t, g in zip(outputs_of(self.call, values), incoming, strict=True) if t.requires_grad]
            return weighted_sum(*zip(*pairs, strict=True))  # others are marked as not differentiable

        return numerical_gradients(total, inputs)


def check_made(cases: list[Inputs], dtype: torch.dtype, device: str) -> None:
    """The inputs are of the dtype and on the device that were asked for, and each tensor is an argument."""
    for case in cases:
        numbers = [t for t in case if is_number(t)]
        if not any(t.dtype in (dtype, dtype.to_complex()) for t in numbers):
            raise WrongUseError(f"make_inputs gives {describe(case)} where dtype is {dtype}: make them of that dtype.")
        if any(t.device.type != torch.device(device).type for t in numbers):
            raise WrongUseError(f"make_inputs gives a tensor on {numbers[0].device} where device is {device}.")
        if any(isinstance(t, Tensor) for value in case if not isinstance(value, Tensor) for t in tree_leaves(value)):
            raise WrongUseError("an argument holds tensors in a list or dictionary: pass each tensor as an argument.")


def as_function(target: Any, argument: str) -> tuple[Call, list[Tensor]]:
    """A function of tensors, and the parameters that it takes after its inputs."""
    if isinstance(target, type) and issubclass(target, Function):
        return target.apply, []
    if isinstance(target, nn.Module):
        module = copy.deepcopy(target)
        names = [name for name, _ in module.named_parameters()]

        def call(*args: Any) -> Any:
            inputs, parameters = args[: len(args) - len(names)], args[len(args) - len(names) :]
            like = next(t for t in args if is_number(t))
            buffers = {name: as_buffer(b, like) for name, b in module.named_buffers()}
            return torch.func.functional_call(module, {**buffers, **dict(zip(names, parameters, strict=True))}, inputs)

        return call, list(module.parameters())
    if not callable(target):
        raise WrongUseError(f"the {argument} is a {type(target).__name__}: give a Function, a function or a module.")
    return target, []


def as_buffer(buffer: Tensor, like: Tensor) -> Tensor:
    """A copy, so that a call leaves nothing behind; numbers in the dtype of the inputs, as `module.to(dtype)` has."""
    return buffer.to(like.device, like.dtype if is_number(buffer) else buffer.dtype, copy=True)


def name_of(target: Any) -> str:
    if isinstance(target, nn.Module):
        return type(target).__name__
    if hasattr(target, "func"):  # a partial
        return name_of(target.func)
    return str(getattr(target, "__qualname__", getattr(target, "_qualname", type(target).__name__)))


def takes(function: Call, *names: str) -> bool:
    try:
        inspect.signature(function).bind(**dict.fromkeys(names))
    except TypeError:
        return False
    return True
