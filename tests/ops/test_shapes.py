"""jaxtyping and beartype check the declared shapes of the pure functions at run time."""

import importlib
import sys
from types import ModuleType

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError, install_import_hook

WRONG_SHAPE = (TypeCheckError, BeartypeCallHintViolation)
MODULES = ("torchnn.ops.dense", "torchnn.ops.activation", "torchnn.ops.dense_activation", "torchnn.ops.loss")


@pytest.fixture(scope="module")
def checked() -> dict[str, ModuleType]:
    """Copies of the modules with enforced annotations; the modules of the library do not change."""
    originals = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    with install_import_hook(list(MODULES), "beartype.beartype"):
        copies = {name.rsplit(".", 1)[1]: importlib.import_module(name) for name in MODULES}
    sys.modules.update(originals)
    return copies


@pytest.mark.parametrize("leading", [(), (5,), (0,), (2, 3)])
def test_the_dense_layer_keeps_its_declared_shapes(checked: dict[str, ModuleType], leading: tuple[int, ...]) -> None:
    dense = checked["dense"]
    x, weight, bias = torch.randn(*leading, 3), torch.randn(4, 3), torch.randn(4)
    z = dense.dense_forward(x, weight, bias)
    grads = dense.dense_backward(z, x, weight, bias.shape)
    assert [g.shape for g in grads] == [x.shape, weight.shape, bias.shape]
    assert dense.dense_jvp(x, weight, x, weight, bias).shape == z.shape
    fused = checked["dense_activation"]
    a = fused.dense_activation_forward(x, weight, bias, "tanh")
    assert fused.dense_activation_backward(a, x, weight, bias.shape, a, "tanh")[1].shape == weight.shape


def test_activations_and_losses_keep_their_declared_shapes(checked: dict[str, ModuleType]) -> None:
    a, y = torch.rand(5, 4), torch.rand(5, 4)
    for activation in checked["activation"].ACTIVATIONS.values():
        assert activation.backward(a, activation.forward(a)).shape == a.shape
    loss = checked["loss"]
    for name in ("binary_cross_entropy_with_logits", "binary_cross_entropy"):
        assert getattr(loss, f"{name}_forward")(a, y).shape == a.shape
    assert loss.binary_cross_entropy_with_logits_delta(a, y).shape == a.shape
    assert loss.mse_loss_slope(a, y).shape == a.shape


def test_a_wrong_shape_is_caught(checked: dict[str, ModuleType]) -> None:
    """Planted errors."""
    with pytest.raises(WRONG_SHAPE):
        checked["dense"].dense_backward(torch.ones(5, 3), torch.ones(5, 3), torch.ones(4, 3), None)
    with pytest.raises(WRONG_SHAPE):
        checked["activation"].sigmoid_backward(torch.ones(5, 3), torch.ones(5, 4))
    with pytest.raises(WRONG_SHAPE):
        checked["dense_activation"].dense_activation_forward(torch.ones(5, 2), torch.ones(4, 3), None, "tanh")
    with pytest.raises(WRONG_SHAPE):
        checked["loss"].mse_loss_slope(torch.ones(5), torch.ones(5, 1))
