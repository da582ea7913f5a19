"""Dense layers and activations."""

from torch import Tensor

from torchnn.functional._arguments import (
    apply,
    check_activation,
    check_tensor,
    checked_dense,
    lower_precision,
    overridable,
)
from torchnn.ops import activation as _activation
from torchnn.ops import dense as _dense
from torchnn.ops import dense_activation as _dense_activation


@overridable
def dense(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Weighted sums of a layer, z = x Wᵀ + b; equivalent to `torch.nn.functional.linear`.

    Args:
        input: x, shape (*, in_features); one example may be (in_features,).
        weight: W, shape (out_features, in_features); row i holds the weights into neuron i. Shape (in_features,)
            means one neuron, whose dimension is dropped from the result.
        bias: b, shape (out_features,), or (1,) or () for one number shared by all neurons.

    Returns:
        z, shape (*, out_features); under autocast in its lower precision.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit together.

    >>> import torch
    >>> dense(torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 4.0]]), torch.tensor([0.5]))
    tensor([11.5000])
    """
    input, weight, bias = lower_precision(*checked_dense("dense", input, weight, bias))
    if weight.dim() == 1:
        return apply(_dense.DenseFunction, _dense.TraceableDenseFunction, input, weight[None], None).squeeze(-1)
    return apply(_dense.DenseFunction, _dense.TraceableDenseFunction, input, weight, bias)


@overridable
def dense_activation(input: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "sigmoid") -> Tensor:
    """A layer in one node of the graph, a = g(x Wᵀ + b); equivalent to `g(torch.nn.functional.linear(…))`.

    Args:
        input: x, shape (*, in_features).
        weight: W, shape (out_features, in_features).
        bias: b, shape (out_features,), or (1,) or () for one number shared by all neurons.
        activation: g, one of "identity", "sigmoid", "tanh", "relu", "step".

    Returns:
        a, shape (*, out_features).

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit together.
        ValueError: `activation` is not one of the names.

    >>> import torch
    >>> dense_activation(torch.zeros(1, 2), torch.ones(3, 2))
    tensor([[0.5000, 0.5000, 0.5000]])
    """
    check_activation(activation)
    input, weight, bias = lower_precision(*checked_dense("dense_activation", input, weight, bias))
    functions = _dense_activation.DenseActivationFunction, _dense_activation.TraceableDenseActivationFunction
    if weight.dim() == 1:
        return apply(*functions, input, weight[None], None, activation).squeeze(-1)
    return apply(*functions, input, weight, bias, activation)


def activate(z: Tensor, activation: str) -> Tensor:
    """Return a = g(z) for the name of an activation."""
    functions = {"identity": _identity, "sigmoid": sigmoid, "tanh": tanh, "relu": relu, "step": step}
    return functions[activation](z)


def _identity(z: Tensor) -> Tensor:
    return z


@overridable
def sigmoid(input: Tensor) -> Tensor:
    """Sigmoid, element by element; equivalent to `torch.sigmoid`, any shape.

    >>> import torch
    >>> sigmoid(torch.tensor([0.0, 2.0]))
    tensor([0.5000, 0.8808])
    """
    check_tensor("sigmoid", "input", input)
    return apply(_activation.SigmoidFunction, _activation.TraceableSigmoidFunction, input)


@overridable
def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent, element by element; equivalent to `torch.tanh`, any shape.

    >>> import torch
    >>> tanh(torch.tensor([0.0, 1.0]))
    tensor([0.0000, 0.7616])
    """
    check_tensor("tanh", "input", input)
    return apply(_activation.TanhFunction, _activation.TraceableTanhFunction, input)


@overridable
def relu(input: Tensor) -> Tensor:
    """max(z, 0), element by element; equivalent to `torch.relu`, any shape. Its derivative at 0 is 0.

    >>> import torch
    >>> relu(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    check_tensor("relu", "input", input)
    return apply(_activation.ReLUFunction, _activation.TraceableReLUFunction, input)


@overridable
def step(input: Tensor, threshold: float = 0.0) -> Tensor:
    """1 where `input` is above `threshold`, else 0, in the dtype of the input; its derivative is 0 everywhere.

    >>> import torch
    >>> step(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 1.])
    """
    check_tensor("step", "input", input)
    return apply(_activation.StepFunction, _activation.TraceableStepFunction, input, threshold)
