"""The whole-network pass in every setting: transforms, precision, memory, threads, devices, modules."""

import functools
import threading
from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import torchnn
import torchnn.functional as F
from tests.cases import leaf
from tests.networks import (
    HIDDEN,
    ROWS,
    SIZES,
    Net,
    assert_close,
    every_block,
    is_pass,
    layer_by_layer,
    set_block_rows,
)
from torchnn.functional import _whole_network
from torchnn.ops.network.function import NetworkFunction
from torchnn.ops.network.plan import MAX_WORKSPACE_KEPT, Plan, workspace


@every_block
@pytest.mark.parametrize("changed", ["x", "weights", "y"])
def test_a_tensor_changed_in_place_before_backward_raises(changed: str, block_rows: int) -> None:
    net = Net()
    net.x.requires_grad_(False)
    value = net.loss(block_rows=block_rows)[0]
    with torch.no_grad():
        (net.weights[1] if changed == "weights" else getattr(net, changed)).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        net.gradients(value)


@every_block
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_second_order_in_a_larger_graph(reduction: str, block_rows: int) -> None:
    """The weights depend on each other outside the pass, and a gradient penalty goes through all of them."""
    net = Net()
    y, root = net.y, leaf(3, 5)

    def penalty(**options: Any) -> tuple[Tensor, ...]:
        weights = [torch.sin(root).t() @ torch.eye(3, dtype=torch.double), *net.weights[1:]]
        x = net.x * root.sum()
        value, output = F.mlp_loss(x, y, weights, net.biases, net.activations, reduction=reduction, **options)
        total = value.square().sum() + output.prod(1).sum()
        wanted = [root, net.x, *net.weights[1:], *[b for b in net.biases if b is not None]]
        first = torch.autograd.grad(total, wanted, create_graph=True)
        return torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum() + total, wanted)

    ours = penalty(block_rows=block_rows)
    with layer_by_layer():
        theirs = penalty()
    assert_close(ours, theirs)


@every_block
def test_transforms_go_layer_by_layer_and_gradients_can_be_batched(block_rows: int) -> None:
    net = Net()
    weight = net.weights[0].detach()

    def value(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return F.mlp_loss(x, y, [w, *net.weights[1:]], net.biases, net.activations, block_rows=block_rows)[0]

    arguments = weight, net.x.detach(), net.y
    expected = torch.autograd.grad(net.layers()[0], net.weights[0])[0]
    assert_close(torch.func.grad(value)(*arguments), expected)
    per_sample = torch.func.vmap(torch.func.grad(value), (None, 0, 0))(*arguments)
    assert_close(per_sample.mean(0), expected)
    tangent = torch.randn_like(weight)
    assert_close(
        torch.func.jvp(lambda w: value(w, *arguments[1:]), (weight,), (tangent,))[1], (tangent * expected).sum()
    )
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(weight, tangent)
        assert_close(
            torch.autograd.forward_ad.unpack_dual(value(dual, *arguments[1:])).tangent, (tangent * expected).sum()
        )
    for reduction in ("mean", "none"):
        ours, theirs = net.loss(block_rows=block_rows, reduction=reduction)[0], net.layers(reduction=reduction)[0]
        incoming = torch.randn(4, *ours.shape, dtype=torch.double)
        assert_close(
            net.gradients(ours, incoming, is_grads_batched=True), net.gradients(theirs, incoming, is_grads_batched=True)
        )


def test_a_tensor_from_a_finished_transform_is_unwrapped() -> None:
    net, kept = Net(), []

    def leak(x: Tensor) -> Tensor:
        kept.append(x)
        return x.sum()

    x = net.x.detach()
    torch.func.grad(leak)(x)
    expected = torch.autograd.grad(net.layers()[0], net.weights)
    net.x = kept[0]
    assert_close(torch.autograd.grad(net.loss(block_rows=3)[0], net.weights), expected)


def test_the_loss_of_an_mlp_compiles_into_one_graph() -> None:
    torch._dynamo.reset()
    mlp = torchnn.MLP([3, 4, 1], dtype=torch.double)
    x, y = torch.randn(5, 3, dtype=torch.double), torch.rand(5, 1, dtype=torch.double)
    compiled: Any = torch.compile(mlp, fullgraph=True, backend="aot_eager")
    eager = torch.autograd.grad(mlp(x, y), list(mlp.parameters()))
    assert_close(torch.autograd.grad(compiled(x, y), list(mlp.parameters())), eager)


@every_block
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_and_autocast_keep_dtypes_and_are_close_to_the_layers(
    dtype: torch.dtype, block_rows: int
) -> None:
    for autocast, reduction in product((True, False), ("mean", "none")):
        net = Net(dtype=torch.float32 if autocast else dtype)
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            value, output = net.loss(block_rows=block_rows, reduction=reduction)
            expected, expected_output = net.layers(reduction=reduction)
            assert is_pass(value)
            ours, theirs = (net.gradients(v, torch.ones_like(v)) for v in (value, expected))
        assert (value.dtype, output.dtype) == (expected.dtype, expected_output.dtype)
        torch.testing.assert_close((value, output), (expected, expected_output), rtol=2e-2, atol=2e-2)
        for a, b, t in zip(ours, theirs, net.leaves, strict=True):
            assert a.dtype == t.dtype
            torch.testing.assert_close(a, b, rtol=5e-2, atol=5e-2)


@every_block
def test_a_grad_scaler_scales_small_float16_gradients(block_rows: int) -> None:
    """1/m of a large batch underflows in float16; the scaled gradient does not, and unscaled it is float32's."""
    net = Net(rows=700, dtype=torch.float32)
    weight = torch.full((700, 1), 1e-4)
    with torch.autocast("cpu", dtype=torch.float16):
        value = net.loss(weight=weight, block_rows=block_rows)[0] * 65536
    expected = net.gradients(net.layers(weight=weight)[0])
    for ours, theirs in zip(net.gradients(value), expected, strict=True):
        assert (ours / 65536 - theirs).norm() < 2e-2 * theirs.norm()


def test_saturated_logits_keep_their_loss_and_gradient() -> None:
    for z in (20.0, -20.0, 80.0, -80.0):
        for y in (0.0, 1.0):
            weight = torch.full((1, 1), z, requires_grad=True)
            loss, _ = F.mlp_loss(torch.ones(1, 1), torch.full((1, 1), y), [weight], None)
            loss.backward()
            wide = torch.tensor(z if y == 0 else -z, dtype=torch.double)
            assert weight.grad is not None
            slope = torch.sigmoid(wide) if y == 0 else -torch.sigmoid(wide)
            torch.testing.assert_close(loss.double(), torch.log1p(wide.exp()), rtol=1e-6, atol=0)
            torch.testing.assert_close(weight.grad.double().squeeze(), slope, rtol=1e-6, atol=0)


class LargestAllocation(TorchDispatchMode):
    """Records the largest storage that an operation allocated, in bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in (*args, *(kwargs or {}).values()) if isinstance(t, Tensor)}
        for t in result if isinstance(result, tuple | list) else [result]:
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in given:
                self.most = max(self.most, t.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("reduction", ["mean", "none", None])
def test_nothing_of_the_size_of_rows_times_width_is_allocated(
    reduction: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_block_rows(monkeypatch, 64)
    rows, width = 4096, 32

    def most_bytes(by_layers: bool) -> Any:
        net = Net(rows=rows, sizes=[3, width, width, 1])
        net.x.requires_grad_(False)
        with LargestAllocation() as allocation:
            if by_layers:
                value = net.layers()[0]
            elif reduction is None:
                value = F.mlp(net.x, net.weights, net.biases, net.activations)
            else:
                value = net.loss(reduction=reduction)[0]
            net.gradients(value, torch.ones_like(value))
        return allocation.most

    assert most_bytes(by_layers=False) == rows * 8  # the output, or a column of incoming gradients
    assert most_bytes(by_layers=True) == rows * width * 8


@pytest.mark.parametrize("block_rows", [4, 100])
def test_saved_tensor_hooks_see_every_saved_tensor(block_rows: int) -> None:
    for reduction in ("mean", "none"):
        net = Net()
        packed: list[Tensor] = []

        def pack(t: Tensor, packed: list[Tensor] = packed) -> Tensor:
            packed.append(t)
            return torch.zeros_like(t)

        honest = net.gradients(net.loss(block_rows=block_rows, reduction=reduction)[0].sum())
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            value = net.loss(block_rows=block_rows, reduction=reduction)[0]
        attributes = [t for v in vars(value.grad_fn).values() for t in (v if isinstance(v, tuple) else [v])]
        assert not [t for t in attributes if isinstance(t, Tensor)], "saved without the hooks"
        assert packed
        seen = net.gradients(value.sum())
        assert all(not torch.equal(a, b) for a, b in zip(honest[:4], seen[:4], strict=True))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(use_reentrant: bool) -> None:
    net = Net()
    value: Any = torch.utils.checkpoint.checkpoint(
        lambda x: F.mlp_loss(x, net.y, net.weights, net.biases, net.activations, block_rows=3)[0],
        net.x,
        use_reentrant=use_reentrant,
    )
    ours = torch.autograd.grad(value, net.leaves) if not use_reentrant else None
    if ours is None:
        value.backward()
        ours = tuple(t.grad for t in net.leaves if t.grad is not None)
    assert_close(ours, net.gradients(net.layers()[0]))


def test_a_workspace_is_kept_for_the_next_step_and_never_used_twice_at_once() -> None:
    net = Net()
    plan = Plan((*HIDDEN, "sigmoid"), "mse", "mean", 3, (True,) * 7)
    parameters = [*net.weights, *net.biases]
    with workspace(plan, parameters, True) as first, workspace(plan, parameters, True) as nested:
        assert nested is not first
    with workspace(plan, parameters, with_deltas=True) as again:
        assert again is first
    with workspace(plan, parameters, with_deltas=False) as other:
        assert other is not first
    huge = Plan((*HIDDEN, "sigmoid"), "mse", "mean", 10**6, (True,) * 7)
    with workspace(huge, parameters, with_deltas=True) as large:
        assert large.num_bytes > MAX_WORKSPACE_KEPT
    with workspace(huge, parameters, with_deltas=True) as large_again:
        assert large_again is not large


@every_block
def test_a_step_in_inference_mode_does_not_affect_the_next_one(block_rows: int) -> None:
    net = Net()
    with torch.inference_mode():
        net.loss(block_rows=block_rows)
    assert_close(net.gradients(net.loss(block_rows=block_rows)[0]), net.gradients(net.layers()[0]))


def test_threads_do_not_share_a_workspace() -> None:
    nets = [Net(rows=501) for _ in range(4)]
    expected = [net.gradients(net.layers()[0]) for net in nets]
    results: dict[int, tuple[Tensor, ...]] = {}

    def work(i: int) -> None:
        for _ in range(5):
            results[i] = nets[i].gradients(nets[i].either_way(block_rows=50)[0])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        assert_close(results[i], expected[i])


@every_block
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mse", None])
def test_the_whole_pass_runs_on_fake_cuda_tensors(
    loss: str | None, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sigmoid_backward", "tanh_backward"):  # torch's Python version of them needs a build with CUDA
        monkeypatch.delitem(torch._decomp.decomposition_table, getattr(torch.ops.aten, name).grad_input)
    for reduction, dtype in product(("mean", "none"), (torch.float32, torch.bfloat16, torch.float16)):
        with FakeTensorMode(), torch.no_grad():

            def cuda(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
                return torch.empty(shape, device="cuda", dtype=dtype)

            plan = Plan((*HIDDEN, "sigmoid"), loss, reduction, block_rows, (True,) * 7)
            labels = (None,) * 3 if loss is None else (cuda(ROWS, 2), cuda(ROWS, 2), None)
            parameters = [*(cuda(m, n) for n, m in pairwise(SIZES)), *map(cuda, SIZES[1:])]
            value, *outputs = NetworkFunction.forward(plan, cuda(ROWS, 3), *labels, *parameters)
            saved = cuda(ROWS, 3), *labels, *parameters, *outputs
            ctx = SimpleNamespace(
                plan=plan, saved_tensors=saved, needs_input_grad=(False, True, False, False, False, *[True] * 6)
            )
            for grad_loss, grad_output in ((value, None), (value, outputs[0]), (None, outputs[0])):
                if grad_loss is None and grad_output is None:
                    continue
                grads = NetworkFunction.backward(ctx, grad_loss, grad_output)
                for grad, t in zip((grads[1], *grads[5:]), (saved[0], *parameters), strict=True):
                    assert (grad.device.type, grad.shape, grad.dtype) == ("cuda", t.shape, t.dtype)


@pytest.mark.gpu
def test_the_pass_on_a_gpu_equals_autograd() -> None:
    net = Net(rows=3000)
    leaves = [t.detach().cuda().requires_grad_() for t in net.leaves]
    net.x, net.y, net.weights, net.biases = leaves[0], net.y.cuda(), leaves[1:4], list(leaves[4:])
    for reduction, block_rows in product(("mean", "none"), (500, None)):
        ours, theirs = net.loss(reduction=reduction, block_rows=block_rows)[0], net.layers(reduction=reduction)[0]
        incoming = torch.randn_like(ours)
        assert_close(net.gradients(ours, incoming), net.gradients(theirs, incoming), 1e-10)


@pytest.mark.parametrize("block_rows", [0, -1, 2.5, True, "many"])
def test_block_rows_must_be_a_positive_integer(block_rows: Any) -> None:
    with pytest.raises(ValueError, match=r"block_rows is .*: give a number of rows, 1 or more, or None"):
        Net().loss(block_rows=block_rows)


def test_blocks_are_even_and_of_at_least_a_thousand_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_whole_network, "cache_bytes", lambda: 32 * 2**20)
    wide, narrow = (1024, 4096, 1), (30, 16, 1)
    rows = functools.partial(_whole_network.rows_of_a_block, itemsize=4, device="cpu", waits=False)
    assert rows(5000, wide) == 1000  # five even blocks
    assert rows(3, wide) >= 3
    few, many = rows(10**5, wide), rows(10**6, narrow)
    assert few <= 1024 < many < 10**5


def test_a_backward_that_waits_saves_few_activations_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_whole_network, "cache_bytes", lambda: 32 * 2**20)

    def rows(num_rows: int, waits: bool = True) -> int:
        return _whole_network.rows_of_a_block(num_rows, (30, 64, 64, 1), 4, "cpu", waits)

    most = _whole_network.MAX_ACTIVATIONS_SAVED // (4 * 128)
    assert rows(most) == most
    assert rows(most, waits=False) < most
    assert rows(most + 1) == rows(most + 1, waits=False) < most


def test_a_remembered_plan_is_not_used_for_a_different_call() -> None:
    """Consecutive calls that differ in one thing, because the pass keeps its plans."""
    net = Net()
    for _ in range(2):
        value, output = net.loss()
        assert len(net.gradients(value)) == len(net.leaves)
        with torch.no_grad():
            assert not net.loss()[0].requires_grad
        net.weights[0].requires_grad_(False)
        assert_close(net.gradients(net.loss()[0]), net.gradients(net.layers()[0]))
        net.weights[0].requires_grad_()
        assert net.loss(reduction="sum")[0].item() == pytest.approx(output.numel() * value.item())
        assert net.loss(loss="mse")[0] != value
        with pytest.raises(ValueError, match="target"):
            F.mlp_loss(net.x, net.y[:, :1], net.weights, net.biases, net.activations)
