"""The contenders that are not PyTorch modules: scikit-learn, JAX, and the matrix products by themselves."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.errors import UnavailableError
from .problems import THREADS, Problem


def scikit_learn_step(problem: Problem) -> Callable[[], object]:
    """One `partial_fit` of the batch, which also checks its arguments and updates the weights.

    The learning rate is so small that every step starts from the same weights.
    """
    from sklearn.neural_network import MLPClassifier

    if len(problem.point.sizes) < 3:
        raise UnavailableError("it does not support networks without a hidden layer")
    threadpoolctl: Any = importlib.import_module(
        "threadpoolctl"
    )  # it has no type annotations; scikit-learn requires it
    threadpoolctl.threadpool_limits(THREADS, user_api="blas")
    model = MLPClassifier(
        problem.point.sizes[1:-1],
        activation="logistic",
        solver="sgd",
        alpha=0.0,
        batch_size=problem.point.batch,
        learning_rate_init=1e-12,
        shuffle=False,
        random_state=0,
    )
    x, y = problem.x.numpy(), problem.y.squeeze(1).int().numpy()
    model.partial_fit(x, y, classes=np.array([0, 1]))
    return lambda: model.partial_fit(x, y)


def jax_step(problem: Problem) -> tuple[Callable[[], object], Callable[[], list[Tensor]]]:
    if importlib.util.find_spec("jax") is None:
        raise UnavailableError("it is not installed")
    try:
        jax: Any = importlib.import_module("jax")
        jnp: Any = importlib.import_module("jax.numpy")
    except Exception as error:  # an incompatible numpy, an unknown processor …
        raise UnavailableError(f"it cannot be imported ({type(error).__name__})") from error
    x, y, *parameters = (jnp.asarray(t.numpy()) for t in (problem.x, problem.y, *problem.parameters))

    def loss_of(parameters: list[Any], x: Any, y: Any) -> Any:
        for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            x = jax.nn.sigmoid(x @ weight.T + bias)
        z = x @ parameters[-2].T + parameters[-1]
        return jnp.mean(jax.nn.softplus(z) - y * z)

    value_and_gradients = jax.jit(jax.value_and_grad(loss_of))
    last: list[Any] = []

    def step() -> None:
        last[:] = jax.block_until_ready(value_and_gradients(parameters, x, y))[1]

    def gradients() -> list[Tensor]:
        return [torch.tensor(np.asarray(gradient)) for gradient in last]

    return step, gradients


def own_products_step(problem: Problem) -> Callable[[], object]:
    """Only the matrix products of the pass, in torchnn's row blocks and with the library that torchnn chooses."""
    try:
        from torchnn.functional._whole_network import rows_of_a_block
        from torchnn.ops.network.products import products_of_layers
    except ImportError as error:
        raise UnavailableError("torchnn no longer has the function that chooses its products") from error

    x, weights, biases = problem.x, problem.parameters[::2], problem.parameters[1::2]
    sizes = problem.point.sizes
    rows = min(len(x), rows_of_a_block(len(x), sizes, x.element_size(), "cpu", waits=False))
    layers = list(zip(products_of_layers(rows, sizes, x.dtype, "cpu"), weights, biases, strict=True))
    delta_of_output = torch.randn(rows, len(weights[-1]))
    sums = [torch.zeros_like(weight) for weight in weights]

    def step() -> None:
        for start in range(0, len(x), rows):
            a = [x[start : start + rows]]
            for products, weight, bias in layers:
                a.append(products.forward(a[-1], weight, bias))
            delta = delta_of_output[: len(a[0])]
            for layer in reversed(range(len(layers))):
                products, weight, _ = layers[layer]
                products.backward_weight(delta, a[layer], sums[layer] if start else None)
                if layer:
                    delta = products.backward_input(delta, weight)

    return step


def products_step(problem: Problem) -> Callable[[], object]:
    """Only the matrix products of the pass, with torch's own products, into buffers that are reused."""
    try:
        from torchnn.functional._whole_network import rows_of_a_block
    except ImportError as error:
        raise UnavailableError("torchnn no longer has the function that chooses the rows of a block") from error

    x, weights, biases = problem.x, problem.parameters[::2], problem.parameters[1::2]
    sizes = (x.shape[1], *[len(weight) for weight in weights])
    rows = min(len(x), rows_of_a_block(len(x), sizes, x.element_size(), "cpu", waits=False))
    activations = [x.new_empty(rows, len(weight)) for weight in weights]
    deltas = [x.new_empty(rows, len(weight)) for weight in weights[:-1]]
    delta_of_output = torch.randn(rows, len(weights[-1]))
    sums = [torch.empty_like(weight) for weight in weights]
    layers = range(len(weights))

    def block(start: int) -> None:
        a = [x[start : start + rows]]
        for layer in layers:
            buffer = activations[layer][: len(a[0])]
            a.append(torch.addmm(biases[layer], a[-1], weights[layer].t(), out=buffer))
        delta = delta_of_output[: len(a[0])]
        for layer in reversed(layers):
            if start:
                sums[layer].addmm_(delta.t(), a[layer])
            else:
                torch.mm(delta.t(), a[layer], out=sums[layer])
            if layer:
                delta = torch.mm(delta, weights[layer], out=deltas[layer - 1][: len(a[0])])

    def step() -> None:
        for start in range(0, len(x), rows):
            block(start)

    return step
