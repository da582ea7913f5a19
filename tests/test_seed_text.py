"""The derivation term by term, its dimensions, and a network that is small enough for paper."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import torchnn.functional as F
from torchnn import MLP, Dense, Step
from torchnn.ops.dense import dense_backward

SIZES = [5, 4, 3, 2]  # n[0] … n[3]: three layers; the input is not one


def forward(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> list[Tensor]:
    """a[0] … a[L]."""
    activations = [x]
    for weight, bias in zip(weights, biases, strict=True):
        activations.append(F.dense_activation(activations[-1], weight, bias))
    return activations


@pytest.fixture
def network() -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Weights, biases, one example and its target, in float64."""
    pairs = list(pairwise(SIZES))
    weights = [torch.randn(m, n, dtype=torch.double, requires_grad=True) for n, m in pairs]
    biases = [torch.randn(m, dtype=torch.double, requires_grad=True) for _, m in pairs]
    return weights, biases, torch.randn(SIZES[0], dtype=torch.double), torch.rand(SIZES[-1], dtype=torch.double)


def test_the_number_of_layers_does_not_count_the_input() -> None:
    assert len(MLP([4, 5, 5, 2]).layers) == 3


def test_every_dimension_of_the_sanity_check(network: tuple[list[Tensor], list[Tensor], Tensor, Tensor]) -> None:
    weights, biases, x, y = network
    a = forward(x, weights, biases)
    n = SIZES
    assert [tuple(w.shape) for w in weights] == [(n[i + 1], n[i]) for i in range(3)]
    assert [tuple(v.shape) for v in a] == [(size,) for size in n]
    error = (a[3] - y).unsqueeze(1)  # n[L] × 1, as in the text: columns
    naive = error, weights[2]
    assert naive[0].shape == (n[3], 1)
    assert naive[1].shape == (n[3], n[2])
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        naive[0] @ naive[1]
    before_last = a[2].unsqueeze(1)
    fits = (weights[2].T @ error) * before_last * (1 - before_last)
    assert fits.shape == (n[2], 1)
    assert (fits @ a[1].unsqueeze(0)).shape == weights[1].shape


def test_the_gradients_of_the_text_equal_those_of_the_library(
    network: tuple[list[Tensor], list[Tensor], Tensor, Tensor],
) -> None:
    weights, biases, x, y = network
    loss, _ = F.mlp_loss(x, y, weights, biases, reduction="sum")
    by_library = torch.autograd.grad(loss, [*weights, *biases])

    with torch.no_grad():
        a = [v.unsqueeze(1) for v in forward(x, weights, biases)]
        delta = a[3] - y.unsqueeze(1)
        by_weight, by_bias = [delta @ a[2].T], [delta]
        for layer in (1, 0):
            delta = (weights[layer + 1].T @ delta) * a[layer + 1] * (1 - a[layer + 1])
            by_weight.insert(0, delta @ a[layer].T)
            by_bias.insert(0, delta)
    for ours, text in zip(by_library, [*by_weight, *(b.squeeze(1) for b in by_bias)], strict=True):
        torch.testing.assert_close(ours, text, rtol=1e-13, atol=1e-15)


def test_the_terms_of_the_chain_rule_one_by_one() -> None:
    """Steps 1 to 4: the second term cancels the denominator of the first."""
    z = torch.tensor([0.3, -1.2], dtype=torch.double, requires_grad=True)
    y = torch.tensor([1.0, 0.0], dtype=torch.double)
    a = F.sigmoid(z)
    (first,) = torch.autograd.grad(F.binary_cross_entropy(a, y, reduction="sum"), a, retain_graph=True)
    torch.testing.assert_close(first, -y / a + (1 - y) / (1 - a))
    (second,) = torch.autograd.grad(a.sum(), z, retain_graph=True)
    torch.testing.assert_close(second, a * (1 - a))
    torch.testing.assert_close(first * second, a - y)
    weight, previous = torch.randn(2, 3, dtype=torch.double), torch.randn(3, dtype=torch.double)
    grad_input, grad_weight, grad_bias = dense_backward(first * second, previous, weight, torch.Size([2]))
    torch.testing.assert_close(grad_weight, torch.outer(a - y, previous))
    torch.testing.assert_close(grad_input, weight.T @ (a - y))
    torch.testing.assert_close(grad_bias, a - y)


def test_many_examples_give_the_mean_of_the_gradients_of_each() -> None:
    network = MLP([3, 4, 1], dtype=torch.double)
    x, y = torch.randn(7, 3, dtype=torch.double), torch.rand(7, 1, dtype=torch.double)
    parameters = list(network.parameters())
    together = torch.autograd.grad(network.loss(x, y), parameters)
    apart = [torch.autograd.grad(network.loss(x[i], y[i]), parameters) for i in range(7)]
    for mean, each in zip(together, zip(*apart, strict=True), strict=True):
        torch.testing.assert_close(mean, torch.stack(each).mean(0))


def test_a_shared_bias_is_one_number_with_the_sum_of_all_deltas() -> None:
    layer = Dense(3, 4, bias="shared", dtype=torch.double)
    layer(torch.randn(5, 3, dtype=torch.double)).sum().backward()
    assert layer.bias.shape == (1,)
    assert layer.bias.grad is not None
    assert layer.bias.grad.item() == 5 * 4


def test_a_2_2_1_network_by_hand() -> None:
    """Every number below was computed on paper from z = W a + b, σ and δ = a − y, with round weights."""
    ln = math.log
    w1 = torch.tensor([[ln(3), 0.0], [0.0, -ln(3)]], dtype=torch.double, requires_grad=True)
    b1 = torch.tensor([0.0, ln(3)], dtype=torch.double, requires_grad=True)
    w2 = torch.tensor([[4.0, -4.0]], dtype=torch.double, requires_grad=True)
    b2 = torch.tensor([ln(3) - 1], dtype=torch.double, requires_grad=True)
    x = torch.tensor([[1.0, 1.0]], dtype=torch.double)
    # z[1] = (ln 3, 0), a[1] = (3/4, 1/2), z[2] = 3 − 2 + ln 3 − 1 = ln 3, a[2] = 3/4
    loss, output = F.mlp_loss(x, torch.zeros(1, 1, dtype=torch.double), [w1, w2], [b1, b2])
    assert output.item() == pytest.approx(3 / 4)
    assert loss.item() == pytest.approx(ln(4))  # −log(1 − 3/4)
    loss.backward()
    # δ[2] = 3/4; W[2]ᵀ δ[2] = (3, −3); δ[1] = (3 · 3/16, −3 · 1/4)
    expected = {
        "w2": (w2, [[9 / 16, 3 / 8]]),
        "b2": (b2, [3 / 4]),
        "w1": (w1, [[9 / 16, 9 / 16], [-3 / 4, -3 / 4]]),
        "b1": (b1, [9 / 16, -3 / 4]),
    }
    for name, (parameter, numbers) in expected.items():
        torch.testing.assert_close(parameter.grad, torch.tensor(numbers, dtype=torch.double), msg=name)


def test_gradient_descent_on_the_2_2_1_network_lowers_the_loss() -> None:
    network = MLP([2, 2, 1], dtype=torch.double)
    x, y = torch.randn(8, 2, dtype=torch.double), torch.rand(8, 1, dtype=torch.double).round()
    before = network.loss(x, y)
    before.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.1 * parameter.grad)
    assert network.loss(x, y) < before


def test_a_neuron_is_activated_above_its_threshold_and_not_at_it() -> None:
    assert Step(1.0)(torch.tensor([0.9, 1.0, 1.1])).tolist() == [0, 0, 1]


def test_a_skip_connection_by_composition() -> None:
    """A module around the layers can add connections that skip layers; the gradients are right."""

    class Skip(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = MLP([4, 6, 4], output_activation="tanh", dtype=torch.double)
            self.last = Dense(4, 1, dtype=torch.double)

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.last(x + self.inner(x))
            return z

    model, x = Skip(), torch.randn(5, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(model, (x,))
    assert torch.autograd.gradcheck(
        lambda *p: torch.func.functional_call(
            model, dict(zip(dict(model.named_parameters()), p, strict=True)), (x.detach(),)
        ),
        tuple(model.parameters()),
    )
