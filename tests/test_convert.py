"""Conversion of other people's models, and back."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import torchnn
from torchnn.convert import OURS


def somebodys_model() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Sequential(nn.Linear(8, 8, bias=False), nn.Tanh()), nn.Dropout(0.0),
        parametrizations.weight_norm(nn.Linear(8, 4)), nn.Linear(4, 1), nn.Sigmoid(),
    ).double()  # fmt: skip


def outcome(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and the gradient of the input and of each parameter."""
    x = x.clone().requires_grad_()
    output = model(x)
    return [output, *torch.autograd.grad(output.square().sum(), [x, *model.parameters()])]


def test_values_and_gradients_stay_and_so_does_everything_else() -> None:
    model, x = somebodys_model(), torch.randn(5, 3, dtype=torch.double)
    model[0].requires_grad_(True).register_forward_hook(lambda module, _, output: output * 2)
    model[5].eval()
    before, modules, parameters = outcome(model, x), list(model.modules()), list(model.parameters())
    state, optimiser = copy.deepcopy(model.state_dict()), torch.optim.SGD(model.parameters(), 0.1)

    assert torchnn.convert(model) is model
    assert [type(m).__name__ for m in model] == [
        *("Dense", "ReLU", "Sequential", "Dropout", "ParametrizedLinear", "Dense", "Sigmoid"),
    ]
    assert isinstance(model[2][0], torchnn.Dense)  # type: ignore[index]
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(a is b for a, b in zip(optimiser.param_groups[0]["params"], parameters, strict=True))
    assert model.state_dict().keys() == state.keys()
    assert not model[5].training
    after = outcome(model, x)
    assert "DenseFunction" in str(model[5](torch.ones(1, 4, dtype=torch.double)).grad_fn)
    for a, b in zip(after, before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)

    torchnn.revert(model)
    assert [type(m).__name__ for m in model.modules()] == [type(m).__name__ for m in somebodys_model().modules()]
    for a, b in zip(outcome(model, x), before, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("twin", OURS)
def test_every_twin_is_converted_and_reverted(twin: type[nn.Module]) -> None:
    arguments = (3, 2) if twin is nn.Linear else ()
    module = torchnn.convert(twin(*arguments))
    assert type(module) is OURS[twin]
    assert repr(module).startswith(OURS[twin].__name__)
    assert type(torchnn.revert(module)) is twin


def test_a_subclass_is_left_alone() -> None:
    class Halved(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) / 2

    assert type(torchnn.convert(Halved(3, 2))) is Halved
