"""Dense layers, with and without their activation."""

from typing import Literal

import torch
from torch import Tensor, nn

from torchnn import functional as F
from torchnn.functional._arguments import check_activation
from torchnn.modules.initialisation import initialise

Bias = bool | Literal["shared"]


class Dense(nn.Linear):
    """Weighted sums z = x Wᵀ + b with a hand-derived backward; an `nn.Linear`, initialised as one.

    Args:
        in_features: size of the last dimension of the input.
        out_features: number of neurons.
        bias: True for one number per neuron, "shared" for one number shared by all neurons, False for none.
        device: the device of the parameters.
        dtype: dtype of the parameters.

    Shapes: input (*, in_features), output (*, out_features); `weight` (out_features, in_features), `bias`
    (out_features,), or (1,) if shared.

    Raises:
        ValueError: `bias` is a string other than "shared".

    >>> Dense(3, 2, bias="shared")
    Dense(in_features=3, out_features=2, bias=shared)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: Bias = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias=bool(bias), device=device, dtype=dtype)
        if checked_bias(bias) == "shared":
            self.bias = nn.Parameter(self.bias.new_empty(1))
            self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        return F.dense(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias_kind(self)}"


class DenseActivation(nn.Module):
    """A layer a = g(x Wᵀ + b) in one node of the graph, which keeps x, W and a, never z.

    It is not an `nn.Linear`, because code that replaces linear layers by type would lose the activation.

    Args:
        in_features: size of the last dimension of the input.
        out_features: number of neurons.
        activation: g, one of "identity", "sigmoid", "tanh", "relu", "step".
        bias: True for one number per neuron, "shared" for one number shared by all neurons, False for none.
        device: the device of the parameters.
        dtype: dtype of the parameters.

    Shapes: input (*, in_features), output (*, out_features); `weight` (out_features, in_features), `bias`
    (out_features,), or (1,) if shared.

    Raises:
        ValueError: an unknown activation, or `bias` is a string other than "shared".

    >>> DenseActivation(3, 2, "tanh")(torch.zeros(1, 3))
    tensor([[0., 0.]], grad_fn=<DenseActivationFunctionBackward>)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str = "sigmoid",
        bias: Bias = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_activation(activation)
        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        self.weight = nn.Parameter(torch.empty((out_features, in_features), device=device, dtype=dtype))
        if checked_bias(bias) is False:
            self.register_parameter("bias", None)
        else:
            size = 1 if bias == "shared" else out_features
            self.bias = nn.Parameter(torch.empty(size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self, scheme: str = "by_activation") -> None:
        """Draw new weights by a scheme of `torchnn.modules.initialisation`."""
        initialise(self.weight, self.bias, self.activation, scheme)

    def forward(self, input: Tensor, pre_activation: bool = False) -> Tensor:
        """Return a, or z if `pre_activation`; in a last layer z are the logits."""
        if pre_activation:
            return F.dense(input, self.weight, self.bias)
        return F.dense_activation(input, self.weight, self.bias, self.activation)

    def extra_repr(self) -> str:
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, activation={self.activation}, bias={bias_kind(self)}"


class DenseSigmoid(DenseActivation):
    """The layer of the derivation, a = σ(x Wᵀ + b): a `DenseActivation` whose activation is the sigmoid.

    >>> DenseSigmoid(3, 2, bias=False)
    DenseSigmoid(in_features=3, out_features=2, activation=sigmoid, bias=False)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: Bias = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, "sigmoid", bias, device, dtype)


class JoinedDense(Dense):
    """A `Dense` that also computes the activation after it, in one node of the graph; `torchnn.convert` makes it."""

    joined_activation: str

    def forward(self, input: Tensor) -> Tensor:
        return F.dense_activation(input, self.weight, self.bias, self.joined_activation)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.joined_activation}"


def checked_bias(bias: Bias) -> Bias:
    """Return `bias` as True, False or "shared"; raise ValueError for another string."""
    if isinstance(bias, str) and bias != "shared":
        raise ValueError(f"bias is {bias!r}: choose True (one per neuron), 'shared' or False.")
    return bias if bias == "shared" else bool(bias)


def bias_kind(layer: Dense | DenseActivation) -> Bias:
    """Return the kind of bias that a layer's parameters have: none, one number for all neurons, or one per neuron."""
    bias: Tensor | None = layer.bias
    if bias is None:
        return False
    return "shared" if bias.numel() == 1 < layer.out_features else True
