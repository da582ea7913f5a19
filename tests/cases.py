"""Shapes, kinks, saturation and strides that every operation must handle."""

from collections.abc import Callable

import torch
from torch import Tensor

# Shapes of x with 3 features: one example, one row, several, zero rows, and leading dimensions.
INPUT_SHAPES = [(3,), (1, 3), (5, 3), (0, 3), (2, 4, 3), (2, 0, 3), (2, 1, 2, 3)]

# 0 is relu's kink; 43 and −4 saturate; the last two are the smallest normal numbers of float32 and float64.
SPECIAL_VALUES = torch.tensor(
    [0.0, -0.0, 43.0, -4.0, 1e-3, -1e-3, 700.0, -700.0, 1.2e-38, 2.3e-308], dtype=torch.double
)


def leaf(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype).requires_grad_()


def transposed(t: Tensor) -> Tensor:
    """Same values, the first and last dimension swapped in memory."""
    return t.transpose(0, -1).contiguous().transpose(0, -1)


def sliced(t: Tensor) -> Tensor:
    """Same values, every second element of a larger tensor."""
    wide = torch.full((*t.shape[:-1], 2 * t.shape[-1]), 7.0, dtype=t.dtype)
    wide[..., ::2] = t
    return wide[..., ::2]


def part_of_cat(t: Tensor) -> Tensor:
    """Same values, a slice of a `cat`."""
    return torch.cat([t, torch.ones_like(t), t], dim=-1)[..., : t.shape[-1]]


def expanded(t: Tensor) -> Tensor:
    """The first element everywhere, with strides of 0, as in the gradient of `sum()`."""
    return t.flatten()[:1].reshape([1] * t.dim()).expand(t.shape) if t.numel() else t


STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": torch.Tensor.contiguous,
    "transposed": transposed,
    "sliced": sliced,
    "part of a cat": part_of_cat,
    "expanded": expanded,
}
