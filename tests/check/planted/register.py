"""The list of planted errors, and two correct Functions that most of them change."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from tests.check.controls import LAYER, Separate, layer, lowering_inputs
from torchnn.check.operations import normal_inputs


class Planted(NamedTuple):
    """A wrong function, the properties in which it must fail, its reference and its inputs."""

    target: Callable[..., Any]
    failing: set[str]
    reference: Callable[..., Any] = layer
    make_inputs: Callable[..., Any] = LAYER
    name: str = ""


PLANTED: list[Planted] = []


def fails_in(*rows: str, **options: Any) -> Callable[[Any], Any]:
    """Register a wrong Function, or a wrong function that calls one, with the properties in which it must fail."""

    def register(wrong: Any) -> Any:
        function: Any = wrong
        target = lowering_inputs(function.apply) if isinstance(wrong, type) else wrong
        PLANTED.append(Planted(target=target, failing=set(rows), name=wrong.__name__, **options))
        return wrong

    return register


def apply(function: Any) -> Callable[..., Tensor]:
    """The bare `apply` of a Function."""
    bare: Callable[..., Tensor] = function.apply
    return bare


separate = apply(Separate)


class Square(Function):
    """z²."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return z * z

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return 2 * z * grad_output


def square(z: Tensor) -> Tensor:
    """Apply `Square`."""
    return apply(Square)(z)


OF_SQUARE: dict[str, Any] = {"reference": torch.square, "make_inputs": normal_inputs((5, 4))}


def is_batched(t: Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(t) or torch._C._functorch.is_legacy_batchedtensor(t)
