"""When an `MLP` uses the whole-network pass, and when it calls its layers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import torchnn
from tests.networks import assert_close, is_pass


def with_hook(mlp: Any) -> None:
    mlp.layers[0].register_forward_hook(lambda *_: None)


def with_pre_hook(mlp: Any) -> None:
    mlp.layers[1].register_forward_pre_hook(lambda *_: None)


def with_backward_hook(mlp: Any) -> None:
    mlp.layers[0].register_full_backward_hook(lambda *_: None)


def with_parametrisation(mlp: Any) -> None:
    nn.utils.parametrizations.weight_norm(mlp.layers[0])


def with_pruning(mlp: Any) -> None:
    prune.random_unstructured(mlp.layers[0], "weight", 0.5)


def with_replacement(mlp: Any) -> None:
    mlp.layers[0] = nn.Sequential(nn.Linear(3, 4), nn.Tanh())


def with_own_forward(mlp: Any) -> None:
    original = mlp.layers[1].forward
    mlp.layers[1].forward = lambda x: original(x) * 0.9


CHANGES = [
    *(with_hook, with_pre_hook, with_backward_hook, with_parametrisation, with_pruning),
    *(with_replacement, with_own_forward),
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_mlp_whose_layers_were_changed_calls_them(change: Callable[[Any], None]) -> None:
    x, y = torch.randn(5, 3), torch.rand(5, 1)
    mlp = torchnn.MLP([3, 4, 1])
    assert is_pass(mlp(x))
    assert is_pass(mlp(x, y))
    change(mlp)
    assert not is_pass(mlp(x))
    assert not is_pass(mlp(x, y))
    layers: Any = mlp.layers
    torch.testing.assert_close(mlp(x, y), nn.functional.binary_cross_entropy(layers[1](layers[0](x)), y))


def test_a_weight_that_another_network_gives() -> None:
    network = torchnn.MLP([3, 4, 1], dtype=torch.double)
    x, y = torch.randn(5, 3, dtype=torch.double), torch.rand(5, 1, dtype=torch.double)
    first: Any = network.layers[0]
    given = first.weight.detach().requires_grad_()
    expected = network(x)
    del first.weight
    first.weight = 1 * given
    assert_close([network(x)], [expected])
    network.loss(x, y).backward()
    assert given.grad is not None
