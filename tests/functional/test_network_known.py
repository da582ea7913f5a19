"""The plan of the last call is used again only if the next call is like it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.cases import leaf
from tests.networks import Net
from torchnn.functional import _whole_network


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """The plans of the last calls, at first none."""
    empty: dict[Any, Any] = {}
    monkeypatch.setattr(_whole_network, "LAST_PLANS", empty)
    return empty


class Change(NamedTuple):
    """A difference from the previous call, which had the same options."""

    what: str
    make: Callable[[Net], object]


def in_float32(net: Net) -> None:
    for t in (*net.leaves, net.y):
        t.data = t.data.float()


CHANGES = [
    Change("more rows", lambda net: vars(net).update(x=torch.randn(9, 3).double(), y=torch.rand(9, 2).double())),
    Change("x needs no gradient", lambda net: net.x.requires_grad_(False)),
    Change("a frozen weight", lambda net: net.weights[1].requires_grad_(False)),
    Change("another dtype", lambda net: in_float32(net)),
    Change("x with other strides", lambda net: vars(net).update(x=torch.randn(3, 7).double().t().requires_grad_())),
    Change("a layer without bias", lambda net: net.biases.__setitem__(0, None)),
    Change("one number for all neurons", lambda net: net.biases.__setitem__(1, leaf(1))),
    Change("the same", lambda net: None),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.what)
def test_the_last_plan_is_used_only_for_a_call_like_the_last_one(change: Change, known: dict[Any, Any]) -> None:
    net = Net(rows=7)
    net.gradients(net.loss()[0])
    (before,) = known.values()
    change.make(net)
    by_pass = net.gradients(net.loss()[0])
    torch.testing.assert_close(by_pass, net.gradients(net.layers()[0]))
    (after,) = known.values()
    is_new = after is not before  # a call that is not remembered keeps the previous plan
    assert is_new == (change.what not in ("the same", "a layer without bias"))


def test_a_wrapper_left_by_a_finished_transform_does_not_use_the_last_plan(known: dict[Any, Any]) -> None:
    net, kept = Net(), []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x.sum()

    torch.func.grad(keep)(net.x.detach())
    net.x = kept[0]
    for _ in range(3):
        value, _ = net.loss()
        torch.testing.assert_close(value, net.layers()[0])


def test_a_call_under_autocast_does_not_use_the_last_plan(known: dict[Any, Any]) -> None:
    net = Net(dtype=torch.float32)
    net.loss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net.loss()[1].dtype == torch.bfloat16
    assert net.loss()[1].dtype == torch.float32


def test_the_number_of_remembered_plans_is_limited(known: dict[Any, Any]) -> None:
    net = Net()
    for rows in range(1, 3 * _whole_network.MAX_LAST_PLANS):
        net.loss(block_rows=rows)
    assert 0 < len(known) <= _whole_network.MAX_LAST_PLANS
