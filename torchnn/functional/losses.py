"""Binary cross-entropy and squared error."""

from collections.abc import Callable

import torch
from torch import Tensor

from torchnn.functional._arguments import apply, check_constant, check_loss_arguments, float32_precision, overridable
from torchnn.ops import loss as _loss


def _error_of(call: Callable[[], Tensor]) -> type[RuntimeError]:
    try:
        call()
    except RuntimeError as error:
        return type(error)
    return RuntimeError


# What torch's loss raises for a boolean target or weight: a RuntimeError, from 2.14 on a NotImplementedError.
BOOLEAN_SUBTRACTION = _error_of(lambda: torch.tensor(True) - torch.tensor(True))


@overridable
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """Binary cross-entropy of probabilities; equivalent to `torch.nn.functional.binary_cross_entropy`.

    If the probability is a sigmoid, use `binary_cross_entropy_with_logits` or `mlp_loss`: they are exact in both tails.
    This function is not, because the probability that it gets is already rounded.

    Args:
        input: probabilities a in [0, 1], any shape.
        target: y in [0, 1], shape of `input`; soft labels are allowed and get a gradient too.
        weight: multiplies the loss of each element; broadcasts to `input`; not differentiable.
        reduction: "mean" over elements, "sum", or "none".

    Returns:
        The loss, a scalar, or of the shape of `input` for "none".

    Raises:
        ValueError: shapes differ, or `reduction` is not one of the three.
        RuntimeError: a value outside [0, 1], different dtypes, or a weight that requires a gradient.

    >>> import torch
    >>> binary_cross_entropy(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    tensor(0.6931)
    """
    name = "binary_cross_entropy"
    check_loss_arguments(name, input, target, weight, reduction)
    if input.shape != target.shape:
        raise ValueError(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is deprecated: "
            "reshape the target to the input's size."
        )
    return _binary_cross_entropy(input, target, weight, None, reduction)


@overridable
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy from logits; equivalent to `torch.nn.functional.binary_cross_entropy_with_logits`.

    Loss and gradient keep their relative accuracy in both tails, in every dtype, down to the smallest number.

    Args:
        input: logits z, any shape.
        target: y in [0, 1], shape of `input`; soft labels are allowed and get a gradient too. The range is not checked.
        weight: multiplies the loss of each element; broadcasts to `input`; not differentiable.
        reduction: "mean" over elements, "sum", or "none".
        pos_weight: p, multiplies the loss of positives; broadcasts to `input`; not differentiable.

    Returns:
        The loss, a scalar, or of the shape of `input` for "none"; its dtype is that of `target`, as in torch.

    Raises:
        ValueError: shapes differ, or `reduction` is not one of the three.
        RuntimeError: an integer target, a weight that does not broadcast or that requires a gradient.

    >>> import torch
    >>> binary_cross_entropy_with_logits(torch.tensor([0.0]), torch.tensor([1.0]))
    tensor(0.6931)
    """
    name = "binary_cross_entropy_with_logits"
    check_loss_arguments(name, input, target, weight, reduction)
    check_constant(name, "pos_weight", pos_weight, input)
    if input.shape != target.shape:
        raise ValueError(
            f"Target size ({target.shape}) must be the same as input size ({input.shape}): reshape the target."
        )
    if not input.is_floating_point():
        raise NotImplementedError(f'"{name}" not implemented for {input.dtype}: pass logits as float.')
    if not target.is_floating_point():
        error = BOOLEAN_SUBTRACTION if target.dtype == torch.bool else RuntimeError
        raise error(f"target is {target.dtype}, but the loss is {input.dtype}: pass target.to(input.dtype).")
    if pos_weight is not None and pos_weight.dtype == torch.bool:
        raise BOOLEAN_SUBTRACTION("pos_weight is torch.bool: pass it as float.")
    return apply(
        _loss.BinaryCrossEntropyWithLogitsFunction,
        _loss.TraceableBinaryCrossEntropyWithLogitsFunction,
        *float32_precision(input, target, weight, pos_weight),
        reduction,
    )


@overridable
def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Squared error (a − y)²; equivalent to `torch.nn.functional.mse_loss`.

    Args:
        input: a, any shape.
        target: y, shape of `input`; another shape is broadcast, with a warning from torch.
        reduction: "mean" over elements, "sum", or "none".

    Returns:
        The loss, a scalar, or of the broadcast shape for "none".

    Raises:
        ValueError: `reduction` is not one of the three.
        RuntimeError: shapes that do not broadcast.

    >>> import torch
    >>> mse_loss(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    tensor(2.)
    """
    check_loss_arguments("mse_loss", input, target, None, reduction)
    if input.shape != target.shape:
        torch.nn.functional.mse_loss(input.detach(), target.detach())  # torch's own warning or error
        input, target = torch.broadcast_tensors(input, target)
    return _mse_loss(input, target, None, reduction)


@overridable
def loss_of_output(
    output: Tensor,
    target: Tensor,
    loss: str,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return the loss of a network's output by name, "binary_cross_entropy" or "mse".

    In addition to `binary_cross_entropy` and `mse_loss` it takes `pos_weight` for probabilities and `weight` for
    squared errors.
    """
    check_loss_arguments(loss, output, target, weight, reduction)
    check_constant(loss, "pos_weight", pos_weight, output)
    if output.shape != target.shape:
        raise ValueError(f"Target size ({target.shape}) must be the same as output size ({output.shape}).")
    if loss == "mse":
        return _mse_loss(output, target, weight, reduction)
    return _binary_cross_entropy(output, target, weight, pos_weight, reduction)


def _mse_loss(a: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    if not torch.promote_types(a.dtype, target.dtype).is_floating_point:
        raise NotImplementedError(f'"mse_loss" not implemented for {a.dtype}: pass float tensors.')
    functions = _loss.MSELossFunction, _loss.TraceableMSELossFunction
    return apply(*functions, *float32_precision(a, target, weight), reduction)


def _binary_cross_entropy(
    a: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: str
) -> Tensor:
    a, target, weight, pos_weight = float32_precision(a, target, weight, pos_weight)
    if a.dtype != target.dtype:
        raise RuntimeError(
            f"Found dtype {target.dtype} but expected {a.dtype}: convert the target with target.to(input.dtype)."
        )
    if not a.is_floating_point():
        raise NotImplementedError(f'"binary_cross_entropy" not implemented for {a.dtype}: pass probabilities as float.')
    functions = _loss.BinaryCrossEntropyFunction, _loss.TraceableBinaryCrossEntropyFunction
    return apply(*functions, a, target, weight, pos_weight, reduction)
