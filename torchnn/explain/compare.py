"""Every gradient three times: by hand, by autograd, by central differences."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchnn.explain.formula import Formula
from torchnn.explain.network import Layer
from torchnn.explain.parts import Comparison
from torchnn.explain.passes import Gradient, forward, loss_elements
from torchnn.ops.network.loss import cancels

IN_TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "step": lambda z: (z > 0).to(z.dtype),
}
OF_DIFFERENCES = 1e-6  # relative: differences in float64 lose half of the digits


def by_autograd(layers: Sequence[Layer], x: Tensor, y: Tensor, loss: str, pos_weight: Tensor | None) -> list[Gradient]:
    """∂J/∂W and ∂J/∂b of every layer from PyTorch's autograd, on the same network in torch's own operations."""
    leaves = [
        (layer.weight.clone().requires_grad_(), None if layer.bias is None else layer.bias.clone().requires_grad_())
        for layer in layers
    ]
    with torch.enable_grad():
        a = z = x
        for layer, (weight, bias) in zip(layers, leaves, strict=True):
            z = torch.nn.functional.linear(a, weight, None if bias is None else bias.expand(len(weight)))
            a = IN_TORCH[layer.activation](z)
        F = torch.nn.functional
        if cancels(layers[-1].activation, loss):
            value: Tensor = F.binary_cross_entropy_with_logits(z, y, pos_weight=pos_weight)
        elif loss == "mse":
            value = F.mse_loss(a, y)
        else:
            ones, p = torch.ones_like(a), 1.0 if pos_weight is None else pos_weight
            positive, negative = (F.binary_cross_entropy(a, target, reduction="none") for target in (ones, 0 * ones))
            value = (p * y * positive + (1 - y) * negative).mean()
        wanted = [leaf for pair in leaves for leaf in pair if leaf is not None]
        if not value.requires_grad:  # the last layer is a step
            value = value + 0 * sum(leaf.sum() for leaf in wanted)
        found = iter(torch.autograd.grad(value, wanted, materialize_grads=True))
    return [(next(found), None if bias is None else next(found)) for _, bias in leaves]


def value_and_sides(
    layers: Sequence[Layer], x: Tensor, y: Tensor, loss: str, pos_weight: Tensor | None
) -> tuple[float, Tensor]:
    """J, and on which side of its kink every weighted sum under a relu or a step is."""
    zs, _ = forward(layers, x)
    value = loss_elements(zs[-1], y, layers[-1].activation, loss, pos_weight).mean()
    kinked = [z.flatten() > 0 for layer, z in zip(layers, zs, strict=True) if layer.activation in ("relu", "step")]
    return float(value), torch.cat(kinked) if kinked else torch.zeros(0, dtype=torch.bool)


def by_differences(value: Callable[[], tuple[float, Tensor]], parameter: Tensor, most: int) -> Tensor:
    """Central differences (J(w + h) − J(w − h)) / 2h with h = ε^⅓ max(1, |w|), in float64.

    Args:
        value: J of the parameters as they are, and the sides of the kinks.
        parameter: changed and put back, (n, k) or (n,), float64.
        most: how many elements to do: whole rows and columns from the first.

    Returns:
        Of the parameter's shape; not a number where it was not computed, or where the step crosses a kink.
    """
    differences = torch.full_like(parameter, torch.nan)
    grid = parameter if parameter.dim() == 2 else parameter[:, None]
    filled = differences if parameter.dim() == 2 else differences[:, None]
    columns = min(grid.shape[1], max(int(most**0.5), most // len(grid)))
    rows = min(len(grid), max(most // columns, 1))
    for i in range(rows):
        for j in range(columns):
            kept = float(grid[i, j])
            h = torch.finfo(torch.float64).eps ** (1 / 3) * max(1.0, abs(kept))
            above, below = kept + h, kept - h
            grid[i, j] = above
            higher, sides_above = value()
            grid[i, j] = below
            lower, sides_below = value()
            grid[i, j] = kept
            if torch.equal(sides_above, sides_below):
                filled[i, j] = (higher - lower) / (above - below)
    return differences


def compare(
    name: str, formula: Formula, by_hand: Tensor, autograd: Tensor, differences: Tensor, scale: float
) -> Comparison:
    """Put three gradients of one parameter side by side.

    Args:
        name: of the parameter.
        formula: of its gradient.
        by_hand: from this library's backward.
        autograd: from PyTorch's.
        differences: from central differences, nan where there is none.
        scale: size of J, whose rounding the differences are made of.
    """
    last_place = torch.nextafter(autograd.abs(), torch.full_like(autograd, torch.inf)) - autograd.abs()
    ulp = (by_hand - autograd).abs() / last_place
    done = ~differences.isnan()
    relative = _relative(by_hand, autograd)
    relative_differences = _relative(by_hand[done].to(differences.dtype), differences[done])
    rounding = torch.finfo(by_hand.dtype).eps ** 0.5
    step_error = 10 * torch.finfo(torch.float64).eps ** (2 / 3) * max(1.0, scale)
    off = (by_hand[done].to(differences.dtype) - differences[done]).abs()
    largest = differences[done].abs().max() if len(off) else 0.0
    is_near = off <= max(OF_DIFFERENCES, rounding) * largest + step_error
    agrees = relative <= rounding and bool(is_near.all())
    return Comparison(name, formula, by_hand, autograd, differences, ulp, relative, relative_differences, agrees)


def _relative(given: Tensor, expected: Tensor) -> float:
    """The largest difference by the largest element expected; nan where there is none."""
    if given.numel() == 0:
        return torch.nan
    difference, size = float((given - expected).abs().max()), float(expected.abs().max())
    return 0.0 if difference == 0 else difference / size if size > 0 else float("inf")
