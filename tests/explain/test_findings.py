"""Each warning appears when it should, and only then."""

import pytest
import torch
from torch import Tensor, nn

import torchnn
from tests.explain.networks import dense
from torchnn.explain import Trace, trace
from torchnn.explain.measures import dead, lost_errors, relative_norms, saturated_share


def kinds(report: Trace) -> list[tuple[str, int]]:
    return [(one.kind, one.layer) for one in report.findings]


def layers(*sizes: int, activation: str = "sigmoid", dtype: torch.dtype = torch.float64) -> torchnn.MLP:
    torch.manual_seed(1)
    return torchnn.MLP(list(sizes), activation, dtype=dtype)


def batch(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(rows, columns), (torch.arange(rows) % 2).float()


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_a_healthy_network_has_no_warnings(activation: str) -> None:
    assert kinds(trace(layers(4, 5, 1, activation=activation), *batch(20, 4))) == []


def test_a_neuron_saturated_on_all_examples_is_a_warning() -> None:
    model = layers(4, 5, 1)
    with torch.no_grad():
        dense(model, 0).bias[2] = 40.0
    report = trace(model, *batch(6, 4))
    assert kinds(report) == [("saturated", 1)]
    assert report.findings[0].neurons == (3,)
    assert "Neuron 3 of layer 1 is saturated on all 6 examples" in report.findings[0].sentence


def test_the_saturated_share_counts_examples() -> None:
    a = torch.tensor([[0.999, 0.5], [0.5, 0.5]])
    assert saturated_share(a, "sigmoid").tolist() == [0.5, 0.0]
    assert saturated_share(torch.tensor([[0.999, 0.9]]), "tanh").tolist() == [1.0, 0.0]
    assert saturated_share(torch.tensor([[0.0, 9.0]]), "relu").tolist() == [0.0, 0.0]


def test_a_dead_relu_is_a_warning_only_with_several_examples() -> None:
    model = layers(4, 5, 1, activation="relu")
    with torch.no_grad():
        dense(model, 0).bias[[0, 4]] = -50.0
    x, y = batch(6, 4)
    report = trace(model, x, y)
    assert kinds(report) == [("dead_relu", 1)]
    assert report.findings[0].neurons == (1, 5)
    assert kinds(trace(model, x[0], y[:1])) == []
    assert dead(torch.zeros(3, 1), "sigmoid").tolist() == [False]


def test_vanishing_gradients_depend_on_the_initialisation() -> None:
    """Xavier times 4 keeps the first of eight gradients above a thousandth of the last. torch's default does not."""
    model = layers(*[8] * 8, 1)
    x, y = batch(20, 8)
    assert "vanishing" not in dict(kinds(trace(model, x, y, max_differences=1)))
    model.reset_parameters("torch")
    report = trace(model, x, y, max_differences=1)
    assert ("vanishing", 1) in kinds(report)
    assert ("vanishing", 7) not in kinds(report)


def test_exploding_gradients() -> None:
    model = layers(4, 6, 6, 1, activation="identity")
    with torch.no_grad():
        dense(model, 2).weight.mul_(5e3)
        dense(model, 0).weight.mul_(1e-2)
    report = trace(model, *batch(9, 4), max_differences=1)
    assert ("exploding", 1) in kinds(report)
    assert relative_norms([torch.ones(2), torch.zeros(2)]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("dtype", "z"), [(torch.float32, 20.0), (torch.float64, 40.0)])
def test_a_saturated_loss_is_a_warning_with_the_delta_of_autograd(dtype: torch.dtype, z: float) -> None:
    linear = nn.Linear(1, 1, dtype=dtype)
    model = nn.Sequential(linear, nn.Sigmoid())
    with torch.no_grad():
        linear.weight.fill_(z)
        linear.bias.fill_(0)
    wrong = trace(model, torch.ones(1), torch.zeros(1))
    assert ("saturated_loss", 1) in kinds(wrong)
    assert "autograd computes δ = 0, but a − y is 1" in wrong.findings[0].sentence
    assert float(wrong.layers[0].grad_weight.by_hand) == pytest.approx(1)
    assert wrong.agrees
    right = trace(model, torch.ones(1), torch.ones(1))
    assert ("saturated_loss", 1) not in kinds(right)


def test_float32_loses_an_error_that_float64_keeps() -> None:
    z, y = torch.tensor([[20.0]]), torch.tensor([[0.0]])
    assert lost_errors(z, y, torch.ones(1, 1)).item()
    assert not lost_errors(z.double(), y, torch.ones(1, 1).double()).item()
