"""The whole network."""

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn

from torchnn._torch import children_of, forward_hooks, global_forward_hooks, has_global_hooks, has_hooks, own_parameters
from torchnn.functional._arguments import check_activation
from torchnn.functional.layers import activate
from torchnn.functional.losses import loss_of_output
from torchnn.functional.network import loss_of_pre_activation, mlp, mlp_loss
from torchnn.modules.dense import Bias, DenseActivation


class MLP(nn.Module):
    """A network of dense layers, a[l] = g[l](a[l−1] W[l]ᵀ + b[l]), whose gradients are all derived by hand.

    Args:
        sizes: n[0], n[1] … n[L]: features, neurons of each hidden layer, outputs. The input is not a layer.
        activation: g of the hidden layers: one name for all, or a list with one name per layer. A list of L names
            includes the output activation.
        output_activation: g[L].
        bias: True for one number per neuron, "shared" for one number per layer, False for none.
        device: the device of the parameters.
        dtype: dtype of the parameters.

    Shapes: x (*, n[0]), output and target (*, n[L]). Parameters, in this order: `layers.0.weight` (n[1], n[0]),
    `layers.0.bias` (n[1],) or (1,), `layers.1.weight` …

    Raises:
        ValueError: there are fewer than two sizes, a size is not a positive integer, an activation is unknown, a list
            has the wrong length, or `output_activation` contradicts the list.

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
        check_activation(output_activation, "output_activation")
        self.activations = activations_by_layer(activation, output_activation, num_layers=len(self.sizes) - 1)
        widths = zip(self.sizes[:-1], self.sizes[1:], self.activations, strict=True)
        self.layers = nn.ModuleList(DenseActivation(n, m, name, bias, device, dtype) for n, m, name in widths)

    def reset_parameters(self, scheme: str = "by_activation") -> None:
        """Draw new weights in every layer; `scheme` as in `torchnn.modules.initialisation`."""
        for layer in self.layers:
            cast("DenseActivation", layer).reset_parameters(scheme)

    def forward(
        self,
        x: Tensor,
        target: Tensor | None = None,
        weight: Tensor | None = None,
        pos_weight: Tensor | None = None,
        reduction: str = "mean",
        loss: str = "binary_cross_entropy",
        return_output: bool = False,
    ) -> Any:
        """Return the output a[L] without a target, or the loss with one.

        Binary cross-entropy after a sigmoid is computed from the logits, so that δ[L] = a[L] − y is exact where the
        sigmoid saturates too. Unchanged layers are computed in one pass (`torchnn.functional.mlp_loss`). If a layer has
        hooks or a parametrisation or was replaced, every layer is called as a module. The loss is then computed from
        the probability if the last layer was replaced or has forward hooks other than those of `fully_shard`.

        Args:
            x: input, shape (*, n[0]).
            target: y, shape (*, n[L]).
            weight: multiplies the loss of each element; broadcasts to `target`.
            pos_weight: multiplies the loss of positives; broadcasts to `target`; binary cross-entropy only.
            reduction: "mean" over elements, "sum", or "none".
            loss: "binary_cross_entropy" or "mse".
            return_output: with a target, return the loss and the output of the same pass.

        Returns:
            a[L], shape (*, n[L]); or the loss, a scalar, or of the shape of `target` for "none"; or both.

        Raises:
            ValueError: there are options of a loss but no target, the loss or the reduction is unknown, or the target
                has another shape.
            RuntimeError: shapes, dtypes or devices do not fit together; a probability outside [0, 1].
        """
        if target is None:
            has_loss_options = return_output or reduction != "mean" or loss != "binary_cross_entropy"
            if has_loss_options or weight is not None or pos_weight is not None:
                raise ValueError(
                    "weight, pos_weight, reduction, loss and return_output are used only with a target: give a target."
                )
        layers: Any = children_of(children_of(self)["layers"]).values()  # type: ignore[arg-type]  # `self.layers` is slower
        if not has_global_hooks() and all(map(is_unchanged_layer, layers)):
            parameters = [own_parameters(layer) for layer in layers]  # `layer.weight` takes twice as long
            network = [p["weight"] for p in parameters], [p["bias"] for p in parameters], [m.activation for m in layers]
            if target is None:
                return mlp(x, *network)
            value, output = mlp_loss(x, target, *network, loss, weight, pos_weight, reduction)
            return (value, output) if return_output else value
        *hidden, last = layers
        for layer in hidden:
            x = layer(x)
        if target is None:
            return last(x)
        if gives_pre_activation(last):
            z = last(x, pre_activation=True)
            value = loss_of_pre_activation(z, target, last.activation, loss, weight, pos_weight, reduction)
            return (value, activate(z, last.activation)) if return_output else value
        output = last(x)
        value = loss_of_output(output, target, loss, weight, pos_weight, reduction)
        return (value, output) if return_output else value

    def loss(self, x: Tensor, target: Tensor, *args: Any, **options: Any) -> Any:
        """Call the network with a target, so that hooks of the network run too."""
        return self(x, target, *args, **options)


def is_unchanged_layer(layer: nn.Module) -> bool:
    """Return whether a layer has no hooks and no parametrisation and was not replaced."""
    own = own_parameters(layer)
    return type(layer) is DenseActivation and "weight" in own and "bias" in own and is_unmodified(layer)


def is_unmodified(module: nn.Module) -> bool:
    """Return whether a module has no hooks, and no `forward` except that of its class."""
    return not has_hooks(module) and "forward" not in vars(module)


def gives_pre_activation(layer: nn.Module) -> TypeGuard[DenseActivation]:
    """Return whether the loss can be computed from a layer's weighted sums, because nothing changes its output."""
    unchanged = getattr(type(layer), "forward", None) is DenseActivation.forward and "forward" not in vars(layer)
    hooked = not all(map(only_shards, forward_hooks(layer).values())) or global_forward_hooks()
    return unchanged and not hooked


def only_shards(hook: Callable[..., Any]) -> bool:
    """Return whether a hook is one of `fully_shard`, which gathers and frees parameters and ignores the output."""
    return type(getattr(hook, "__self__", None)).__module__.startswith("torch.distributed.fsdp.")


def checked_sizes(sizes: Sequence[int]) -> list[int]:
    """Return `sizes` as a list; raise ValueError if it does not describe a network."""
    if len(sizes) < 2:
        raise ValueError(f"sizes needs at least the number of features and of outputs, but it is {sizes!r}.")
    for position, size in enumerate(sizes):
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"sizes[{position}] is {size!r}: give a whole number of neurons, 1 or more.")
    return list(sizes)


def activations_by_layer(activation: str | Sequence[str], output_activation: str, num_layers: int) -> list[str]:
    """Return the names g[1] … g[L]."""
    if isinstance(activation, str):
        return [activation] * (num_layers - 1) + [output_activation]
    if len(activation) == num_layers - 1:
        return [*activation, output_activation]
    if len(activation) != num_layers:
        raise ValueError(f"{len(activation)} activations for {num_layers} layers: give one per layer, or one name.")
    if output_activation not in ("sigmoid", activation[-1]):
        raise ValueError(f"the list ends with {activation[-1]!r}, but output_activation is {output_activation!r}.")
    return list(activation)
