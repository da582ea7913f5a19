"""The experiment full_batch: how passes, seconds and memory are counted, and what is compared."""

from typing import Any

import pytest
import torch

import torchnn
from experiments.common.command import HARMLESS, Run
from experiments.common.memory import ExtraMemory, is_measurable
from experiments.common.training import data_module
from experiments.full_batch.experiment import curves, seconds_to
from experiments.full_batch.training import DEFAULT, DESCENT, LBFGS, WAYS, ByAutograd, classifier
from torchnn.training import TabularDataModule

from .stand_ins import NUM_FLIGHTS, flights

MIB = 2**20
pytestmark = pytest.mark.filterwarnings(*(f"ignore:{message}" for message in HARMLESS))


@pytest.fixture(scope="module")
def data() -> TabularDataModule:
    return data_module(flights(), flights().table)


@pytest.fixture(scope="module")
def points(data: TabularDataModule) -> list[dict[str, Any]]:
    return curves(Run({}, lambda text: None), data, passes=24)


def of(points: list[dict[str, Any]], way: str) -> list[dict[str, Any]]:
    return [point for point in points if point["way"] == way]


def test_all_ways_start_at_the_same_loss_and_learn(points: list[dict[str, Any]]) -> None:
    assert len({of(points, way)[0]["loss"] for way in WAYS}) == 1
    for way in WAYS:
        found = of(points, way)
        assert float(found[-1]["loss"]) < float(found[0]["loss"])
        seconds = [float(point["seconds"]) for point in found]
        assert seconds == sorted(seconds)
        assert seconds[0] == 0


def test_every_gradient_of_all_rows_counts_as_a_pass(points: list[dict[str, Any]]) -> None:
    assert [float(point["passes"]) for point in of(points, DESCENT)] == list(range(0, 26, 2))
    assert float(of(points, DEFAULT)[-1]["passes"]) == 24
    of_lbfgs = [float(point["passes"]) for point in of(points, LBFGS)]
    assert 24 <= of_lbfgs[-1] < 24 + 13  # a step has ten iterations with line searches
    assert len(of_lbfgs) < 5


def test_gradient_descent_in_one_batch_uses_the_whole_table(
    data: TabularDataModule, points: list[dict[str, Any]]
) -> None:
    model: Any = classifier(data, WAYS[DESCENT])
    optimiser = torch.optim.SGD(model.parameters(), lr=WAYS[DESCENT].lr)
    x, y = data.table.features, data.table.target[:, None]
    assert len(x) == NUM_FLIGHTS
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        loss = model.network(model.preprocess(x), y)
        losses.append(float(loss.detach()))
        loss.backward()
        optimiser.step()
    found = [float(point["loss"]) for point in of(points, DESCENT)]
    assert found[:3] == pytest.approx(losses[::2], abs=2e-4)


def test_the_autograd_version_gives_the_same_loss_and_gradients() -> None:
    network = torchnn.MLP([4, 6, 1]).double()
    reference = ByAutograd(network).double()
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.rand(20, 1, dtype=torch.float64)
    parameters = list(network.parameters())
    torch.testing.assert_close(reference(x, y, None, None, loss="binary_cross_entropy"), network(x, y))
    ours, theirs = (torch.autograd.grad(one(x, y), parameters) for one in (network, reference))
    torch.testing.assert_close(ours, theirs)


def test_the_time_to_a_loss_is_that_of_the_first_point_at_or_below_it() -> None:
    rows = [{"way": "a", "seconds": str(s), "loss": str(loss)} for s, loss in ((0, 0.9), (1, 0.5), (2, 0.6), (3, 0.4))]
    assert seconds_to({"loss": rows}, "a", 0.5) == 1
    assert seconds_to({"loss": rows}, "a", 0.3) is None


@pytest.mark.skipif(not is_measurable(torch.device("cpu")), reason="this system does not report peak memory")
def test_extra_memory_includes_memory_that_was_released_again() -> None:
    earlier = torch.ones(64 * MIB // 4)
    del earlier
    memory = ExtraMemory(torch.device("cpu"))
    assert memory.bytes < 16 * MIB
    taken = torch.ones(64 * MIB // 4)
    del taken
    assert 60 * MIB < memory.bytes < 80 * MIB
