"""Shapes, kinks, saturation, complex numbers and devices at the limits of what an operation accepts."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

import torchnn.functional as F
from tests import checks, reference
from tests.cases import INPUT_SHAPES, SPECIAL_VALUES, leaf
from torchnn.ops import activation, dense, dense_activation, loss


@pytest.mark.parametrize("shape", INPUT_SHAPES)
@pytest.mark.parametrize("bias_shape", [(4,), (1,), (), None])
def test_dense_accepts_any_leading_shape(shape: tuple[int, ...], bias_shape: tuple[int, ...] | None) -> None:
    tensors = [leaf(*shape), leaf(4, 3)] + ([] if bias_shape is None else [leaf(*bias_shape)])
    checks.check_value_and_gradients(F.dense, functional.linear, tensors)
    checks.check_laws(F.dense, functional.linear, tensors, only=["raw_gradients"])


@pytest.mark.parametrize("shape", INPUT_SHAPES)
@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_dense_activation_accepts_any_leading_shape(shape: tuple[int, ...], name: str) -> None:
    tensors = [leaf(*shape), leaf(4, 3), leaf(4)]
    checks.check_value_and_gradients(
        lambda x, w, b: F.dense_activation(x, w, b, name),
        lambda x, w, b: reference.dense_activation(x, w, b, name),
        tensors,
    )


@pytest.mark.parametrize(("in_features", "out_features"), [(0, 4), (3, 0), (0, 0), (1, 1)])
def test_layers_without_features_or_neurons(in_features: int, out_features: int) -> None:
    tensors = [leaf(5, in_features), leaf(out_features, in_features), leaf(out_features)]
    checks.check_value_and_gradients(F.dense, functional.linear, tensors)


def test_a_weight_of_one_dimension_is_one_neuron() -> None:
    for x in (leaf(5, 3), leaf(3), leaf(2, 4, 3)):
        checks.check_value_and_gradients(F.dense, functional.linear, [x, leaf(3)])


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu"])
def test_kinks_and_saturation_equal_torch(name: str) -> None:
    z = SPECIAL_VALUES.clone().requires_grad_()
    checks.check_value_and_gradients(getattr(F, name), getattr(torch, name), [z])


def test_relu_passes_no_gradient_at_its_kink_nor_a_nan_below_it() -> None:
    z = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    incoming = torch.full((3,), torch.inf)
    assert torch.autograd.grad(F.relu(z), z, incoming)[0].tolist() == [0, 0, torch.inf]


def test_step_is_one_above_its_threshold_and_has_gradient_zero() -> None:
    z = torch.tensor([-1.0, 0.0, 0.5, 2.0], requires_grad=True)
    assert F.step(z).tolist() == [0, 0, 1, 1]
    assert F.step(z, 0.5).tolist() == [0, 0, 0, 1]
    assert torch.autograd.grad(F.step(z).sum(), z)[0].tolist() == [0, 0, 0, 0]
    assert torch.func.jvp(F.step, (z,), (torch.ones(4),))[1].tolist() == [0, 0, 0, 0]
    assert F.step(torch.tensor([0, 3])).dtype == torch.int64


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "identity"])
def test_complex_numbers_are_conjugated(name: str) -> None:
    tensors = [leaf(*shape, dtype=torch.complex128) for shape in ((5, 3), (4, 3), (4,))]
    checks.check_value_and_gradients(
        lambda x, w, b: F.dense_activation(x, w, b, name),
        lambda x, w, b: reference.dense_activation(x, w, b, name),
        tensors,
    )
    assert torch.autograd.gradcheck(F.dense, tensors, check_forward_ad=True)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss"])
def test_losses_of_zero_rows_equal_torch(name: str, reduction: str) -> None:
    inputs = [torch.zeros(0, 1, dtype=torch.double, requires_grad=True) for _ in range(2)]
    both = []
    for namespace in (F, functional):
        value = getattr(namespace, name)(*inputs, reduction=reduction)
        both.append((value, *torch.autograd.grad(value.sum(), inputs)))
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_an_undefined_incoming_gradient_counts_as_zero() -> None:
    """The engine passes None for an output that was not used."""
    tensors = leaf(5, 3), leaf(4, 3), leaf(4)
    assert torch.autograd.gradcheck(F.dense_activation, tensors, check_undefined_grad=True)
    unused: Any = torch._C._functions.UndefinedGrad()(F.dense_activation(*tensors))
    grads = torch.autograd.grad(unused.sum(), tensors, allow_unused=True)
    assert all(g is None or not g.any() for g in grads)


def test_changing_a_saved_tensor_in_place_raises() -> None:
    x, weight = leaf(5, 3), leaf(4, 3)
    output = F.dense(x, weight)
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_pure_functions_run_on_fake_cuda_tensors() -> None:
    """No tensor is made on the wrong device: a mixed-device operation would raise."""
    with FakeTensorMode(), torch.no_grad():
        x, weight, bias = (torch.empty(s, device="cuda") for s in ((5, 3), (4, 3), (4,)))
        a = dense_activation.dense_activation_forward(x, weight, bias, "sigmoid")
        grads = dense_activation.dense_activation_backward(a, x, weight, bias.shape, a, "sigmoid")
        results: list[Tensor | None] = [a, *grads, dense.dense_jvp(x, weight, x, weight, bias)]
        for pair in activation.ACTIVATIONS.values():
            results += [pair.forward(a), pair.backward(a, a)]
        for p in (None, bias):
            results += [
                loss.binary_cross_entropy_with_logits_forward(a, a, p),
                loss.binary_cross_entropy_with_logits_delta(a, a, p),
                loss.binary_cross_entropy_with_logits_target(a, a, p),
                loss.binary_cross_entropy_forward(a, a, p),
                loss.binary_cross_entropy_slope(a, a, p),
                loss.binary_cross_entropy_target(a, a, p),
            ]
        results += [loss.mse_loss_forward(a, a), loss.mse_loss_slope(a, a), loss.mse_loss_target(a, a)]
        assert {t.device.type for t in results if t is not None} == {"cuda"}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_cuda_device_gives_the_results_of_the_cpu(dtype: torch.dtype) -> None:
    cpu = [leaf(64, 3, dtype=dtype), leaf(1, 3, dtype=dtype), leaf(1, dtype=dtype)]
    gpu = [t.detach().cuda().requires_grad_() for t in cpu]
    y = torch.rand(64, 1, dtype=dtype)
    for device_inputs, target in ((cpu, y), (gpu, y.cuda())):
        x, weight, bias = device_inputs
        F.mlp_loss(x, target, [weight], [bias])[0].backward()
    for a, b in zip(cpu, gpu, strict=True):
        torch.testing.assert_close(a.grad, b.grad, check_device=False)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_positive_class_weight_on_probabilities_is_that_of_the_logits(reduction: str) -> None:
    z, y = leaf(5, 4), torch.rand(5, 4, dtype=torch.double).requires_grad_()
    p, w = torch.rand(4, dtype=torch.double) + 0.5, torch.rand(5, 1, dtype=torch.double)

    def from_probabilities(z: Tensor, y: Tensor) -> Tensor:
        return F.losses.loss_of_output(torch.sigmoid(z), y, "binary_cross_entropy", w, p, reduction)

    def from_logits(z: Tensor, y: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(z, y, w, pos_weight=p, reduction=reduction)

    checks.check_value_and_gradients(from_probabilities, from_logits, [z, y])
    checks.check_laws(from_probabilities, from_logits, [z, y], only=["forward_mode"])


def test_each_function_names_the_argument_that_does_not_fit() -> None:
    x, weight = torch.ones(5, 3), torch.ones(4, 2)
    with pytest.raises(RuntimeError, match="input has 3 features in its last dimension, weight takes 2"):
        F.dense(x, weight)
    with pytest.raises(ValueError, match="activation is 'softmax': choose one of identity, sigmoid, tanh, relu"):
        F.dense_activation(x, x, activation="softmax")
    with pytest.raises(ValueError, match="choose one of none, mean, sum"):
        F.mse_loss(x, x, reduction="average")
    with pytest.raises(RuntimeError, match=r"weight of shape \(5,\) does not broadcast"):
        F.binary_cross_entropy(x, x, torch.ones(5))
    for loss_name, reduction in itertools.product(("mse", "binary_cross_entropy"), ("mean", "none")):
        with pytest.raises(ValueError, match="same as"):
            F.mlp_loss(x, torch.ones(5), [torch.ones(1, 3)], None, loss=loss_name, reduction=reduction)
