"""Calls on tensors: leaves of the same values, outputs, gradients, and central differences of them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Call = Callable[..., Any]
Inputs = tuple[Any, ...]

MOST_NUMERICAL = 2000  # elements that central differences are taken of
STEP = 1e-5  # of central differences: rounding and truncation both leave about 1e-10


class NotApplicable(Exception):  # noqa: N818
    """A property has no meaning here, or the subject says aloud that it cannot do it; the message says why."""


def is_number(t: Any) -> bool:
    """Whether a gradient can be had of it."""
    return isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())


def leaves(inputs: Inputs) -> Inputs:
    """Leaves of the same values and strides; all floating-point ones ask for a gradient unless some already do."""
    some = any(is_number(t) and t.requires_grad for t in inputs)
    return tuple(leaf(t, t.requires_grad if some else True) if is_number(t) else t for t in inputs)


def leaf(t: Tensor, requires_grad: bool) -> Tensor:
    return t.detach().clone().requires_grad_(requires_grad)


def fresh(inputs: Inputs) -> Inputs:
    """The same inputs as leaves that nobody else holds."""
    return tuple(leaf(t, t.requires_grad) if isinstance(t, Tensor) else t for t in inputs)


def mapped(inputs: Inputs, change: Callable[[Tensor], Tensor], of: Callable[[Tensor], bool] = is_number) -> Inputs:
    """Inputs with some tensors changed, as leaves that ask for a gradient where they did."""
    return tuple(
        change(t.detach()).requires_grad_(t.requires_grad) if isinstance(t, Tensor) and of(t) else t for t in inputs
    )


def wanted(inputs: Inputs) -> list[Tensor]:
    """The inputs that ask for a gradient."""
    return [t for t in inputs if isinstance(t, Tensor) and t.requires_grad]


def in_double(inputs: Inputs) -> Inputs:
    return mapped(inputs, lambda t: t.to(torch.complex128 if t.is_complex() else torch.float64))


def outputs_of(call: Call, inputs: Inputs) -> list[Tensor]:
    """The floating-point tensors that a call returns."""
    return [t for t in tensors_of(call, inputs) if is_number(t)]


def tensors_of(call: Call, inputs: Inputs) -> list[Tensor]:
    """All tensors that a call returns."""
    return [t for t in tree_leaves(call(*inputs)) if isinstance(t, Tensor)]


def gradients(
    call: Call, inputs: Inputs, incoming: Sequence[Tensor | None] | None = None, **options: Any
) -> list[Tensor]:
    """The gradients of the inputs that ask for one, zero where there is none; `incoming` is ones if None."""
    return gradients_of(outputs_of(call, inputs), inputs, incoming, **options)


def gradients_of(
    outputs: Sequence[Tensor],
    inputs: Inputs,
    incoming: Sequence[Tensor | None] | None = None,
    as_given: bool = False,
    **options: Any,
) -> list[Tensor]:
    """As `gradients`, of outputs at hand.

    The backward gets copies of the incoming gradients, which it cannot spoil for what comes after, unless they are to
    go in `as_given`, strides and all.
    """
    incoming = [torch.ones_like(t) for t in outputs] if incoming is None else incoming
    pairs = [(t, g) for t, g in zip(outputs, incoming, strict=True) if t.requires_grad and g is not None]
    if not pairs:
        raise NotDifferentiableError("no output depends on an input that asks for a gradient")
    given, gs = [t for t, _ in pairs], [g if as_given else g.clone() for _, g in pairs]
    return list(torch.autograd.grad(given, wanted(inputs), gs, allow_unused=True, materialize_grads=True, **options))


class NotDifferentiableError(RuntimeError):
    """The outputs have no graph."""


def random_like(t: Tensor, generator: torch.Generator) -> Tensor:
    """Normal numbers; made in float64 on the CPU, so that they are the same for every dtype and device."""
    kind = torch.complex128 if t.is_complex() else torch.float64
    return torch.randn(t.shape, dtype=kind, generator=generator).to(t.device, t.dtype)


def weighted_sum(outputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Σ conj(w)·a, real: what a gradient of outputs means."""
    terms = [
        (w.conj() * t).sum().real if t.is_complex() else (w * t).sum() for t, w in zip(outputs, weights, strict=True)
    ]
    return torch.stack(terms).sum()


def numerical_gradients(scalar: Call, inputs: Inputs) -> list[Tensor]:
    """Central differences of a scalar, (f(t + h) − f(t − h)) / 2h, element by element."""
    asked = wanted(inputs)
    values = mapped(inputs, lambda t: t.clone(memory_format=torch.contiguous_format))
    grads = []
    for given, t in zip(asked, wanted(values), strict=True):
        grad = torch.zeros_like(given)
        for index in range(t.numel()):
            flat = t.detach().view(-1)
            for direction in (1, 1j) if t.is_complex() else (1,):
                grad.view(-1)[index] += direction * _difference(scalar, values, flat, index, direction * STEP)
        grads.append(grad)
    return grads


def _difference(scalar: Call, values: Inputs, flat: Tensor, index: int, step: complex) -> float:
    kept = flat[index].clone()
    results = []
    for sign in (1, -1):
        flat[index] = kept + sign * step
        with torch.enable_grad():
            results.append(float(scalar(*values).detach()))
    flat[index] = kept
    return (results[0] - results[1]) / (2 * abs(step))


def describe(inputs: Inputs) -> str:
    """Shapes and dtypes, shortly."""
    tensors = [t for t in inputs if isinstance(t, Tensor)]
    dtypes = dict.fromkeys(dtype_name(t.dtype) for t in tensors if is_number(t))
    return f"inputs {', '.join(str(tuple(t.shape)) for t in tensors)} of {', '.join(dtypes)}"


def size_of(inputs: Inputs) -> int:
    return sum(t.numel() for t in inputs if isinstance(t, Tensor))


class Around(torch.nn.Module):
    """A module that does nothing but call."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, *args: Any) -> Any:
        result = self.call(*args)  # hooks and checkpoints look into tuples only
        return result if isinstance(result, Tensor) else tuple(t for t in tree_leaves(result) if isinstance(t, Tensor))


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit, but that any NaN equals any other."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
