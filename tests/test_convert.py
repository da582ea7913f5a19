"""Conversion of other people's models, and back."""

import copy
from pathlib import Path

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


@pytest.mark.parametrize("theirs", OURS)
def test_every_class_is_converted_and_reverted(theirs: type[nn.Module]) -> None:
    arguments = (3, 2) if theirs is nn.Linear else ()
    module = torchnn.convert(theirs(*arguments))
    assert type(module) is OURS[theirs]
    assert repr(module).startswith(OURS[theirs].__name__)
    assert type(torchnn.revert(module)) is theirs


def test_a_subclass_is_not_converted() -> None:
    class Halved(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) / 2

    assert type(torchnn.convert(Halved(3, 2))) is Halved


def test_a_dry_run_prints_each_change_and_makes_none(capsys: pytest.CaptureFixture[str]) -> None:
    model = somebodys_model()
    assert torchnn.convert(model, dry_run=True) is model
    assert [type(m).__name__ for m in model.modules()] == [type(m).__name__ for m in somebodys_model().modules()]
    assert capsys.readouterr().out.splitlines() == [
        "0: Linear -> Dense",
        "1: ReLU -> ReLU of torchnn",
        "2.0: Linear -> Dense",
        "2.1: Tanh -> Tanh of torchnn",
        "5: Linear -> Dense",
        "6: Sigmoid -> Sigmoid of torchnn",
    ]


def test_join_computes_a_pair_in_one_node_and_revert_separates_it(capsys: pytest.CaptureFixture[str]) -> None:
    model, x = somebodys_model(), torch.randn(5, 3, dtype=torch.double)
    before, parameters, keys = outcome(model, x), list(model.parameters()), list(model.state_dict())
    torchnn.convert(model, join=True, dry_run=True)
    assert "5: Linear -> JoinedDense (sigmoid)" in capsys.readouterr().out
    torchnn.convert(model, join=True)
    assert [type(m).__name__ for m in (model[5], model[6])] == ["JoinedDense", "Joined"]
    assert "activation=sigmoid" in repr(model[5])
    output = model(x)
    assert "DenseActivationFunction" in str(output.grad_fn)
    for a, b in zip(outcome(model, x), before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == keys
    copied = copy.deepcopy(model)
    for one in (model, copied):
        torchnn.revert(one)
        assert [type(m).__name__ for m in one.modules()] == [type(m).__name__ for m in somebodys_model().modules()]
        assert not any("joined_activation" in vars(m) for m in one.modules())
        for a, b in zip(outcome(one, x), before, strict=True):
            assert torch.equal(a, b)


def test_modules_with_hooks_or_a_second_place_are_not_joined() -> None:
    shared = nn.Linear(3, 3)
    inner = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    model = nn.Sequential(shared, nn.Sigmoid(), shared, inner, nn.Linear(3, 3), nn.ReLU())
    model[4].register_forward_hook(lambda *_: None)
    inner[1].register_forward_pre_hook(lambda *_: None)
    torchnn.convert(model, join=True)
    assert not any(type(module).__name__ == "JoinedDense" for module in model.modules())


def test_a_layer_and_an_activation_with_a_module_between_them_are_not_joined() -> None:
    halved = nn.Threshold(0.1, 0.0)
    model, x = nn.Sequential(halved, nn.Linear(3, 3), halved, nn.Sigmoid()), torch.rand(4, 3)
    expected = model(x)
    torch.testing.assert_close(torchnn.convert(model, join=True)(x), expected)


def test_without_join_a_slice_of_the_model_gives_the_same_values() -> None:
    model, x = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid()), torch.randn(4, 3)
    logits = model[:-1](x)
    torchnn.convert(model)
    torch.testing.assert_close(model[:-1](x), logits)


def test_a_layer_with_a_forward_of_its_own_is_not_joined() -> None:
    model, x = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid()), torch.randn(4, 3)
    original = model[0].forward
    model[0].forward = lambda input: 2 * original(input)
    expected = model(x)
    torch.testing.assert_close(torchnn.convert(model, join=True)(x), expected)


def test_converted_modules_can_be_joined() -> None:
    model, x = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid()), torch.randn(4, 3)
    expected = model(x)
    torchnn.convert(torchnn.convert(model), join=True)
    assert [type(m).__name__ for m in model] == ["JoinedDense", "Joined"]
    torch.testing.assert_close(model(x), expected)
    assert [type(m) for m in torchnn.revert(model)] == [nn.Linear, nn.Sigmoid]


def test_a_joined_model_is_saved_and_loaded(tmp_path: Path) -> None:
    model, x = torchnn.convert(somebodys_model()[4:], join=True), torch.randn(4, 8, dtype=torch.double)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    other = somebodys_model()[4:]
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(other(x), model(x))


def test_half_of_a_joined_pair_is_not_reverted() -> None:
    model = torchnn.convert(nn.Sequential(nn.Linear(3, 2), nn.Sigmoid()), join=True)
    for half in model:
        with pytest.raises(ValueError, match="revert the Sequential that contains both halves"):
            torchnn.revert(half)
    parametrizations.weight_norm(model[0])
    with pytest.raises(ValueError, match="undo that first"):
        torchnn.revert(model)
    assert type(model[1]).__name__ == "Joined"


def test_an_argument_that_is_not_a_module_raises_a_type_error() -> None:
    for convert in (torchnn.convert, torchnn.revert):
        with pytest.raises(TypeError, match="take a module, not None"):
            convert(None)  # type: ignore[type-var]


def test_an_attribute_set_by_the_user_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid())
    vars(model[0])["activation"] = "mine"
    torchnn.revert(torchnn.convert(model, join=True))
    assert vars(model[0])["activation"] == "mine"
