"""The whole network."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from torchnn.functional.layers import sigmoid
from torchnn.functional.losses import binary_cross_entropy_with_logits, loss_of_output
from torchnn.functional.network import check_loss_name, takes_cancelled_path
from torchnn.modules.dense import Bias, DenseActivation


class MLP(nn.Module):
    """A network of dense layers, a[l] = g[l](a[l−1] W[l]ᵀ + b[l]), whose every gradient is derived by hand.

    Args:
        sizes: n[0], n[1] … n[L]: features, neurons of each hidden layer, outputs. The input is not a layer.
        activation: g of the hidden layers, one name for all or a list of one name per layer; a list that names all L
            layers names the output's too.
        output_activation: g[L].
        bias: True for one number per neuron, "shared" for one number per layer, False for none.
        device: where the parameters live.
        dtype: dtype of the parameters.

    Shapes: x (*, n[0]), output and target (*, n[L]). Parameters, in this order: `layers.0.weight` (n[1], n[0]),
    `layers.0.bias` (n[1],) or (1,), `layers.1.weight` …

    Raises:
        ValueError: fewer than two sizes, a size that is no positive integer, an unknown activation, a list of the
            wrong length, or an output activation that contradicts the list.

    >>> network = MLP([2, 3, 1])
    >>> network(torch.zeros(4, 2)).shape
    torch.Size([4, 1])
    >>> network(torch.zeros(4, 2), torch.ones(4, 1)).backward()
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str | Sequence[str] = "sigmoid",
        output_activation: str = "sigmoid",
        bias: Bias = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.sizes = checked_sizes(sizes)
        self.activations = activations_by_layer(activation, output_activation, num_layers=len(self.sizes) - 1)
        widths = zip(self.sizes[:-1], self.sizes[1:], self.activations, strict=True)
        self.layers = nn.ModuleList(DenseActivation(n, m, name, bias, device, dtype) for n, m, name in widths)

    def reset_parameters(self, scheme: str = "by_activation") -> None:
        """Draw new weights in every layer; `scheme` as in `torchnn.modules.initialisation`."""
        for layer in self._layers():
            layer.reset_parameters(scheme)

    def forward(
        self,
        x: Tensor,
        target: Tensor | None = None,
        weight: Tensor | None = None,
        pos_weight: Tensor | None = None,
        reduction: str = "mean",
        *,
        loss: str = "binary_cross_entropy",
    ) -> Tensor:
        """The output a[L] without a target; with one, the loss.

        Args:
            x: input, shape (*, n[0]).
            target: y, shape (*, n[L]).
            weight: multiplies the loss of each element; broadcasts to `target`.
            pos_weight: multiplies the loss of positives; broadcasts to `target`; binary cross-entropy only.
            reduction: "mean" over elements, "sum", or "none".
            loss: "binary_cross_entropy" or "mse".

        Returns:
            a[L], shape (*, n[L]); or the loss, a scalar, or of the shape of `target` for "none".
        """
        if target is None:
            for layer in self.layers:
                x = layer(x)
            return x
        return self.loss_and_output(x, target, weight, pos_weight, reduction, loss=loss)[0]

    def loss(
        self,
        x: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        pos_weight: Tensor | None = None,
        reduction: str = "mean",
        *,
        loss: str = "binary_cross_entropy",
    ) -> Tensor:
        """`forward` with a target, by name; it runs through `__call__`, so that hooks of the network see it."""
        result: Tensor = self(x, target, weight, pos_weight, reduction, loss=loss)
        return result

    def loss_and_output(
        self,
        x: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        pos_weight: Tensor | None = None,
        reduction: str = "mean",
        *,
        loss: str = "binary_cross_entropy",
    ) -> tuple[Tensor, Tensor]:
        """The loss and the output a[L] of one pass; arguments as `forward`.

        Binary cross-entropy after a sigmoid is computed from the logits, so that δ[L] = a[L] − y holds where the
        sigmoid saturates too. Every layer is called as a module: hooks, pruning and parametrisations work; a forward
        hook of the last layer sees the logits.
        """
        check_loss_name(loss, pos_weight)
        *hidden, last = self._layers()
        for layer in hidden:
            x = layer(x)
        if takes_cancelled_path(loss, last.activation):
            logits = last(x, pre_activation=True)
            value = binary_cross_entropy_with_logits(logits, target, weight, reduction=reduction, pos_weight=pos_weight)
            return value, sigmoid(logits)
        output = last(x)
        return loss_of_output(loss, output, target, weight, pos_weight, reduction), output

    def _layers(self) -> list[DenseActivation]:
        return cast("list[DenseActivation]", list(self.layers))


def checked_sizes(sizes: Sequence[int]) -> list[int]:
    """`sizes` as a list, if it describes a network."""
    if len(sizes) < 2:
        raise ValueError(f"sizes needs at least the number of features and of outputs, got {sizes!r}.")
    for position, size in enumerate(sizes):
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"sizes[{position}] is {size!r}: a layer has a whole number of neurons, 1 or more.")
    return list(sizes)


def activations_by_layer(activation: str | Sequence[str], output_activation: str, num_layers: int) -> list[str]:
    """g[1] … g[L] by name."""
    if isinstance(activation, str):
        return [activation] * (num_layers - 1) + [output_activation]
    if len(activation) == num_layers - 1:
        return [*activation, output_activation]
    if len(activation) != num_layers:
        raise ValueError(f"{len(activation)} activations for {num_layers} layers: give one per layer, or one name.")
    if output_activation not in ("sigmoid", activation[-1]):
        raise ValueError(f"the list ends with {activation[-1]!r}, but output_activation is {output_activation!r}.")
    return list(activation)
