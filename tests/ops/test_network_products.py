"""The whole-network pass with oneDNN's products, which it uses on some processors, compared with torch's."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import torchnn
from tests.cases import STRIDES
from tests.checks import CountProducts
from tests.networks import Net, assert_close, every_block, is_pass
from torchnn.functional import _whole_network
from torchnn.ops.network import products
from torchnn.ops.network.products import (
    MIXED_PRODUCTS,
    ONEDNN_PRODUCTS,
    TORCH_PRODUCTS,
    Products,
    products_of_layer,
    products_of_layers,
)

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
every_choice = pytest.mark.parametrize(
    "products", [ONEDNN_PRODUCTS, MIXED_PRODUCTS], ids=["all", "all but the weights'"]
)


@pytest.fixture(autouse=True)
def fresh_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_whole_network, "plan_of", _whole_network.plan_of.__wrapped__)  # without its cache
    monkeypatch.setattr(_whole_network, "LAST_PLANS", {})


def force(patch: pytest.MonkeyPatch, products: Products) -> None:
    patch.setattr(_whole_network, "products_of_layers", lambda _, sizes, *__: [products] * (len(sizes) - 1))


@every_choice
@pytest.mark.parametrize("layout", STRIDES.values(), ids=list(STRIDES))
def test_products_of_any_layout_equal_torchs(products: Products, layout: Any) -> None:
    delta, below, bias = torch.randn(6, 5), torch.randn(6, 7), torch.randn(5)
    weight, total = torch.randn(5, 7), torch.randn(5, 7)
    for a, d, w, b in product((below, layout(below)), (delta, layout(delta)), (weight, layout(weight)), (bias, None)):
        for own, other in (
            (products.forward(a, w, b), TORCH_PRODUCTS.forward(a, w, b)),
            (products.backward_input(d, w), TORCH_PRODUCTS.backward_input(d, w)),
            (products.backward_weight(d, a), TORCH_PRODUCTS.backward_weight(d, a)),
            (products.backward_weight(a, d), TORCH_PRODUCTS.backward_weight(a, d)),
            (products.backward_weight(d, a, total.clone()), TORCH_PRODUCTS.backward_weight(d, a, total.clone())),
        ):
            torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)
    for shared in (torch.randn(1), torch.randn(()), torch.randn(10)[::2]):
        torch.testing.assert_close(
            products.forward(below, weight, shared), TORCH_PRODUCTS.forward(below, weight, shared), rtol=1e-5, atol=1e-5
        )


@every_block
@every_choice
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_pass_gives_the_gradients_of_the_layers(
    products: Products, reduction: str, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for last, expanded in product(("sigmoid", "identity"), (False, True)):
        net = Net(last, dtype=torch.float32)
        net.biases[0] = torch.randn(1, requires_grad=True)
        net.weights[1] = net.weights[1].detach().t().contiguous().t().requires_grad_()
        if expanded:
            net.x = torch.randn(3).expand(7, 3)
        options: Any = {"reduction": reduction, "loss": "binary_cross_entropy" if last == "sigmoid" else "mse"}
        expected, expected_output = net.layers(**options)
        incoming = torch.randn_like(expected)
        theirs = net.gradients(expected + expected_output.sum(), incoming)
        with monkeypatch.context() as patch:
            force(patch, products)
            value, output = net.loss(block_rows=block_rows, **options)
            assert is_pass(value)
            ours = net.gradients(value + output.sum(), incoming, retain_graph=True)
            again = net.gradients(value + output.sum(), incoming)
        assert_close((value, output), (expected, expected_output), 2e-5)
        assert_close(ours, theirs, 2e-5)
        assert all(map(torch.equal, ours, again))


def test_a_layer_uses_the_products_that_are_faster_for_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    assert products_of_layer(32, 30, 16) is TORCH_PRODUCTS
    assert products_of_layer(1024, 4096, 1) is TORCH_PRODUCTS
    assert products_of_layer(1024, 64, 64) is MIXED_PRODUCTS
    assert products_of_layer(1024, 300, 300) is ONEDNN_PRODUCTS
    wide = 1024, (300, 300, 1)
    assert products_of_layers(*wide, torch.float32, "cpu") == [ONEDNN_PRODUCTS, TORCH_PRODUCTS]
    for dtype, device in ((torch.float64, "cpu"), (torch.bfloat16, "cpu"), (torch.float32, "cuda")):
        assert products_of_layers(*wide, dtype, device) == [TORCH_PRODUCTS, TORCH_PRODUCTS]
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)
    assert products_of_layers(*wide, torch.float32, "cpu") == [TORCH_PRODUCTS, TORCH_PRODUCTS]


def test_onednn_is_not_used_if_it_is_off_or_operations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    seen: list[Any] = []
    forward = TORCH_PRODUCTS.forward

    def watched(*args: Any) -> Tensor:
        seen.append(args)
        return forward(*args)

    monkeypatch.setattr(products, "TORCH_PRODUCTS", TORCH_PRODUCTS._replace(forward=watched))
    monkeypatch.setattr(products, "ONEDNN_PRODUCTS", ONEDNN_PRODUCTS._replace(forward=watched))
    mlp, x = torchnn.MLP([128, 128, 1]), torch.randn(1024, 128)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        mlp(x)
    with CountProducts() as counter:
        mlp(x)
    assert counter.products == 2
    assert not seen, "the plan of a call that may not choose has torch's products"
    mlp(x)
    assert len(seen) == 2
