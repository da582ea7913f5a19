"""The whole-network pass in stages: the same numbers, and the gradients of the last layers come first."""

from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

import torchnn
from tests.networks import Net, assert_close, is_pass, layer_by_layer
from torchnn.functional import _stages, network
from torchnn.functional._stages import exchanges_gradients, in_stages, stages_of
from torchnn.ops.network.function import NetworkFunction


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Act as one of several processes, with one stage per layer; record whether each call went in stages."""
    taken: list[bool] = []

    def noted(*args: Any) -> Any:
        result = in_stages(*args)
        taken.append(result is not None)
        return result

    monkeypatch.setattr(_stages, "STAGE_BYTES", 1)
    monkeypatch.setattr(network, "exchanges_gradients", lambda: True)
    monkeypatch.setattr(network, "in_stages", noted)
    return taken


def layers(net: Net, **options: Any) -> tuple[Tensor, Tensor]:
    """The same in a single process, layer by layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "exchanges_gradients", lambda: False)
        return net.layers(**options)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("last", ["sigmoid", "identity"])
def test_stages_give_loss_output_and_gradients_of_the_layers(last: str, reduction: str, stages: list[bool]) -> None:
    net = Net(last)
    for weight, p in ((None, None), (torch.rand(7, 1), torch.tensor([0.5, 3.0]))):
        options: Any = {"loss": "mse" if last == "identity" else "binary_cross_entropy", "reduction": reduction}
        options |= {"weight": weight, "pos_weight": p if last == "sigmoid" else None}
        ours = net.either_way(**options)
        theirs = layers(net, **options)
        assert_close(ours, theirs)
        incoming = torch.randn_like(ours[0])
        retained = net.gradients(ours[0], incoming, retain_graph=True)
        assert_close(retained, net.gradients(theirs[0], incoming, retain_graph=True))
        of_both = [value.sum() + output.square().sum() for value, output in (ours, theirs)]
        assert_close(net.gradients(of_both[0]), net.gradients(of_both[1]))
    assert stages == [True, True]


@pytest.mark.parametrize("bias", [None, torch.zeros(1, dtype=torch.double)])
def test_any_bias_and_frozen_layers(bias: Tensor | None, stages: list[bool]) -> None:
    net = Net()
    net.biases = [None if bias is None else bias.clone().requires_grad_() for _ in net.biases]
    net.weights[0].requires_grad_(False)
    net.x.requires_grad_(False)
    assert_close(net.gradients(net.either_way()[0]), net.gradients(layers(net)[0]))
    assert stages == [True]


def test_the_second_order_goes_through_stages(stages: list[bool]) -> None:
    net, seconds = Net(), []
    for value in (net.either_way()[0], layers(net)[0]):
        first = net.gradients(value, create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in first), net.leaves, allow_unused=True))  # type: ignore[arg-type]
    assert_close(seconds[0], seconds[1], 1e-10)
    assert stages == [True]


def arrivals(mlp: nn.Module) -> list[str]:
    """The order of two events: the backward reaches the first layers, and the last layer's gradient is computed."""
    order: list[str] = []
    *_, first = [p for name, p in mlp.named_parameters() if name == "layers.0.weight"]
    *_, last = [p for name, p in mlp.named_parameters() if name == "layers.2.weight"]
    backward = NetworkFunction.backward

    def noted(ctx: Any, *grads: Any) -> Any:
        order.append(f"backward of {ctx.plan.num_layers} layers")
        return backward(ctx, *grads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NetworkFunction, "backward", staticmethod(noted))
        for name, parameter in (("first", first), ("last", last)):
            parameter.register_post_accumulate_grad_hook(lambda _, name=name: order.append(name))
        mlp(torch.rand(5, 3), torch.rand(5, 1)).backward()
    return order


def test_the_last_layers_gradients_come_before_the_first_layers_backward(stages: list[bool]) -> None:
    order = arrivals(torchnn.MLP([3, 4, 5, 1]))
    assert order.index("last") == 1
    assert order[-2:] == ["backward of 1 layers", "first"]


def test_without_stages_all_gradients_come_at_the_end() -> None:
    """Control for the test above."""
    order = arrivals(torchnn.MLP([3, 4, 5, 1]))
    assert order[0] == "backward of 3 layers"
    assert {"first", "last"} == set(order[1:])


def test_more_rows_than_a_block_and_small_networks_use_no_stages(stages: list[bool]) -> None:
    net = Net()
    assert is_pass(net.loss(block_rows=3)[0])
    net.either_way(block_rows=7)
    with torch.no_grad():
        net.either_way()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_stages, "STAGE_BYTES", 2**20)
        net.either_way()
    assert stages == [False, True, False, False]


def test_a_single_process_exchanges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not exchanges_gradients()
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    assert exchanges_gradients()
    monkeypatch.setattr(distributed, "get_world_size", lambda: 1)
    assert not exchanges_gradients()


def test_stages_raise_the_errors_of_the_layers(stages: list[bool]) -> None:
    x, y, w = torch.rand(3, 2), torch.rand(3, 1), torch.rand(2, 2)
    calls: list[tuple[Any, ...]] = [
        (x, y, [w, torch.rand(1, 3)], None),
        (x, y[:2], [w, w[:1]], None),
        (x, None, [w, w[:1]], None),
        (x, y.long(), [w, w[:1]], None),
        (x, y, [w, w[:1]], None, "sigmoid", "mse", None, None, "median"),
    ]
    for call in calls:
        with layer_by_layer(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(network, "exchanges_gradients", lambda: False)
            with pytest.raises((RuntimeError, TypeError, ValueError)) as by_layers:
                network.mlp_loss(*call)
        with pytest.raises(by_layers.type) as by_stages:
            network.mlp_loss(*call)
        assert str(by_stages.value) == str(by_layers.value)


def test_stages_have_the_bytes_of_a_bucket() -> None:
    mib = 2**20
    assert stages_of([mib, mib, mib]) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert stages_of([8, 3 * mib, mib // 2, mib // 2, 4]) == [slice(0, 1), slice(1, 2), slice(2, 5)]
    assert stages_of([8, 8]) == [slice(0, 2)]
