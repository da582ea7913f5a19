"""The experiment of 1988: divisions, presentations, and networks that train independently of each other."""

import pytest
import torch

import torchnn
from experiments.common.command import Run
from experiments.common.many import random_parameters
from experiments.gorman_1988.experiment import between_sets, mean_and_deviation
from experiments.gorman_1988.networks import (
    INITIAL,
    MARGIN,
    RATE,
    Presentations,
    SonarNetworks,
    balanced_halves,
    thirteen_sets,
)

ROWS, FEATURES = 12, 3


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ROWS, FEATURES, generator=generator)
    return x, x[:, 0] > 0.5


def cut(parameters: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    """The same network without the surplus neurons."""
    return {
        "layers.0.weight": parameters["layers.0.weight"][:number],
        "layers.0.bias": parameters["layers.0.bias"][:number],
        "layers.1.weight": parameters["layers.1.weight"][:, :number],
        "layers.1.bias": parameters["layers.1.bias"],
    }


@pytest.mark.parametrize(("rows_of_update", "sweeps"), [(1, 12), (4, 60)])
def test_a_network_among_others_trains_as_it_would_by_itself_without_surplus_neurons(
    rows_of_update: int, sweeps: int
) -> None:
    """Compared with torch's own layers, where an error below 0.2 is set to 0."""
    x, is_cylinder = problem()
    train = torch.stack([torch.arange(8), torch.arange(4, 12)])
    presentations = Presentations(x, is_cylinder, train, sweeps, rows_of_update)
    module = SonarNetworks(FEATURES, (2, 5), seeds=[7, 8])
    Run({}, lambda text: None).trainer(max_epochs=1).fit(module, presentations)

    network, run, number = torchnn.MLP([FEATURES, 5, 2]), 1, 2
    wanted = cut(random_parameters(network, torch.Generator().manual_seed(8), INITIAL), number)
    ignored = 0
    for patterns, targets in presentations:
        for one in wanted.values():
            one.requires_grad_()
        hidden = torch.sigmoid(patterns[run] @ wanted["layers.0.weight"].T + wanted["layers.0.bias"])
        output = torch.sigmoid(hidden @ wanted["layers.1.weight"].T + wanted["layers.1.bias"])
        error = output - targets[run]
        ignored += int((error.detach().abs() < MARGIN).sum())
        loss = 0.5 * torch.where(error.abs() < MARGIN, 0.0, error).square().sum() / rows_of_update
        gradients = torch.autograd.grad(loss, list(wanted.values()))
        wanted = {
            name: (one - RATE * gradient).detach()
            for (name, one), gradient in zip(wanted.items(), gradients, strict=True)
        }
    of_two_neurons = {name: stacked[run].detach() for name, stacked in module.parameters_by_name().items()}
    assert ignored > 0
    torch.testing.assert_close(cut(of_two_neurons, number), wanted, atol=1e-4, rtol=1e-4)
    assert (of_two_neurons["layers.0.bias"][number:] == -torch.inf).all()


def test_a_row_is_classified_by_its_larger_output() -> None:
    x, is_cylinder = problem()
    module = SonarNetworks(FEATURES, (0,), seeds=[0, 1, 2])
    outputs = module(x)
    expected = (outputs[..., 0] > outputs[..., 1]) == is_cylinder
    assert torch.equal(module.right(x, is_cylinder), expected[None])


def test_every_sweep_shows_each_run_all_of_its_rows_once() -> None:
    x, is_cylinder = torch.arange(10.0)[:, None], torch.arange(10) < 5
    train = torch.stack([torch.arange(7), torch.arange(3, 10)])
    presentations = Presentations(x, is_cylinder, train, 2, 3)
    steps = list(presentations)
    assert len(steps) == len(presentations) == 6
    orders = []
    for sweep in (steps[:3], steps[3:]):
        seen = torch.cat([patterns for patterns, _ in sweep], dim=1).squeeze(2)
        assert torch.equal(seen.sort(dim=1).values.long(), train)
        orders.append(seen)
    assert not torch.equal(*orders)
    for patterns, targets in steps:
        assert torch.equal(targets[..., 0] == 1, patterns.squeeze(2) < 5)
        assert torch.equal(targets.sum(-1), torch.ones(targets.shape[:2]))


def test_every_echo_is_held_out_in_one_of_thirteen_sets() -> None:
    train, test = thirteen_sets(208, 13)
    assert train.shape == (13, 192)
    assert test.flatten().sort().values.tolist() == list(range(208))
    for of_train, of_test in zip(train, test, strict=True):
        assert torch.cat([of_train, of_test]).sort().values.tolist() == list(range(208))


def test_similar_echoes_are_divided_between_the_halves() -> None:
    far_apart = torch.tensor([[0.0], [10.0], [30.0], [70.0]])
    x = torch.cat([far_apart, far_apart + 0.1])
    train, test = balanced_halves(x)
    assert torch.cat([train, test], dim=1).sort().values.tolist() == [list(range(8))]
    assert sorted(row % 4 for row in train[0].tolist()) == [0, 1, 2, 3]


def test_standard_deviations_of_runs_and_of_sets() -> None:
    found = ((0, 60), (0, 80), (1, 90), (1, 90))
    rows = [{"held_out_set": str(held_out_set), "test": str(value)} for held_out_set, value in found]
    mean, deviation = mean_and_deviation(rows, "test")
    assert (mean, round(deviation, 3)) == (80, 14.142)
    assert between_sets(rows) == pytest.approx(14.142, abs=1e-3)
