"""Right code that once raised an alarm, and wrong code that once raised none."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd import Function
from torch.nn import functional

from tests.check.planted import Square, apply, square
from torchnn.check import WrongUseError, check_backward
from torchnn.check.operations import normal

Z = normal((5, 3))


class Reversed(Function):
    """The identity, as a view of its input, with its gradient turned round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output * 1


class WithADefault(Function):
    """An argument that may be left out, for which backward returns None nevertheless."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float = 2.0) -> Tensor:
        ctx.scale = scale
        return x * scale

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output * ctx.scale, None


class CrossEntropy(Function):
    """Of classes as whole numbers, for two dimensions only."""

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


class Declared(Function):
    """A forward that says that it leaves autocast."""

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


class ByDefault(Declared):
    """One that lets autocast choose, and a backward for matrices only."""

    @staticmethod
    @custom_fwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        x, w = (t.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else t for t in (x, w))
        ctx.save_for_backward(x, w)
        return x @ w.T


RIGHT: dict[str, tuple[Any, Any, Any]] = {
    "softmax, whose gradient from ones is zero": (lambda x: x.softmax(-1), None, Z),
    "softmax in another order": (lambda x: x.exp() / x.exp().sum(-1, True), lambda x: x.softmax(-1), Z),
    "layer_norm": (lambda x: functional.layer_norm(x, (3,)), None, Z),
    "norm, whose second order is zero": (torch.linalg.norm, None, Z),
    "a view of its input": (apply(Reversed), lambda x: x * 1, Z),
    "an argument left out": (apply(WithADefault), lambda x: 2 * x, Z),
    "classes": (apply(CrossEntropy), functional.cross_entropy, classes),
    "a dictionary": (lambda x: {"a": 2 * x, "b": x.sum()}, lambda x: {"a": x + x, "b": x.sum()}, Z),
    "buffers": (nn.BatchNorm1d(3), nn.BatchNorm1d(3), Z),
    "complex numbers": (functional.linear, None, complex_numbers),
    "a forward declared to leave autocast": (apply(Declared), lambda x, w: x @ w.T, normal((5, 3), (4, 3))),
    "a forward and a backward under one autocast": (apply(ByDefault), functional.linear, normal((5, 3), (4, 3))),
    "no dimensions": (square, None, normal(())),
    "a module that leaves out at random, in evaluation": (nn.Sequential(nn.Linear(3, 4), nn.Dropout()).eval(), None, Z),
    "a matrix that torch takes in no half precision": (torch.linalg.inv, None, with_inverse),
    "values and places": (lambda x: x.max(-1), lambda x: torch.max(x, -1), Z),
}


@pytest.mark.parametrize("name", RIGHT)
def test_no_alarm(name: str) -> None:
    report = check_backward(*RIGHT[name], quick=True)
    assert not report.failures, str(report)


class ZeroForX(Function):
    """The gradient of what is no parameter is lost."""

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


def test_the_gradient_of_a_modules_input_is_checked() -> None:
    report = check_backward(Scaled(apply(ZeroForX)), Scaled(torch.mul), Z, quick=True)
    assert report.failures == ["gradient"]
    assert "gradient 1" in report["gradient"].message


def test_outputs_of_whole_numbers_are_compared() -> None:
    report = check_backward(lambda x: (x.max(-1)[0], 0 * x.max(-1)[1]), lambda x: tuple(x.max(-1)), Z, quick=True)
    assert report.failures == ["value"]


CACHE: dict[torch.Size, Tensor] = {}


def test_what_is_remembered_by_shape_is_found_out() -> None:
    class Cached(Square):
        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> Any:
            (z,) = ctx.saved_tensors
            return CACHE.setdefault(z.shape, 2 * z.detach()) * grad_output

    CACHE.clear()
    report = check_backward(apply(Cached), torch.square, Z, only=["gradient"])
    assert report.failures == ["gradient"]


@pytest.mark.parametrize(
    ("make_inputs", "says"),
    [
        (lambda dtype, device, generator: (torch.randn(5, 3),), "make them of that dtype"),
        (lambda dtype, device, generator: (torch.empty(5, 3, dtype=dtype, device="meta"),), "a tensor on meta"),
        (lambda dtype, device, generator: (torch.ones(3, dtype=dtype), [torch.ones(3)]), "in a list or dictionary"),
        (lambda dtype, device, generator: 1 / 0, "make_inputs raises ZeroDivisionError: division by zero"),
    ],
)
def test_inputs_that_are_not_what_was_asked_for(make_inputs: Any, says: str) -> None:
    with pytest.raises(WrongUseError, match=says):
        check_backward(torch.square, None, make_inputs)


def test_nothing_is_judged_only_by_saying_so() -> None:
    with pytest.raises(WrongUseError, match="nothing would be checked"):
        check_backward(torch.square, None, Z, only=[])


def test_a_large_gradient_beside_it_does_not_hide_a_wrong_small_one() -> None:
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
        apply(Uneven), lambda x, b: 1e8 * x.sum() + 1e-3 * b.sum(), normal((5, 3), (4,)), quick=True
    )
    assert report.failures == ["gradient"]
