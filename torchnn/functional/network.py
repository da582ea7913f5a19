"""A whole network: its output, and its loss by the cancelled path."""

from collections.abc import Sequence

from torch import Tensor

from torchnn.functional._arguments import check_activation
from torchnn.functional.layers import activate, dense, dense_activation
from torchnn.functional.losses import binary_cross_entropy_with_logits, loss_of_output

LOSS_NAMES = ("binary_cross_entropy", "mse")


def mlp(
    input: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None,
    activations: str | Sequence[str] = "sigmoid",
) -> Tensor:
    """A whole network, a[l] = g[l](a[l−1] W[l]ᵀ + b[l]) for l = 1 … L; twin of the `nn.Sequential` of its layers.

    Args:
        input: x = a[0], shape (*, n[0]).
        weights: W[1] … W[L], W[l] of shape (n[l], n[l−1]).
        biases: b[1] … b[L], each (n[l],), (1,), () or None; None for no bias anywhere.
        activations: g[1] … g[L] by name, or one name for all layers.

    Returns:
        a[L], shape (*, n[L]).

    Raises:
        ValueError: not one bias and one activation per weight, or an unknown activation.
        RuntimeError: shapes, dtypes or devices do not fit together.

    >>> import torch
    >>> mlp(torch.zeros(1, 2), [torch.ones(3, 2), torch.ones(1, 3)], None)
    tensor([[0.8176]])
    """
    a = input
    for weight, bias, activation in _layers(weights, biases, activations):
        a = dense_activation(a, weight, bias, activation)
    return a


def mlp_loss(
    input: Tensor,
    target: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None,
    activations: str | Sequence[str] = "sigmoid",
    loss: str = "binary_cross_entropy",
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
) -> tuple[Tensor, Tensor]:
    """Loss and output of a whole network.

    Binary cross-entropy after a sigmoid takes the cancelled path δ[L] = a[L] − y: the loss is computed from the
    logits, exact where a sigmoid saturates, while the output is still the probability. After any other activation the
    output is taken as a probability.

    Args:
        input: x = a[0], shape (*, n[0]).
        target: y, shape (*, n[L]).
        weights: W[1] … W[L], W[l] of shape (n[l], n[l−1]).
        biases: b[1] … b[L], each (n[l],), (1,), () or None; None for no bias anywhere.
        activations: g[1] … g[L] by name, or one name for all layers.
        loss: "binary_cross_entropy" or "mse".
        weight: multiplies the loss of each element; broadcasts to `target`.
        pos_weight: multiplies the loss of positives; broadcasts to `target`; binary cross-entropy only.
        reduction: "mean" over elements (of rows and outputs), "sum", or "none".

    Returns:
        The loss (scalar, or shape of `target` for "none") and the output a[L], shape (*, n[L]).

    Raises:
        ValueError: an unknown loss, activation or reduction, a count that does not fit, a target of another shape.
        RuntimeError: shapes, dtypes or devices do not fit together; a probability outside [0, 1].

    >>> import torch
    >>> loss, output = mlp_loss(torch.ones(1, 1), torch.zeros(1, 1), [torch.full((1, 1), 20.0)], None)
    >>> loss, output
    (tensor(20.), tensor([[1.]]))
    """
    *hidden, (last_weight, last_bias, last_activation) = _layers(weights, biases, activations)
    a = input
    for layer_weight, bias, activation in hidden:
        a = dense_activation(a, layer_weight, bias, activation)
    z = dense(a, last_weight, last_bias)
    value = loss_of_pre_activation(z, target, last_activation, loss, weight, pos_weight, reduction)
    return value, activate(z, last_activation)


def loss_of_pre_activation(
    z: Tensor,
    target: Tensor,
    activation: str,
    loss: str = "binary_cross_entropy",
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The loss of a network from the weighted sums z of its last layer, by the cancelled path where there is one.

    The sigmoid's derivative cancels the denominator of binary cross-entropy, so that δ[L] = a[L] − y.
    """
    check_activation(activation)
    check_loss_name(loss, pos_weight)
    if loss == "binary_cross_entropy" and activation == "sigmoid":
        return binary_cross_entropy_with_logits(z, target, weight, reduction=reduction, pos_weight=pos_weight)
    return loss_of_output(activate(z, activation), target, loss, weight, pos_weight, reduction)


def check_loss_name(loss: str, pos_weight: Tensor | float | None) -> None:
    """Raise ValueError unless `loss` is a name and takes the `pos_weight` it was given."""
    if loss not in LOSS_NAMES:
        raise ValueError(f"unknown loss {loss!r}: choose one of {', '.join(LOSS_NAMES)}.")
    if loss == "mse" and pos_weight is not None:
        raise ValueError("pos_weight belongs to binary_cross_entropy: leave it out for the mse loss.")


def _layers(
    weights: Sequence[Tensor], biases: Sequence[Tensor | None] | None, activations: str | Sequence[str]
) -> list[tuple[Tensor, Tensor | None, str]]:
    if not weights:
        raise ValueError("a network needs at least one layer: weights is empty.")
    if biases is None:
        biases = [None] * len(weights)
    if isinstance(activations, str):
        activations = [activations] * len(weights)
    if not len(weights) == len(biases) == len(activations):
        raise ValueError(
            f"one bias and one activation per layer: got {len(weights)} weights, {len(biases)} biases and "
            f"{len(activations)} activations."
        )
    return list(zip(weights, biases, activations, strict=True))
