"""The trace agrees with autograd for every network that can be explained, and shows a wrong backward."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchnn
from tests.explain.networks import data, dense, in_torch, network, small
from torchnn.explain import Trace, trace
from torchnn.ops.activation import ACTIVATIONS


def autograd(model: torchnn.MLP, x: Tensor, y: Tensor, loss: str, p: float | None = None) -> tuple[float, list[Tensor]]:
    """J and the gradient of every parameter from torch's own modules. The gradient of a shared bias is summed."""
    reference = in_torch(model)
    a = reference(x)
    if loss == "mse":
        value = F.mse_loss(a, y)
    else:
        value = -((1 if p is None else p) * y * a.log() + (1 - y) * (1 - a).log()).mean()
    gradients = torch.autograd.grad(value, list(reference.parameters()), allow_unused=True, materialize_grads=True)
    ours = list(model.parameters())
    return value.item(), [g.sum_to_size(own.shape) for g, own in zip(gradients, ours, strict=True)]


def gradients_of(report: Trace) -> list[Tensor]:
    return [one.by_hand for layer in report.layers for one in layer.comparisons]


@pytest.mark.parametrize("bias", [True, "shared", False])
@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh", "relu"])
@pytest.mark.parametrize(("loss", "output"), [("binary_cross_entropy", "sigmoid"), ("mse", "tanh"), ("mse", "relu")])
@pytest.mark.parametrize(("rows", "outputs"), [(1, 1), (5, 2)])
def test_every_gradient_equals_autograd(
    activation: str, bias: Any, loss: str, output: str, rows: int, outputs: int
) -> None:
    model, (x, y) = network(activation, output, bias, outputs), data(rows, outputs)
    report = trace(model, x, y, loss=loss, max_differences=40)
    value, expected = autograd(model, x, y, loss)
    assert report.value == pytest.approx(value, rel=1e-13)
    for given, right in zip(gradients_of(report), expected, strict=True):
        torch.testing.assert_close(given, right, rtol=1e-11, atol=1e-15)
    assert report.agrees
    assert all(not bool(one.differences.isnan().any()) for layer in report.layers for one in layer.comparisons)


@pytest.mark.parametrize("output", ["sigmoid", "relu"])
def test_a_positive_weight_with_and_without_a_last_sigmoid(output: str) -> None:
    model, (x, y) = network("sigmoid", output), data()
    if output == "relu":
        with torch.no_grad():
            dense(model, 2).weight.uniform_(0.1, 0.3)
            dense(model, 2).bias.fill_(0.1)
    report = trace(model, x, y, pos_weight=2.5)
    value, expected = autograd(model, x, y, "binary_cross_entropy", 2.5)
    assert report.value == pytest.approx(value, rel=1e-13)
    for given, right in zip(gradients_of(report), expected, strict=True):
        torch.testing.assert_close(given, right, rtol=1e-11, atol=1e-15)
    assert report.agrees
    assert report.layers[-1].cancellation is None
    assert math.isfinite(report.value_after) == (output == "sigmoid")  # the step leaves [0, 1]


def test_a_step_function_passes_no_error_back() -> None:
    report = trace(network("step"), *data())
    assert float(report.layers[0].grad_weight.by_hand.abs().max()) == 0
    assert report.agrees
    whole = trace(network("step", "step"), *data(), loss="mse")
    assert all(float(one.abs().max()) == 0 for one in gradients_of(whole))


def test_the_factors_multiply_to_delta_and_delta_to_the_gradients() -> None:
    model, (x, y) = network("tanh"), data()
    report = trace(model, x, y)
    last = report.layers[-1]
    factors = {one.role: one.value for one in last.factors}
    torch.testing.assert_close(factors["loss_slope"] * factors["activation_slope"], factors["delta"])
    torch.testing.assert_close(factors["delta"], last.a - y)
    assert last.cancellation is not None
    torch.testing.assert_close(last.cancellation.apart, last.delta)
    assert last.cancellation.apart_in_float32.dtype == torch.float32
    for layer, above in zip(report.layers[:-1], report.layers[1:], strict=True):
        factors = {one.role: one.value for one in layer.factors}
        torch.testing.assert_close(factors["passed_back"], above.delta @ above.weight)
        torch.testing.assert_close(factors["passed_back"] * factors["activation_slope"], layer.delta)
    for layer in report.layers:
        torch.testing.assert_close(layer.grad_weight.by_hand, layer.delta.T @ layer.a_before / len(x))


def test_shapes_are_those_of_one_example_and_do_not_fit_in_the_order_of_the_chain_rule() -> None:
    wide, narrow = trace(network(outputs=2), *data(outputs=2)), trace(network(), *data())
    first = {one.role: one.shape for one in wide.layers[0].factors}
    assert first == {
        **{"passed_back": (4, 1), "activation_slope": (4, 1), "delta": (4, 1), "weight_slope": (1, 3)},
        **{"grad_weight": (4, 3), "bias_slope": (4, 1), "grad_bias": (4, 1), "input_slope": (3, 4)},
    }
    check, lucky = wide.layers[1].dimension_check, narrow.layers[1].dimension_check
    assert check is not None
    assert lucky is not None
    assert (check.shapes, check.multiplies, check.product) == (((2, 1), (2, 2), (2, 1), (1, 4)), False, None)
    assert (lucky.multiplies, lucky.product, lucky.needed) == (True, (1, 2), (2, 1))
    assert wide.layers[-1].dimension_check is None


def test_steps_of_gradient_descent_equal_torch_sgd() -> None:
    model, (x, y) = network(), data()
    report = trace(model, x, y, lr=0.3, steps=20)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.3)
    losses = []
    for _ in range(20):
        loss = F.binary_cross_entropy(in_torch(model)(x), y)
        losses.append(loss.item())
        optimiser.zero_grad()
        model(x, y).backward()
        optimiser.step()
        if len(losses) == 1:
            torch.testing.assert_close(report.layers[1].new_weight, dense(model, 1).weight.detach())
    assert report.value_after == pytest.approx(losses[1], rel=1e-12)
    assert report.descent is not None
    assert report.descent.losses[:-1] == pytest.approx(losses, rel=1e-10)
    assert report.descent.frames[0].step == 0
    assert report.descent.frames[-1].step == 20
    assert report.descent.frames[0].surface is None  # three inputs


def test_the_surface_is_the_output_over_two_inputs() -> None:
    report = small(steps=3)
    assert report.descent is not None
    across, up, surface = report.descent.horizontal, report.descent.vertical, report.descent.frames[0].surface
    assert across is not None
    assert up is not None
    assert surface is not None
    torch.manual_seed(3)
    model = torchnn.MLP([2, 3, 1], dtype=torch.float64)
    for i, j in ((0, 5), (20, 1)):
        assert float(surface[i, j]) == pytest.approx(float(model(torch.stack([across[j], up[i]])).detach()))
    assert float(across[0]) < float(report.x[:, 0].min())
    assert float(up[-1]) > float(report.x[:, 1].max())


@pytest.mark.parametrize("kind", ["backward", "no slope"])
def test_a_wrong_backward_does_not_agree(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ACTIVATIONS["sigmoid"]
    wrong = {
        "backward": lambda g, a: right.backward(g, a) * (1 + 1e-6),  # gradcheck would accept it
        "no slope": lambda g, a: g,
    }[kind]
    monkeypatch.setitem(ACTIVATIONS, "sigmoid", right._replace(backward=wrong))
    report = small()
    assert not report.agrees
    assert [one.agrees for layer in report.layers for one in layer.comparisons] == [False, False, True, True]
    assert float(report.layers[0].grad_weight.ulp.min()) > 1e6


def test_a_sequential_has_the_same_trace_as_the_mlp() -> None:
    model, (x, y) = network("relu"), data()
    sequential = in_torch(model)
    nested = nn.Sequential(sequential[0], sequential[1], sequential[2:])
    ours = nn.Sequential(torchnn.Dense(3, 4), torchnn.ReLU(), torchnn.MLP([4, 2, 1], "relu")).double()
    joined = torchnn.convert(in_torch(model), join=True)
    values = [trace(one, x, y).value for one in (model, sequential, nested, joined)]
    assert values == pytest.approx([values[0]] * 4, rel=1e-13)
    assert [layer.activation for layer in trace(ours, x, y).layers] == ["relu", "relu", "sigmoid"]


def test_logits_and_their_loss_give_the_same_value() -> None:
    model, (x, y) = network(), data()
    logits = in_torch(model)[:-1]
    assert trace(logits, x, y, loss="binary_cross_entropy_with_logits").value == trace(model, x, y).value


def test_the_model_does_not_change() -> None:
    model, (x, y) = network(), data()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = trace(model, x, y, steps=2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not report.layers[0].weight.requires_grad
    assert report.layers[0].weight.data_ptr() != dense(model, 0).weight.data_ptr()


def test_dtype_float32() -> None:
    report = trace(network(), *data(), dtype=torch.float32)
    assert report.dtype == "float32"
    assert report.layers[0].z.dtype == torch.float32
    assert report.agrees


def test_differences_are_computed_for_the_first_elements_only() -> None:
    report = trace(torchnn.MLP([30, 20, 1]), torch.randn(30), torch.ones(1), max_differences=16)
    done = ~report.layers[0].grad_weight.differences.isnan()
    assert done[:4, :4].all()
    assert int(done.sum()) == 16
    assert report.agrees


def test_no_difference_is_computed_across_a_kink() -> None:
    """At z = 0 the derivative of relu is 0 by convention, which no difference can confirm."""
    model = torchnn.MLP([2, 3, 1], "relu", dtype=torch.float64)  # its biases are 0
    report = trace(model, torch.zeros(2), torch.ones(1))
    bias = report.layers[0].grad_bias
    assert bias is not None
    assert bias.differences.isnan().all()
    assert math.isnan(bias.relative_differences)
    assert report.agrees
    assert not report.layers[0].grad_weight.differences.isnan().any()


def test_to_dict_is_valid_json() -> None:
    report = trace(network(), *data(), columns=["age", "height", "<b>"], max_differences=4, about="a test")
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["value"] == report.value
    assert plain["columns"][2] == "<b>"
    assert plain["layers"][0]["weight"] == report.layers[0].weight.tolist()
    assert plain["layers"][0]["grad_weight"]["by_hand"] == report.layers[0].grad_weight.by_hand.tolist()
    assert plain["layers"][0]["grad_weight"]["differences"][3] == [None] * 3
    assert plain["layers"][1]["chain"].startswith("∂𝓛/∂W[2] = ∂𝓛/∂a[3] · ∂a[3]/∂z[3] · ")
    assert plain["agrees"] is True


def test_a_sum_written_out_adds_up() -> None:
    report = trace(network(), *data())
    layer = report.layers[0]
    written = layer.forward_sum(1, 2, max_terms=2)
    products = sum(left * right for left, right in written.terms)
    assert written.more == 1
    assert layer.bias is not None
    assert products + written.rest + float(layer.bias[2]) == pytest.approx(written.total) == float(layer.z[1, 2])
    back = report.layers[1].backward_sum(1, 3, max_terms=8)
    assert sum(left * right for left, right in back.terms) == pytest.approx(float(report.layers[1].grad_input[1, 3]))
    torch.testing.assert_close(layer.forward_products(1).sum(1) + layer.bias, layer.z[1])
    torch.testing.assert_close(report.layers[1].backward_products(1).sum(0), report.layers[1].grad_input[1])


class Own(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) ** 2


def hooked() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())
    model[0].register_forward_hook(lambda *_: None)
    return model


def not_finite() -> torchnn.MLP:
    model = torchnn.MLP([3, 1])
    torch.nn.init.constant_(dense(model, 0).weight, math.nan)
    return model


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.Dropout()), r"layer 1 \(Dropout\) cannot be explained"),
        (nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.GELU())), r"layer 0.1 \(GELU\)"),
        (nn.LSTM(3, 1), "LSTM cannot be explained"),
        (nn.Sequential(Own(3, 1)), r"layer 0 \(Own\)"),
        (nn.Sequential(nn.Sigmoid(), nn.Linear(3, 1)), r"layer 0 \(Sigmoid\) does not follow a linear layer"),
        (nn.Sequential(nn.Linear(3, 1), nn.Tanh(), nn.Sigmoid()), r"layer 2 \(Sigmoid\) does not follow"),
        (nn.Sequential(nn.Linear(3, 1), torchnn.Step(0.5)), "has a threshold"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 1), nn.Sigmoid()),
            "layer 2 takes 5 inputs, but the layer before it has 4 neurons",
        ),
        (nn.Sequential(nn.Identity()), "no layer to explain"),
        (hooked(), r"layer 0 \(Linear\) has hooks"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 1)), "cannot be explained|parametrised weight"),
        (nn.Sequential(nn.Linear(3, 1, dtype=torch.complex64)), "has complex weights"),
        (not_finite(), "layer 1 has weights that are infinite or NaN"),
        (nn.Sequential(nn.Linear(3, 1)), "not a probability"),
    ],
)
def test_the_error_names_the_layer_that_cannot_be_explained(model: nn.Module, says: str) -> None:
    with torch.no_grad():
        if isinstance(model, nn.Sequential) and len(model) == 1 and type(model[0]) is nn.Linear:
            model[0].bias.fill_(9)
    with pytest.raises(ValueError, match=says):
        trace(model, torch.ones(3), torch.ones(1))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"x": torch.ones(2, 4)}, r"x has shape \(2, 4\): give \(m, 3\)"),
        ({"x": torch.ones(0, 3)}, "at least one example"),
        ({"y": torch.ones(3)}, r"y has shape \(3,\): give \(5, 1\)"),
        ({"y": torch.full((5, 1), 1.5)}, r"outside \[0, 1\]"),
        ({"x": torch.full((5, 3), math.inf)}, "x contains infinite or NaN values"),
        ({"columns": ["a"]}, "there are 1 columns for 3 inputs"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"loss": "mse", "pos_weight": 2.0}, "pos_weight works with binary_cross_entropy only"),
        ({"loss": "binary_cross_entropy_with_logits"}, "needs logits, but the network ends with sigmoid"),
        ({"lr": 0.0}, "lr is 0"),
        ({"pos_weight": math.inf}, "pos_weight is inf"),
        ({"steps": -1}, "steps is -1"),
        ({"max_differences": 0}, "max_differences is 0"),
        ({"dtype": torch.float16}, "dtype is torch.float16"),
    ],
)
def test_the_error_names_the_wrong_argument(options: dict[str, Any], says: str) -> None:
    x, y = data()
    given: dict[str, Any] = {"x": x, "y": y, **options}
    with pytest.raises(ValueError, match=says):
        trace(network(), **given)
