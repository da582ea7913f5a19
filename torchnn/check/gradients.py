"""Call a function of tensors: its outputs, their gradients by autograd, and gradients by central differences."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchnn._torch import tree_leaves

Call = Callable[..., Any]
Inputs = tuple[Any, ...]

MOST_NUMERICAL = 2000  # central differences are not computed for more elements than this
STEP = 1e-5  # of central differences: rounding and truncation both leave an error of about 1e-10


class NotApplicable(Exception):  # noqa: N818
    """The property has no meaning here, or torch refuses it with an error; the message gives the reason."""


class NotDifferentiableError(RuntimeError):
    """The outputs have no graph."""


# --- inputs -----------------------------------------------------------------------------------------------------------


def is_floating(t: Any) -> bool:
    """Whether this is a floating-point or complex tensor, which can have a gradient."""
    return isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())


def leaves(inputs: Inputs) -> Inputs:
    """Copies as leaf tensors. If no input requires a gradient, all floating-point ones will."""
    some = any(is_floating(t) and t.requires_grad for t in inputs)
    return tuple(leaf(t, t.requires_grad if some else True) if is_floating(t) else t for t in inputs)


def leaf(t: Tensor, requires_grad: bool) -> Tensor:
    """A copy with the same strides, as a leaf tensor."""
    return t.detach().clone().requires_grad_(requires_grad)


def new_leaves(inputs: Inputs) -> Inputs:
    """Copies as leaf tensors that require a gradient where the given ones do."""
    return tuple(leaf(t, t.requires_grad) if isinstance(t, Tensor) else t for t in inputs)


def detached(inputs: Inputs) -> Inputs:
    """The same tensors without their graph."""
    return tuple(t.detach() if isinstance(t, Tensor) else t for t in inputs)


def map_tensors(
    inputs: Inputs, change: Callable[[Tensor], Tensor], where: Callable[[Tensor], bool] = is_floating
) -> Inputs:
    """Apply `change` to some of the tensors; the results are leaves that require a gradient where the given ones do."""
    return tuple(
        change(t.detach()).requires_grad_(t.requires_grad) if isinstance(t, Tensor) and where(t) else t for t in inputs
    )


def positions_requiring_grad(inputs: Inputs) -> tuple[int, ...]:
    """The positions of the inputs that require a gradient."""
    return tuple(i for i, t in enumerate(inputs) if isinstance(t, Tensor) and t.requires_grad)


def requiring_grad(inputs: Inputs) -> list[Tensor]:
    """The inputs that require a gradient."""
    return [inputs[i] for i in positions_requiring_grad(inputs)]


def to_double(inputs: Inputs) -> Inputs:
    """The inputs in float64 or complex128."""
    return map_tensors(inputs, lambda t: t.to(torch.complex128 if t.is_complex() else torch.float64))


def random_like(t: Tensor, generator: torch.Generator) -> Tensor:
    """Normal random numbers. They are drawn in float64 on the CPU, so that every dtype and device gets the same."""
    kind = torch.complex128 if t.is_complex() else torch.float64
    return torch.randn(t.shape, dtype=kind, generator=generator).to(t.device, t.dtype)


def count_elements(inputs: Inputs) -> int:
    """The number of elements of all tensors together."""
    return sum(t.numel() for t in inputs if isinstance(t, Tensor))


def describe(inputs: Inputs) -> str:
    """Shapes and dtypes in a few words, as "inputs of shape (5, 3), (3,) and dtype float64"."""
    tensors = [t for t in inputs if isinstance(t, Tensor)]
    dtypes = dict.fromkeys(dtype_name(t.dtype) for t in tensors if is_floating(t))
    shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
    return f"inputs of shape {shapes} and dtype {', '.join(dtypes)}"


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype without "torch."."""
    return str(dtype).removeprefix("torch.")


def is_identical(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and bits, except that any NaN equals any other."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


# --- outputs and gradients --------------------------------------------------------------------------------------------


def outputs_of(call: Call, inputs: Inputs) -> list[Tensor]:
    """The floating-point tensors that a call returns."""
    return [t for t in all_outputs_of(call, inputs) if is_floating(t)]


def all_outputs_of(call: Call, inputs: Inputs) -> list[Tensor]:
    """All tensors that a call returns."""
    return [t for t in tree_leaves(call(*inputs)) if isinstance(t, Tensor)]


class CallModule(torch.nn.Module):
    """A module whose forward calls a function."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, *args: Any) -> Any:
        result = self.call(*args)  # hooks and checkpoints find tensors in tuples only, not in dictionaries
        return result if isinstance(result, Tensor) else tuple(t for t in tree_leaves(result) if isinstance(t, Tensor))


def gradients(
    call: Call, inputs: Inputs, grad_outputs: Sequence[Tensor | None] | None = None, **options: Any
) -> list[Tensor]:
    """Call the function, and return the gradients of the inputs that require one; see `gradients_of`."""
    return gradients_of(outputs_of(call, inputs), inputs, grad_outputs, **options)


def gradients_of(
    outputs: Sequence[Tensor],
    inputs: Inputs,
    grad_outputs: Sequence[Tensor | None] | None = None,
    copies: bool = True,
    **options: Any,
) -> list[Tensor]:
    """The gradients of the inputs that require one, zero for an input that no output depends on.

    Args:
        outputs: of a call on `inputs`.
        inputs: leaves.
        grad_outputs: the incoming gradient of each output; None for ones.
        copies: give the backward copies of the incoming gradients, so that it cannot change those of the caller.
            False passes the tensors themselves, with their strides.
        options: of `torch.autograd.grad`.

    Raises:
        NotDifferentiableError: no output has a graph.
    """
    grad_outputs = [torch.ones_like(t) for t in outputs] if grad_outputs is None else grad_outputs
    pairs = [(t, g) for t, g in zip(outputs, grad_outputs, strict=True) if t.requires_grad and g is not None]
    if not pairs:
        raise NotDifferentiableError("no output depends on an input that requires a gradient")
    given, gs = [t for t, _ in pairs], [g.clone() if copies else g for _, g in pairs]
    return list(
        torch.autograd.grad(given, requiring_grad(inputs), gs, allow_unused=True, materialize_grads=True, **options)
    )


def weighted_outputs(outputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Σ conj(w)·a, a real number: its gradient is that of the outputs for the incoming gradients `weights`."""
    terms = [
        (w.conj() * t).sum().real if t.is_complex() else (w * t).sum() for t, w in zip(outputs, weights, strict=True)
    ]
    return torch.stack(terms).sum()


# --- central differences ----------------------------------------------------------------------------------------------


def numerical_gradients(scalar: Call, inputs: Inputs) -> list[Tensor]:
    """Central differences of a scalar, (f(t + h) − f(t − h)) / 2h, element by element."""
    values = map_tensors(inputs, lambda t: t.clone(memory_format=torch.contiguous_format))
    grads = []
    for given, t in zip(requiring_grad(inputs), requiring_grad(values), strict=True):
        grad = torch.zeros_like(given)
        for index in range(t.numel()):
            flat = t.detach().view(-1)
            for direction in (1, 1j) if t.is_complex() else (1,):
                grad.view(-1)[index] += direction * _difference(scalar, values, flat, index, direction * STEP)
        grads.append(grad)
    return grads


def _difference(scalar: Call, values: Inputs, flat: Tensor, index: int, step: complex) -> float:
    original = flat[index].clone()
    results = []
    for sign in (1, -1):
        flat[index] = original + sign * step
        with torch.enable_grad():
            results.append(float(scalar(*values).detach()))
    flat[index] = original
    return (results[0] - results[1]) / (2 * abs(step))
