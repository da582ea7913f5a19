"""The results of the whole-network pass, in one block and in many, equal those of the layers."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import torchnn.functional as F
from tests.cases import STRIDES, leaf
from tests.checks import CountProducts
from tests.networks import ROWS, Net, assert_close, every_block, is_pass, layer_by_layer, set_block_rows
from torchnn.functional import _whole_network


@every_block
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("loss", "last"),
    [
        ("binary_cross_entropy", "sigmoid"),
        ("binary_cross_entropy", "clamped"),
        *(("mse", last) for last in ("identity", "sigmoid", "tanh", "relu")),
    ],
)
def test_loss_output_and_gradients_equal_those_of_the_layers(
    loss: str, last: str, reduction: str, block_rows: int
) -> None:
    net = Net("sigmoid" if last == "clamped" else last)
    if last == "clamped":  # a probability that is not a sigmoid: the loss sees only the output
        net.activations[-1] = "identity"
        net.weights[-1] = torch.full((2, 4), 0.02, dtype=torch.double, requires_grad=True)
        net.biases[-1] = torch.full((2,), 0.5, dtype=torch.double, requires_grad=True)
    for weight, p in ((None, None), (torch.rand(ROWS, 1), None), (torch.rand(2), torch.tensor([0.5, 3.0]))):
        p = None if loss == "mse" else p
        options: Any = {"loss": loss, "reduction": reduction, "weight": weight, "pos_weight": p}
        value, output = net.loss(block_rows=block_rows, **options)
        expected, expected_output = net.layers(**options)
        assert is_pass(value)
        assert not is_pass(expected)
        assert_close((value, output), (expected, expected_output))
        incoming = torch.randn_like(value)
        assert_close(net.gradients(value, incoming), net.gradients(expected, incoming))


@every_block
@pytest.mark.parametrize("bias", ["none", "shared", "scalar", "mixed"])
def test_every_kind_of_bias(bias: str, block_rows: int) -> None:
    net = Net()
    kinds: dict[str, Callable[[], Tensor | None]] = {"none": lambda: None, "shared": lambda: leaf(1), "scalar": leaf}
    if bias == "mixed":
        net.biases = [None, leaf(1), net.biases[2]]
    else:
        net.biases = [kinds[bias]() for _ in net.biases]
    value, expected = net.loss(block_rows=block_rows)[0], net.layers()[0]
    assert is_pass(value)
    assert_close(net.gradients(value), net.gradients(expected))


@every_block
@pytest.mark.parametrize("sizes", [[3, 1], [1, 1, 1], [2, 3, 5, 4, 6, 1]])
@pytest.mark.parametrize("hidden", ["identity", "sigmoid", "tanh", "relu", "step", "mixed"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_regression_and_deep_networks(sizes: list[int], hidden: str, reduction: str, block_rows: int) -> None:
    net = Net("identity", sizes=sizes)
    names = ["tanh", "identity", "identity", "relu"] if hidden == "mixed" else [hidden] * 4
    net.activations = [*names[: len(sizes) - 2], "identity"]
    options: Any = {"loss": "mse", "reduction": reduction}
    value, expected = net.loss(block_rows=block_rows, **options)[0], net.layers(**options)[0]
    incoming = torch.randn_like(value)
    assert_close(net.gradients(value, incoming), net.gradients(expected, incoming))


@every_block
def test_a_loss_of_the_output_is_added_to_the_loss(block_rows: int) -> None:
    net = Net()
    ours, theirs = net.loss(block_rows=block_rows), net.layers()
    for of_loss, of_output in ((3, 1), (0, 1), (1, 0)):
        totals = [of_loss * value + of_output * output.square().sum() for value, output in (ours, theirs)]
        a, b = (net.gradients(total, retain_graph=True) for total in totals)
        assert_close(a, b)
    assert_close(net.gradients(ours[1].sum()), net.gradients(theirs[1].sum()))


@every_block
def test_the_network_without_a_loss(block_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_block_rows(monkeypatch, block_rows)
    for last in ("identity", "relu", "sigmoid"):
        net = Net(last)
        network_of = net.x, net.weights, net.biases, net.activations
        output = F.mlp(*network_of)
        assert is_pass(output)
        with layer_by_layer():
            expected = F.mlp(*network_of)
        for layout in STRIDES.values():
            incoming = layout(torch.randn(ROWS, 2, dtype=torch.double))
            assert_close(
                net.gradients(output, incoming, retain_graph=True), net.gradients(expected, incoming, retain_graph=True)
            )


@every_block
@pytest.mark.parametrize("shape", [(), (ROWS,), (2, 3), (2, 1, 3), (1,)])
def test_any_leading_shape_and_layout(shape: tuple[int, ...], block_rows: int) -> None:
    net = Net()
    net.x, net.y = leaf(*shape, 3), torch.rand(*shape, 2, dtype=torch.double)
    base = net.x.detach()
    layouts = [
        base,
        base.expand_as(base),
        torch.stack([base, base], -1)[..., 0],
        base.mT.contiguous().mT if shape else base,
    ]
    for x, reduction in product(layouts, ("mean", "none")):
        net.x = x.detach().requires_grad_()
        options: Any = {"reduction": reduction, "weight": torch.rand(*shape, 1)}
        (value, output), (expected, expected_output) = net.loss(block_rows=block_rows, **options), net.layers(**options)
        assert_close((value, output), (expected, expected_output))
        incoming = torch.randn_like(value)
        assert_close(net.gradients(value, incoming), net.gradients(expected, incoming))


@every_block
def test_expanded_input_and_transposed_weights(block_rows: int) -> None:
    net = Net()
    net.x = leaf(3).detach().expand(ROWS, 3)
    net.weights = [w.detach().t().contiguous().t().requires_grad_() for w in net.weights]
    value, expected = net.loss(block_rows=block_rows)[0], net.layers()[0]
    assert is_pass(value)
    assert_close(net.gradients(value), net.gradients(expected))


@every_block
def test_weights_of_a_loss_broadcast_over_leading_dimensions(block_rows: int) -> None:
    net = Net()
    net.x, net.y = leaf(2, 3, 3), torch.rand(2, 3, 2, dtype=torch.double)
    for weight, p in (
        (torch.rand(3, 1), torch.rand(2)),
        (torch.rand(2, 1, 1), torch.rand(2, 3, 2)),
        (torch.rand(()), None),
    ):
        options: Any = {"weight": weight, "pos_weight": p}
        assert_close(net.loss(block_rows=block_rows, **options)[0], net.layers(**options)[0])


def test_a_loss_of_many_saturated_float16_probabilities_does_not_overflow() -> None:
    x, weight = torch.zeros(1000, 1, dtype=torch.float16), torch.ones(1, 1, dtype=torch.float16)
    for block_rows in (1000, 300):
        loss, _ = F.mlp_loss(x, torch.ones_like(x), [weight], None, "identity", block_rows=block_rows)
        assert loss == 100


def test_a_wide_weight_of_a_float16_loss_keeps_its_range() -> None:
    net = Net(dtype=torch.float16)
    weight, p = torch.tensor(1e5), torch.tensor(1e-8)
    options: Any = {"weight": weight * 1e-3, "pos_weight": p, "reduction": "sum"}
    torch.testing.assert_close(net.loss(**options)[0], net.layers(**options)[0], rtol=1e-2, atol=0)
    assert _whole_network.as_rows(weight, net.y, (7, 2)).max() == 1e5  # type: ignore[union-attr]


def test_the_pass_raises_the_errors_of_the_layers() -> None:
    x, y, w = torch.rand(3, 2), torch.rand(3, 1), torch.rand(1, 2)
    calls: list[tuple[Any, ...]] = [
        (torch.tensor(1.0), y, [w], None),
        (x, None, [w], None),
        (x, [1.0], [w], None),
        (x, y.long(), [w], None),
        (x, y.double(), [w], None, "tanh"),
        (x.half(), y, [w.half()], None, "identity"),
        (x, y, [w, w], None),
        (x, y, [w.double()], None),
        (x, y, [w], [torch.rand(3)]),
        (x, y, [w], None, [["sigmoid"]]),
        (x, y[:2], [w], None),
        (x, y, [w], None, "sigmoid", "binary_cross_entropy", torch.rand(2)),
        (x, y, [w], None, "sigmoid", "mse", None, torch.rand(1)),
        (x, y, [w], None, "sigmoid", "mse", None, None, "median"),
    ]
    for call in calls:
        with layer_by_layer(), pytest.raises((RuntimeError, TypeError, ValueError)) as by_layers:
            F.mlp_loss(*call)
        with pytest.raises(by_layers.type) as by_pass:
            F.mlp_loss(*call)
        assert str(by_pass.value) == str(by_layers.value)


def test_a_network_without_outputs_goes_layer_by_layer() -> None:
    assert F.mlp(torch.rand(3, 2), [torch.rand(0, 2)], None).shape == (3, 0)


def test_a_target_that_requires_a_gradient_goes_layer_by_layer() -> None:
    net = Net()
    net.y.requires_grad_()
    value = net.either_way(block_rows=3)[0]
    expected = (torch.log1p(-net.layers()[1]) - torch.log(net.layers()[1])) / net.y.numel()
    assert_close(torch.autograd.grad(value, net.y)[0], expected, 1e-9)


def test_zero_rows_go_layer_by_layer() -> None:
    net = Net(rows=0)
    value, output = net.either_way(reduction="sum")
    assert value == 0
    assert output.shape == (0, 2)
    assert all(not g.any() for g in net.gradients(value))
    assert net.either_way()[0].isnan()


@every_block
def test_frozen_parameters_cost_no_product(block_rows: int) -> None:
    """The forward has one product per layer; the backward one for each trained weight and each δ that it needs."""
    passes = -(-ROWS // block_rows)
    for learning in product([True, False], repeat=7):
        net = Net()
        expected = net.gradients(net.layers()[0])
        tensors = [net.x, *net.weights, *net.biases]
        for t, learns in zip(tensors, learning, strict=True):
            assert t is not None
            t.requires_grad_(learns)
        with CountProducts() as counter:
            value = net.loss(block_rows=block_rows)[0]
            if any(learning):
                gradients = net.gradients(value)
                assert_close(gradients, tuple(g for g, w in zip(expected, learning, strict=True) if w))
        weights, biases = learning[1:4], learning[4:]
        lowest = 0 if learning[0] else next((i for i in range(3) if weights[i] or biases[i]), 3)
        products = 3 + sum(weights) + max(0, 2 - lowest) + learning[0]
        assert counter.products == passes * products, f"{counter.products} where {passes * products} do: {learning}"


def test_the_counter_sees_a_wasted_product() -> None:
    net = Net()
    with CountProducts() as counter:
        net.loss()
        torch.mm(net.weights[0].t(), net.weights[0])
    assert counter.products == 4


@every_block
def test_without_gradients_no_gradient_work_is_done(block_rows: int) -> None:
    net = Net()
    contexts: tuple[Any, ...] = (torch.no_grad, torch.inference_mode)
    for context in contexts:
        with context(), CountProducts() as counter:
            value, output = net.loss(block_rows=block_rows)
        assert counter.products == 3 * -(-ROWS // block_rows)
        assert not value.requires_grad
        assert not output.requires_grad


@every_block
def test_weights_shared_between_layers(block_rows: int) -> None:
    net = Net(sizes=[3, 3, 3, 3])
    net.weights = [net.weights[0]] * 2 + [net.weights[2]]
    net.biases = [net.biases[0]] * 3
    assert net.biases[0] is not None
    leaves = [net.x, net.weights[0], net.weights[2], net.biases[0]]
    ours = torch.autograd.grad(net.loss(block_rows=block_rows)[0], leaves)
    assert_close(ours, torch.autograd.grad(net.layers()[0], leaves))


@every_block
def test_backward_twice_accumulates_and_gives_the_same_bits(block_rows: int) -> None:
    net = Net()
    for reduction in ("mean", "none"):
        value, _ = net.loss(block_rows=block_rows, reduction=reduction)
        incoming = torch.randn_like(value)
        first = net.gradients(value, incoming, retain_graph=True)
        assert all(map(torch.equal, first, net.gradients(value, incoming, retain_graph=True)))
        again = net.gradients(net.loss(block_rows=block_rows, reduction=reduction)[0], incoming)
        assert all(map(torch.equal, first, again)), "two runs differ"
        value.backward(incoming, retain_graph=True)
        value.backward(incoming)
        for t, gradient in zip(net.leaves, first, strict=True):
            assert t.grad is not None
            assert_close(t.grad, 2 * gradient)
            t.grad = None
