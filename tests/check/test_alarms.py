"""Correct code that once failed by mistake, and wrong code that once passed."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd import Function
from torch.nn import functional

from tests.check.planted import Square, apply, square
from torchnn.check import check_backward
from torchnn.check.operations import normal_inputs

Z = normal_inputs((5, 3))


class ViewOfInput(Function):
    """The identity, which returns a view of its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output * 1


class OptionalArgument(Function):
    """Has an optional argument, for which backward returns None even if it is left out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float = 2.0) -> Tensor:
        ctx.scale = scale
        return x * scale

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output * ctx.scale, None


class CrossEntropy(Function):
    """Cross-entropy with class numbers as targets, for two dimensions only."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, y: Tensor) -> Tensor:
        return -torch.log_softmax(z, 1).gather(1, y[:, None]).mean()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        z, y = ctx.saved_tensors
        return grad_output * (torch.softmax(z, 1) - functional.one_hot(y, z.shape[1])) / z.shape[0], None


def classes(dtype: Any, device: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(4, 3, dtype=dtype, generator=generator), torch.tensor([0, 2, 1, 1])


def with_inverse(dtype: Any, device: Any, generator: torch.Generator) -> tuple[Tensor, ...]:
    return ((torch.randn(3, 3, dtype=torch.double, generator=generator) + 3 * torch.eye(3)).to(dtype),)


def complex_numbers(dtype: torch.dtype, device: Any, generator: torch.Generator) -> tuple[Tensor, ...]:
    kind = dtype.to_complex()
    return tuple(torch.randn(s, dtype=kind, generator=generator) for s in ((5, 3), (4, 3), (4,)))


class OutsideAutocast(Function):
    """Declares that its forward runs outside autocast."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.T

    @staticmethod
    @custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, w = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return grad_output @ w if needs[0] else None, grad_output.T @ x if needs[1] else None


class InsideAutocast(OutsideAutocast):
    """Lets autocast choose the dtype, and has a backward for matrices only."""

    @staticmethod
    @custom_fwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        x, w = (t.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else t for t in (x, w))
        ctx.save_for_backward(x, w)
        return x @ w.T


CORRECT: dict[str, tuple[Any, Any, Any]] = {
    "softmax, whose gradient for ones is zero": (lambda x: x.softmax(-1), None, Z),
    "softmax by another formula": (lambda x: x.exp() / x.exp().sum(-1, True), lambda x: x.softmax(-1), Z),
    "layer_norm": (lambda x: functional.layer_norm(x, (3,)), None, Z),
    "norm, whose second order is zero": (torch.linalg.norm, None, Z),
    "a view of its input": (apply(ViewOfInput), lambda x: x * 1, Z),
    "an optional argument that is left out": (apply(OptionalArgument), lambda x: 2 * x, Z),
    "class numbers": (apply(CrossEntropy), functional.cross_entropy, classes),
    "a dictionary of outputs": (lambda x: {"a": 2 * x, "b": x.sum()}, lambda x: {"a": x + x, "b": x.sum()}, Z),
    "a module with buffers": (nn.BatchNorm1d(3), nn.BatchNorm1d(3), Z),
    "complex numbers": (functional.linear, None, complex_numbers),
    "a forward declared to leave autocast": (
        apply(OutsideAutocast),
        lambda x, w: x @ w.T,
        normal_inputs((5, 3), (4, 3)),
    ),
    "a forward and a backward under one autocast": (
        apply(InsideAutocast),
        functional.linear,
        normal_inputs((5, 3), (4, 3)),
    ),
    "tensors without dimensions": (square, None, normal_inputs(())),
    "a module with dropout, in evaluation mode": (nn.Sequential(nn.Linear(3, 4), nn.Dropout()).eval(), None, Z),
    "an operation that torch lacks in half precision": (torch.linalg.inv, None, with_inverse),
    "values and indices": (lambda x: x.max(-1), lambda x: torch.max(x, -1), Z),
}


@pytest.mark.parametrize("name", CORRECT)
def test_correct_code_passes(name: str) -> None:
    report = check_backward(*CORRECT[name], quick=True)
    assert not report.failures, str(report)


class ZeroForX(Function):
    """The gradient of x is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, w = ctx.saved_tensors
        return 0 * grad_output * w, (grad_output * x).sum_to_size(w.shape)


class Scaled(nn.Module):
    """A module with one parameter."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, 1.0, 2.0]))
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x, self.w)


def test_the_gradient_of_the_input_of_a_module_is_checked() -> None:
    report = check_backward(Scaled(apply(ZeroForX)), Scaled(torch.mul), Z, quick=True)
    assert report.failures == ["gradient"]
    assert "gradient 1" in report["gradient"].message


def test_outputs_of_whole_numbers_are_compared() -> None:
    report = check_backward(lambda x: (x.max(-1)[0], 0 * x.max(-1)[1]), lambda x: tuple(x.max(-1)), Z, quick=True)
    assert report.failures == ["value"]


CACHE: dict[torch.Size, Tensor] = {}


def test_a_backward_that_caches_by_shape_fails() -> None:
    class Cached(Square):
        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> Any:
            (z,) = ctx.saved_tensors
            return CACHE.setdefault(z.shape, 2 * z.detach()) * grad_output

    CACHE.clear()
    report = check_backward(apply(Cached), torch.square, Z, only=["gradient"])
    assert report.failures == ["gradient"]


def test_a_wrong_small_gradient_fails_next_to_a_large_one() -> None:
    class Uneven(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, b: Tensor) -> Tensor:
            ctx.save_for_backward(x, b)
            return 1e8 * x.sum() + 1e-3 * b.sum()

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> Any:
            x, b = ctx.saved_tensors
            return grad_output * 1e8 * torch.ones_like(x), grad_output * 1.01e-3 * torch.ones_like(b)

    report = check_backward(
        apply(Uneven), lambda x, b: 1e8 * x.sum() + 1e-3 * b.sum(), normal_inputs((5, 3), (4,)), quick=True
    )
    assert report.failures == ["gradient"]
