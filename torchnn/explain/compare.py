"""Every gradient in three ways: by hand, by autograd, by central differences."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from torchnn.explain import derivation
from torchnn.explain.formula import Formula
from torchnn.explain.network import Layer
from torchnn.explain.passes import Gradient, forward, loss_elements, mean_loss
from torchnn.explain.records import Comparison
from torchnn.ops.network.loss import cancels

IN_TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "step": lambda z: (z > 0).to(z.dtype),
}
DIFFERENCE_TOLERANCE = 1e-6  # relative; central differences in float64 lose about half of the digits


def compare_gradients(
    layers: Sequence[Layer],
    x: Tensor,
    y: Tensor,
    loss: str,
    p: Tensor | None,
    by_hand: Sequence[Gradient],
    max_differences: int,
) -> list[tuple[Comparison, Comparison | None]]:
    """Compare the gradients of every layer's weight and bias with autograd and with central differences."""
    autograd = by_autograd(layers, x, y, loss, p)
    exact = [layer.cast(torch.float64) for layer in layers]
    y64, p64 = y.double(), None if p is None else p.double()
    _, activations = forward(exact, x.double())
    scale, outputs = abs(float(mean_loss(layers, x, y, loss, p))), y.shape[1]
    comparisons: list[tuple[Comparison, Comparison | None]] = []
    for number, (layer, hand, auto) in enumerate(zip(exact, by_hand, autograd, strict=True), 1):

        def value_and_sides(below: int = number - 1) -> tuple[float, Tensor]:
            return _value_and_sides(exact[below:], activations[below], y64, loss, p64)

        bias = None
        if layer.bias is not None and hand[1] is not None and auto[1] is not None:
            differences = by_differences(value_and_sides, layer.bias, max_differences)
            bias = _compare(
                f"b[{number}]", derivation.mean_grad_bias(number, outputs), hand[1], auto[1], differences, scale
            )
        differences = by_differences(value_and_sides, layer.weight, max_differences)
        weight = _compare(
            f"W[{number}]", derivation.mean_grad_weight(number, outputs), hand[0], auto[0], differences, scale
        )
        comparisons.append((weight, bias))
    return comparisons


def by_autograd(layers: Sequence[Layer], x: Tensor, y: Tensor, loss: str, pos_weight: Tensor | None) -> list[Gradient]:
    """∂J/∂W and ∂J/∂b of every layer from PyTorch's autograd, on the same network built from torch operations."""
    leaves = [
        (layer.weight.clone().requires_grad_(), None if layer.bias is None else layer.bias.clone().requires_grad_())
        for layer in layers
    ]
    with torch.enable_grad():
        a = z = x
        for layer, (weight, bias) in zip(layers, leaves, strict=True):
            z = F.linear(a, weight, None if bias is None else bias.expand(len(weight)))
            a = IN_TORCH[layer.activation](z)
        if cancels(layers[-1].activation, loss):
            value: Tensor = F.binary_cross_entropy_with_logits(z, y, pos_weight=pos_weight)
        elif loss == "mse":
            value = F.mse_loss(a, y)
        else:
            ones, p = torch.ones_like(a), 1.0 if pos_weight is None else pos_weight
            positive, negative = (F.binary_cross_entropy(a, target, reduction="none") for target in (ones, 0 * ones))
            value = (p * y * positive + (1 - y) * negative).mean()
        parameters = [leaf for pair in leaves for leaf in pair if leaf is not None]
        if not value.requires_grad:  # the last activation is a step function
            value = value + 0 * sum(leaf.sum() for leaf in parameters)
        gradients = iter(torch.autograd.grad(value, parameters, materialize_grads=True))
    return [(next(gradients), None if bias is None else next(gradients)) for _, bias in leaves]


def _value_and_sides(
    layers: Sequence[Layer], x: Tensor, y: Tensor, loss: str, pos_weight: Tensor | None
) -> tuple[float, Tensor]:
    """J, and for every weighted sum under a relu or step function whether it lies above the kink."""
    zs, _ = forward(layers, x)
    value = loss_elements(zs[-1], y, layers[-1].activation, loss, pos_weight).mean()
    above = [z.flatten() > 0 for layer, z in zip(layers, zs, strict=True) if layer.activation in ("relu", "step")]
    return float(value), torch.cat(above) if above else torch.zeros(0, dtype=torch.bool)


def by_differences(
    value_and_sides: Callable[[], tuple[float, Tensor]], parameter: Tensor, max_differences: int
) -> Tensor:
    """Central differences (J(w + h) − J(w − h)) / 2h with h = ε^⅓ max(1, |w|), in float64.

    Args:
        value_and_sides: computes J with the current parameters, and the side of the kink of every weighted sum.
        parameter: (n, k) or (n,), float64. It is changed and restored.
        max_differences: the largest number of elements to compute: whole rows and columns, starting with the first.

    Returns:
        The differences in the parameter's shape. NaN where none was computed, and where the step crosses a kink.
    """
    differences = torch.full_like(parameter, torch.nan)
    grid = parameter if parameter.dim() == 2 else parameter[:, None]
    result = differences if parameter.dim() == 2 else differences[:, None]
    columns = min(grid.shape[1], max(int(max_differences**0.5), max_differences // len(grid)))
    rows = min(len(grid), max(max_differences // columns, 1))
    for i in range(rows):
        for j in range(columns):
            original = float(grid[i, j])
            h = torch.finfo(torch.float64).eps ** (1 / 3) * max(1.0, abs(original))
            above, below = original + h, original - h
            grid[i, j] = above
            value_above, sides_above = value_and_sides()
            grid[i, j] = below
            value_below, sides_below = value_and_sides()
            grid[i, j] = original
            if torch.equal(sides_above, sides_below):
                result[i, j] = (value_above - value_below) / (above - below)
    return differences


def _compare(
    name: str, formula: Formula, by_hand: Tensor, autograd: Tensor, differences: Tensor, scale: float
) -> Comparison:
    """Compare three gradients of one parameter. `scale` is the size of J, whose rounding limits the differences."""
    last_place = torch.nextafter(autograd.abs(), torch.full_like(autograd, torch.inf)) - autograd.abs()
    done = ~differences.isnan()
    relative = _relative(by_hand, autograd)
    relative_rounding = torch.finfo(by_hand.dtype).eps ** 0.5
    step_error = 10 * torch.finfo(torch.float64).eps ** (2 / 3) * max(1.0, scale)
    error = (by_hand[done].to(differences.dtype) - differences[done]).abs()
    largest = differences[done].abs().max() if len(error) else 0.0
    is_close = error <= max(DIFFERENCE_TOLERANCE, relative_rounding) * largest + step_error
    return Comparison(
        name=name,
        formula=formula,
        by_hand=by_hand,
        autograd=autograd,
        differences=differences,
        ulp=(by_hand - autograd).abs() / last_place,
        relative=relative,
        relative_differences=_relative(by_hand[done].to(differences.dtype), differences[done]),
        agrees=relative <= relative_rounding and bool(is_close.all()),
    )


def _relative(actual: Tensor, expected: Tensor) -> float:
    """The largest difference divided by the largest expected element. NaN for empty tensors."""
    if actual.numel() == 0:
        return torch.nan
    difference, size = float((actual - expected).abs().max()), float(expected.abs().max())
    return 0.0 if difference == 0 else difference / size if size > 0 else float("inf")
