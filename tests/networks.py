"""A network's tensors, and its loss by the whole-network pass and by the layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import torchnn.functional as F
from torchnn.functional import _whole_network, network
from torchnn.functional._whole_network import whole_network

ROWS = 7
SIZES = [3, 5, 4, 2]
HIDDEN = ("tanh", "sigmoid")
BLOCKS = (1, 3, 7, 100)
every_block = pytest.mark.parametrize("block_rows", BLOCKS)


def set_block_rows(patch: pytest.MonkeyPatch, block_rows: int) -> None:
    """Use this number of rows per block for calls that do not give one."""
    patch.setattr(_whole_network, "rows_of_a_block", lambda *_: block_rows)
    patch.setattr(_whole_network, "plan_of", _whole_network.plan_of.__wrapped__)  # without its cache
    patch.setattr(_whole_network, "LAST_PLANS", {})


class Net:
    """A network's tensors, and its loss by the pass and by the layers."""

    def __init__(self, last: str = "sigmoid", rows: int = ROWS, sizes: list[int] = SIZES, dtype: Any = torch.double):
        self.activations = [*HIDDEN[: len(sizes) - 2], last]
        self.x = torch.randn(rows, sizes[0], dtype=dtype, requires_grad=True)
        self.y = torch.rand(rows, sizes[-1], dtype=dtype)
        self.weights = [torch.randn(m, n, dtype=dtype, requires_grad=True) for n, m in pairwise(sizes)]
        self.biases: list[Tensor | None] = [torch.randn(m, dtype=dtype, requires_grad=True) for m in sizes[1:]]

    @property
    def leaves(self) -> list[Tensor]:
        return [t for t in (self.x, *self.weights, *self.biases) if t is not None and t.requires_grad]

    def loss(self, **options: Any) -> tuple[Tensor, Tensor]:
        """Use the pass; a call that goes layer by layer fails."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network, "whole_network", at_once)
            return self.either_way(**options)

    def layers(self, **options: Any) -> tuple[Tensor, Tensor]:
        with layer_by_layer():
            return self.either_way(**options)

    def either_way(self, **options: Any) -> tuple[Tensor, Tensor]:
        return F.mlp_loss(self.x, self.y, self.weights, self.biases, self.activations, **options)

    def gradients(self, value: Tensor, incoming: Tensor | None = None, **options: Any) -> tuple[Tensor, ...]:
        return torch.autograd.grad(value, self.leaves, incoming, **options)


@contextmanager
def layer_by_layer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "whole_network", lambda *_: None)
        yield


def at_once(*args: Any) -> Any:
    result = whole_network(*args)
    assert result is not None, "this call went layer by layer"
    return result


def is_pass(value: Tensor) -> bool:
    return value.grad_fn is not None and "NetworkFunction" in value.grad_fn.name()


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
