"""Activations as modules."""

from torch import Tensor, nn

from torchnn import functional as F


class Sigmoid(nn.Sigmoid):
    """`torch.nn.Sigmoid` with a hand-derived backward.

    >>> import torch
    >>> Sigmoid()(torch.zeros(1))
    tensor([0.5000])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(nn.Tanh):
    """`torch.nn.Tanh` with a hand-derived backward.

    >>> import torch
    >>> Tanh()(torch.zeros(1))
    tensor([0.])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class ReLU(nn.ReLU):
    """`torch.nn.ReLU` with a hand-derived backward; `inplace=True` writes the result into the input, as in torch.

    >>> import torch
    >>> ReLU()(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def forward(self, input: Tensor) -> Tensor:
        output = F.relu(input)
        return input.copy_(output) if self.inplace else output


class Step(nn.Module):
    """The activation of the first neurons: 1 ("activated") above `threshold`, else 0; its gradient is 0.

    Args:
        threshold: the value that the weighted sum must exceed.

    >>> import torch
    >>> Step(threshold=0.5)(torch.tensor([0.4, 0.6]))
    tensor([0., 1.])
    """

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        return F.step(input, self.threshold)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"


class Joined(nn.Module):
    """The place of an activation that the `JoinedDense` before it computes; it returns its input."""

    joined_activation: str

    def forward(self, input: Tensor) -> Tensor:
        return input

    def extra_repr(self) -> str:
        return self.joined_activation
