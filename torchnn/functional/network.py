"""A whole network: its output, and its loss, computed from the logits where that is exact."""

from collections.abc import Sequence

from torch import Tensor

from torchnn.functional._arguments import check_activation
from torchnn.functional._stages import exchanges_gradients, in_stages
from torchnn.functional._whole_network import whole_network
from torchnn.functional.layers import activate, dense, dense_activation
from torchnn.functional.losses import binary_cross_entropy_with_logits, loss_of_output
from torchnn.ops.network.loss import LOSS_FORMULAS, cancels

LOSS_NAMES = tuple(LOSS_FORMULAS)


def mlp(
    input: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None,
    activations: str | Sequence[str] = "sigmoid",
) -> Tensor:
    """A whole network, a[l] = g[l](a[l−1] W[l]ᵀ + b[l]) for l = 1 … L, like an `nn.Sequential`.

    Args:
        input: x = a[0], shape (*, n[0]).
        weights: W[1] … W[L], W[l] of shape (n[l], n[l−1]).
        biases: b[1] … b[L], each (n[l],), (1,), () or None; None for no bias anywhere.
        activations: g[1] … g[L] by name, or one name for all layers.

    The whole network is one node of the graph. Up to 48 MiB of activations are saved for the backward. If there are
    more, only input, parameters and output are saved, and the backward computes the activations again, block by block,
    so that memory does not grow with the number of rows.

    Returns:
        a[L], shape (*, n[L]).

    Raises:
        ValueError: the numbers of weights, biases and activations differ, or an activation is unknown.
        RuntimeError: shapes, dtypes or devices do not fit together.

    >>> import torch
    >>> mlp(torch.zeros(1, 2), [torch.ones(3, 2), torch.ones(1, 3)], None)
    tensor([[0.8176]])
    """
    network = _network(weights, biases, activations)
    results = whole_network(input, *network)
    if results is not None:
        return results[1]
    a = input
    for weight, bias, activation in zip(*network, strict=True):
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
    block_rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the loss and output of a whole network, computed together with their gradients in blocks of rows.

    In addition to input, output, parameters and their gradients it needs the memory of one block, whatever the number
    of rows. Only gradients that are differentiated again, or that come in batches, need the memory of all rows. Do not
    change the output in place before the backward.
    Traced and transformed calls (`torch.compile`, `torch.func`, forward mode), tensor subclasses, complex numbers,
    inputs without rows and targets that require a gradient are computed layer by layer instead, with the same result.

    Binary cross-entropy after a sigmoid uses δ[L] = a[L] − y: the loss is computed from the logits, so that it is exact
    where the sigmoid saturates, and the output is still the probability. After any other activation the output itself
    is used as the probability.

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
        block_rows: rows of a block; None for the number whose activations fill half of the cache.

    Returns:
        The loss (scalar, or shape of `target` for "none") and the output a[L], shape (*, n[L]).

    Raises:
        ValueError: an unknown loss, activation or reduction; different numbers of weights, biases and activations; a
            target of another shape; block_rows below 1.
        RuntimeError: shapes, dtypes or devices do not fit together; a probability outside [0, 1].

    >>> import torch
    >>> loss, output = mlp_loss(torch.ones(1, 1), torch.zeros(1, 1), [torch.full((1, 1), 20.0)], None)
    >>> loss, output
    (tensor(20.), tensor([[1.]]))
    """
    network = _network(weights, biases, activations)
    if block_rows is not None and (isinstance(block_rows, bool) or not isinstance(block_rows, int) or block_rows < 1):
        raise ValueError(f"block_rows is {block_rows!r}: give a number of rows, 1 or more, or None.")
    arguments = input, *network, target, loss, weight, pos_weight, reduction, block_rows
    if exchanges_gradients() and (staged := in_stages(*arguments)) is not None:
        return staged
    results = whole_network(*arguments)
    if results is not None:
        return results
    *hidden, (last_weight, last_bias, last_activation) = zip(*network, strict=True)
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
    """Return the loss of a network from the weighted sums z of its last layer.

    If the derivative of the activation cancels the denominator of the loss, so that δ[L] = a[L] − y, the loss is
    computed from z.
    """
    check_activation(activation)
    check_loss_name(loss, pos_weight)
    if cancels(activation, loss):
        return binary_cross_entropy_with_logits(z, target, weight, reduction=reduction, pos_weight=pos_weight)
    return loss_of_output(activate(z, activation), target, loss, weight, pos_weight, reduction)


def check_loss_name(loss: str, pos_weight: Tensor | float | None) -> None:
    """Raise ValueError unless `loss` is a known name that accepts `pos_weight`."""
    if loss not in LOSS_NAMES:
        raise ValueError(f"unknown loss {loss!r}: choose one of {', '.join(LOSS_NAMES)}.")
    if loss == "mse" and pos_weight is not None:
        raise ValueError("pos_weight belongs to binary_cross_entropy: leave it out for the mse loss.")


def _network(
    weights: Sequence[Tensor], biases: Sequence[Tensor | None] | None, activations: str | Sequence[str]
) -> tuple[Sequence[Tensor], Sequence[Tensor | None], tuple[str, ...]]:
    """Return weights, biases and activations, one of each for every layer."""
    if not weights:
        raise ValueError("a network needs at least one layer: weights is empty.")
    if biases is None:
        biases = [None] * len(weights)
    if isinstance(activations, str):
        activations = [activations] * len(weights)
    if not len(weights) == len(biases) == len(activations):
        raise ValueError(
            f"there are {len(weights)} weights, {len(biases)} biases and {len(activations)} activations: give one of "
            "each per layer."
        )
    for name in activations:
        check_activation(name)
    return weights, biases, tuple(activations)
