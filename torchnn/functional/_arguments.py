"""What every function does with its arguments: check, cast for autocast, and apply the right Function."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function

from torchnn._torch import autocast_is_on, forward_mode_is_nested, transforms_are_active
from torchnn.ops.activation import ACTIVATIONS

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

ACTIVATION_NAMES = tuple(ACTIVATIONS)
REDUCTIONS = ("none", "mean", "sum")


def overridable(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let arguments that define `__torch_function__` override a function, as they override torch's own.

    `torch.fx` traces a call this way, and tensor subclasses depend on it.
    """

    @functools.wraps(function)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        values = (*args, *kwargs.values())
        if has_torch_function(values):
            return handle_torch_function(wrapper, values, *args, **kwargs)
        return function(*args, **kwargs)

    return wrapper


def apply(function: type[Function], traceable: type[Function], *args: Any) -> Tensor:
    """Return `function.apply(*args)`, or `traceable.apply(*args)` while `torch.compile` or `torch.export` traces.

    In forward mode inside forward mode, torch drops the outer tangent of every Function's `jvp`. There the call is the
    plain formula, which torch differentiates.
    """
    chosen: Any = function
    if torch.compiler.is_compiling():
        chosen = traceable
        # Inside a traced torch.func.grad, torch 2.13 sets needs_input_grad to False for an input that no operation made
        # if another input is the result of a Function. The gradient would be zero, so every input becomes a view.
        args = tuple(t.view_as(t) if isinstance(t, Tensor) else t for t in args)
    elif transforms_are_active() and forward_mode_is_nested():
        plain: Tensor = chosen.forward(*args)
        return plain
    output: Tensor = chosen.apply(*args)
    return output


def plain_apply(function: type[Function]) -> Callable[..., Any]:
    """Return `function.apply` for calls outside transforms, without the slow binding of arguments to names."""
    unbound: Any = super(Function, function)
    return unbound.apply  # type: ignore[no-any-return]


# --- autocast ---------------------------------------------------------------------------------------------------------


def lower_precision(*tensors: Any) -> tuple[Any, ...]:
    """Cast as autocast does for a product: floats except float64 to its lower precision."""
    device = tensors[0].device.type
    if not autocast_is_on(device):
        return tensors
    return tuple(_cast(t, torch.get_autocast_dtype(device)) for t in tensors)


def float32_precision(*tensors: Any) -> tuple[Any, ...]:
    """Cast as autocast does for a loss: lower precisions to float32."""
    return tuple(_cast(t, torch.float32) for t in tensors) if autocast_is_on(tensors[0].device.type) else tensors


def _cast(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return t if t is None or not t.is_floating_point() or t.dtype == torch.float64 else t.to(dtype)


# --- argument checks: only shapes and dtypes, which need no synchronisation with a device ----------------------------


def check_activation(name: str, argument: str = "activation") -> None:
    """Raise ValueError unless `name` is an activation."""
    if name not in ACTIVATION_NAMES:
        raise ValueError(f"{argument} is {name!r}: choose one of {', '.join(ACTIVATION_NAMES)}.")


def check_tensor(function: str, argument: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{function}(): argument '{argument}' must be Tensor, not {type(value).__name__}")


def checked_dense(
    name: str, input: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    check_tensor(name, "input", input)
    check_tensor(name, "weight", weight)
    if bias is not None:
        check_tensor(name, "bias", bias)
    if input.dim() == 0 or weight.dim() == 0:
        raise RuntimeError(
            f"both arguments to {name} need to be at least 1D, but they are {input.dim()}D and {weight.dim()}D."
        )
    if weight.dim() > 2:
        raise RuntimeError(f"{name} expects weight of shape (out_features, in_features), got {tuple(weight.shape)}.")
    if weight.dim() == 1 and bias is not None:
        raise RuntimeError(f"{name} takes no bias with a weight of one dimension: pass weight.unsqueeze(0).")
    if input.shape[-1] != weight.shape[-1]:
        num_rows = input.shape[:-1].numel()
        num_out = weight.shape[0] if weight.dim() == 2 else 1
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({num_rows}x{input.shape[-1]} and "
            f"{weight.shape[-1]}x{num_out}): input has {input.shape[-1]} features in its last dimension, "
            f"weight takes {weight.shape[-1]}."
        )
    return input, weight, bias


def check_loss_arguments(name: str, input: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> None:
    check_tensor(name, "input", input)
    check_tensor(name, "target", target)
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction: choose one of {', '.join(REDUCTIONS)}.")
    check_constant(name, "weight", weight, input)


def broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    """Return whether a tensor of `shape` broadcasts to exactly the shape `to`."""
    pairs = zip(shape[::-1], to[::-1], strict=False)
    return len(shape) <= len(to) and all(a == 1 or a == b for a, b in pairs)  # `in` fails on traced sizes


def check_constant(name: str, argument: str, value: Tensor | None, input: Tensor) -> None:
    """Raise RuntimeError unless a weight is a constant that broadcasts to the elements of the loss."""
    if value is None:
        return
    check_tensor(name, argument, value)
    if value.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            f"The function '{name}' is not differentiable with respect to argument '{argument}'. "
            "This input cannot have requires_grad True: pass its detach()."
        )
    if value.is_complex() and not input.is_complex():
        raise RuntimeError(f"{argument} is {value.dtype}, which cannot be cast to a real loss: pass real numbers.")
    if not broadcasts(value.shape, input.shape):
        raise RuntimeError(
            f"{argument} of shape {tuple(value.shape)} does not broadcast to the elements of shape "
            f"{tuple(input.shape)}."
        )
