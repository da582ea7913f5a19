"""Modules behave as torch.nn's: constructors, state, repr, copies, parametrisations, export."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import torchnn
from tests import checks
from tests.reference import sequential


def test_dense_is_a_linear_with_its_initialisation() -> None:
    torch.manual_seed(1)
    theirs = nn.Linear(3, 4)
    torch.manual_seed(1)
    ours = torchnn.Dense(3, 4)
    assert isinstance(ours, nn.Linear)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: torchnn.Dense(3, 2), "Dense(in_features=3, out_features=2, bias=True)"),
        (lambda: torchnn.Dense(3, 2, bias="shared"), "Dense(in_features=3, out_features=2, bias=shared)"),
        (
            lambda: torchnn.DenseActivation(3, 2, "relu", bias=False),
            "DenseActivation(in_features=3, out_features=2, activation=relu, bias=False)",
        ),
        (
            lambda: torchnn.DenseSigmoid(3, 2),
            "DenseSigmoid(in_features=3, out_features=2, activation=sigmoid, bias=True)",
        ),
        (lambda: torchnn.Step(0.5), "Step(threshold=0.5)"),
        (lambda: torchnn.Sigmoid(), "Sigmoid()"),
    ],
)
def test_repr_says_what_was_constructed(make: Callable[[], nn.Module], text: str) -> None:
    assert repr(make()) == text


@pytest.mark.parametrize("bias", [True, "shared", False])
@pytest.mark.parametrize("make", [torchnn.Dense, torchnn.DenseSigmoid])
def test_state_survives_pickle_copy_meta_and_dtype(make: Callable[..., nn.Module], bias: bool | str) -> None:
    module, x = make(3, 4, bias=bias), torch.randn(5, 3)
    expected = module(x)
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), expected)
    assert torch.equal(copy.deepcopy(module)(x), expected)
    on_meta = make(3, 4, bias=bias, device="meta").to_empty(device="cpu")
    on_meta.load_state_dict(module.state_dict())
    assert torch.equal(on_meta(x), expected)
    assert module.to(torch.double)(x.double()).dtype == torch.double
    assert make(3, 4, bias=bias, dtype=torch.double)(x.double()).dtype == torch.double


def test_bias_is_a_known_name_or_a_truth_value() -> None:
    with pytest.raises(ValueError, match="bias is 'none': choose True"):
        torchnn.Dense(3, 4, bias="none")  # type: ignore[arg-type]
    assert torchnn.Dense(3, 4, bias=0).bias is None  # type: ignore[arg-type]


def test_parametrisations_reach_the_backward() -> None:
    module = nn.utils.parametrizations.weight_norm(torchnn.Dense(3, 4, dtype=torch.double))
    x = torch.randn(5, 3, dtype=torch.double)
    module(x).square().sum().backward()
    grads = [p.grad for p in module.parameters()]
    assert len(grads) == 3
    assert all(g is not None and bool(g.any()) for g in grads)


def test_pruning_and_hooks_of_every_layer_work_in_the_loss_too() -> None:
    """A pre-hook computes the weight; a loss that reads parameters without running it would use an old one."""
    network = torchnn.MLP([3, 4, 1])
    for layer in network.layers:
        prune.random_unstructured(layer, "weight", 0.5)
    x, y = torch.randn(5, 3), torch.rand(5, 1)
    for _ in range(2):  # a stale graph would fail the second time
        network.zero_grad()
        network.loss(x, y).backward()
        for layer in network.layers:
            assert not layer.weight_orig.grad[layer.weight_mask == 0].any()  # type: ignore[index]


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_forward_hook_of_the_last_layer_changes_the_loss_as_it_changes_the_output(everywhere: bool) -> None:
    network, x, y = torchnn.MLP([3, 4, 1]), torch.randn(5, 3), torch.rand(5, 1)
    if everywhere:
        handle = nn.modules.module.register_module_forward_hook(lambda module, _, output: output * 0.5)
    else:
        handle = network.layers[-1].register_forward_hook(lambda module, _, output: output * 0.5)
    expected = nn.functional.binary_cross_entropy(network(x), y)
    if not everywhere:  # a global hook changes the loss of the whole network too
        torch.testing.assert_close(network(x, y), expected)
    else:
        torch.testing.assert_close(network(x, y), 0.5 * nn.functional.binary_cross_entropy(2 * network(x), y))
    handle.remove()


class Doubled(torchnn.DenseActivation):
    """A user's own layer."""

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(input) / 2


@pytest.mark.parametrize("last", [Doubled(4, 1), nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())])
def test_a_last_layer_of_another_kind_gives_the_probability(last: nn.Module) -> None:
    network, x, y = torchnn.MLP([3, 4, 1]), torch.randn(5, 3), torch.rand(5, 1)
    network.layers[-1] = last
    torch.testing.assert_close(network(x, y), nn.functional.binary_cross_entropy(network(x), y))


@pytest.mark.parametrize("option", [{"reduction": "sum"}, {"loss": "mse"}, {"return_output": True}])
def test_options_of_a_loss_need_a_target(option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="are used only with a target: give a target"):
        torchnn.MLP([3, 1])(torch.randn(2, 3), **option)


@pytest.mark.parametrize("activation", ["identity", "step"])
def test_an_activation_whose_slope_needs_no_output_lets_it_be_changed_in_place(activation: str) -> None:
    layer, x = torchnn.DenseActivation(3, 4, activation), torch.randn(5, 3)
    layer(x).relu_().sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("strict", [True, False])
def test_a_network_and_its_loss_export(strict: bool) -> None:
    network, x, y = torchnn.MLP([3, 4, 1], activation="tanh"), torch.randn(5, 3), torch.rand(5, 1)
    for inputs in ((x,), (x, y)):
        exported = torch.export.export(network, inputs, strict=strict)
        torch.testing.assert_close(exported.module()(*inputs), network(*inputs))


def test_torch_fx_traces_layers_losses_and_networks_as_calls() -> None:
    x, y = torch.randn(5, 3), torch.rand(5, 1)
    layers = nn.Sequential(torchnn.Dense(3, 4), torchnn.Tanh(), torchnn.DenseSigmoid(4, 1))
    traced = torch.fx.symbolic_trace(layers)
    assert torch.equal(traced(x), layers(x))
    assert [node.target.__name__ for node in traced.graph.nodes if node.op == "call_function"] == [
        *("dense", "tanh", "dense_activation"),
    ]
    assert torch.equal(torch.fx.symbolic_trace(torchnn.BCELoss())(layers(x), y), torchnn.BCELoss()(layers(x), y))
    network = torchnn.MLP([3, 4, 1])
    no_loss = {"target": None, "weight": None, "pos_weight": None, "reduction": "mean"}
    no_loss |= {"loss": "binary_cross_entropy", "return_output": False}  # type: ignore[dict-item]
    assert torch.equal(torch.fx.symbolic_trace(network, concrete_args=no_loss)(x, *no_loss.values()), network(x))


def test_relu_in_place_writes_where_torch_writes() -> None:
    x = torch.randn(5, requires_grad=True)
    ours, theirs = x * 1, x * 1
    assert torchnn.ReLU(inplace=True)(ours) is ours
    nn.ReLU(inplace=True)(theirs)
    assert torch.equal(ours, theirs)
    assert torch.equal(*(torch.autograd.grad(t.sum(), x)[0] for t in (ours, theirs)))


def test_modules_work_under_autocast_after_a_deepcopy() -> None:
    module = torchnn.DenseSigmoid(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = copy.deepcopy(module)(torch.randn(5, 3))
    assert output.dtype == torch.bfloat16


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "identity"])
def test_an_mlp_is_the_sequential_of_its_layers(activation: str) -> None:
    sizes = [3, 5, 4, 2]
    ours = torchnn.MLP(sizes, activation).double()
    theirs = sequential(sizes, activation).double()
    load_into(theirs, ours)
    x, y = torch.randn(6, 3, dtype=torch.double), torch.rand(6, 2, dtype=torch.double)
    weight, pos_weight = torch.rand(6, 1, dtype=torch.double), torch.tensor([2.0, 0.5], dtype=torch.double)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-13, atol=1e-15)
    logits = theirs[:-1](x)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, y, weight, pos_weight=pos_weight)
    ours_loss = ours(x, y, weight, pos_weight)
    torch.testing.assert_close(ours_loss, loss, rtol=1e-13, atol=1e-15)
    pairs = zip(
        torch.autograd.grad(ours_loss, list(ours.parameters())),
        torch.autograd.grad(loss, list(theirs.parameters())),
        strict=True,
    )
    for a, b in pairs:
        checks.close(a, b, "gradient")


def load_into(theirs: nn.Module, ours: nn.Module) -> None:
    """Copy parameters by order, which is the same in both."""
    with torch.no_grad():
        for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
            a.copy_(b)


@pytest.mark.parametrize("optimiser", ["SGD", "AdamW"])
def test_fifty_steps_of_training_end_with_the_weights_of_autograd(optimiser: str) -> None:
    ours, theirs = torchnn.MLP([4, 8, 6, 1]).double(), sequential([4, 8, 6, 1]).double()
    load_into(theirs, ours)
    x, y = torch.randn(200, 4, dtype=torch.double), torch.rand(200, 1, dtype=torch.double).round()
    optimisers = [getattr(torch.optim, optimiser)(model.parameters(), lr=0.05) for model in (ours, theirs)]
    loss_of_twin = nn.BCELoss()
    for step in range(50):
        rows = slice(step * 4, step * 4 + 4)
        for optim, loss in zip(
            optimisers, (ours.loss(x[rows], y[rows]), loss_of_twin(theirs(x[rows]), y[rows])), strict=True
        ):
            optim.zero_grad()
            loss.backward()
            optim.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([3],), "at least the number of features and of outputs"),
        (([3, 0, 1],), r"sizes\[1\] is 0"),
        (([3, -3, 1],), r"sizes\[1\] is -3"),
        (([3, 2.0, 1],), r"sizes\[1\] is 2.0"),
        (([3, 4, 1], "softmax"), "activation is 'softmax'"),
        (([3, 4, 1], ["relu", "relu", "relu"]), "3 activations for 2 layers"),
        (([3, 4, 1], ["relu", "sigmoid"], "tanh"), "the list ends with 'sigmoid', but output_activation is 'tanh'"),
    ],
)
def test_impossible_arguments_of_a_network_raise_a_value_error_that_says_why(
    arguments: tuple[object, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        torchnn.MLP(*arguments)  # type: ignore[arg-type]


def test_activations_are_one_name_or_one_per_layer() -> None:
    assert torchnn.MLP([3, 4, 4, 1], "relu").activations == ["relu", "relu", "sigmoid"]
    assert torchnn.MLP([3, 4, 4, 1], ["relu", "tanh"]).activations == ["relu", "tanh", "sigmoid"]
    assert torchnn.MLP([3, 4, 1], ["relu", "identity"]).activations == ["relu", "identity"]


def test_squared_error_and_a_linear_output_are_linear_regression() -> None:
    network = torchnn.MLP([3, 1], output_activation="identity", dtype=torch.double)
    x, y, w = (torch.randn(6, n, dtype=torch.double) for n in (3, 1, 1))
    loss = network(x, y, w, loss="mse")
    torch.testing.assert_close(loss, (w * (network(x) - y) ** 2).mean())
    with pytest.raises(ValueError, match="pos_weight belongs to binary_cross_entropy"):
        network.loss(x, y, pos_weight=w[0], loss="mse")


def test_loss_is_the_forward_with_a_target_and_hooks_of_the_network_see_it() -> None:
    network, seen = torchnn.MLP([3, 4, 1]), []
    network.register_forward_hook(lambda *_: seen.append(1))
    x, y = torch.randn(5, 3), torch.rand(5, 1)
    assert torch.equal(network.loss(x, y), network(x, y))
    assert len(seen) == 2


def test_the_initialisation_follows_the_activation() -> None:
    bounds = {"sigmoid": 4 * (6 / 150) ** 0.5, "tanh": (6 / 150) ** 0.5, "relu": (6 / 100) ** 0.5}
    for activation, bound in bounds.items():
        layer = torchnn.DenseActivation(100, 50, activation)
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert not layer.bias.any()


def first_to_last(scheme: str) -> float:
    """Median over seeds of ‖∂W[1]‖ / ‖∂W[8]‖ in 8 sigmoid layers of 64, 256 normal rows, binary cross-entropy."""
    ratios = []
    for seed in range(20):
        torch.manual_seed(seed)
        network = torchnn.MLP([64] * 8 + [1])
        network.reset_parameters(scheme)
        network.loss(torch.randn(256, 64), torch.rand(256, 1).round()).backward()
        first, last = (network.layers[i].weight.grad for i in (0, -1))
        ratios.append(float(first.norm() / last.norm()))  # type: ignore[operator, union-attr]
    return float(torch.tensor(ratios).median())


def test_the_initialisation_lets_gradients_reach_the_first_of_eight_layers() -> None:
    ratio = {scheme: first_to_last(scheme) for scheme in ("by_activation", "xavier", "torch")}
    assert ratio["by_activation"] == pytest.approx(7e-3, rel=0.3)
    assert ratio["xavier"] == pytest.approx(2e-5, rel=0.5)
    assert ratio["torch"] == pytest.approx(1e-6, rel=0.5)


def per_sample_gradients(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    parameters = {name: p.detach() for name, p in network.named_parameters()}

    def loss(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return torch.func.functional_call(network, p, (x, y))  # type: ignore[no-any-return]

    return torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, y)  # type: ignore[no-any-return]


def test_per_sample_gradients_of_a_network() -> None:
    network = torchnn.MLP([3, 4, 1], dtype=torch.double)
    x, y = torch.randn(5, 3, dtype=torch.double), torch.rand(5, 1, dtype=torch.double)
    together = per_sample_gradients(network, x, y)
    for row in range(5):
        alone = torch.autograd.grad(network.loss(x[row], y[row]), list(network.parameters()))
        for grads, grad in zip(together.values(), alone, strict=True):
            checks.close(grads[row], grad, "per-sample gradient")
