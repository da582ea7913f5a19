"""A dense layer and the activation behind it in an existing model, joined by `torchnn.convert`."""

from torch import Tensor, nn

from torchnn import functional as F
from torchnn.modules.dense import Dense


class JoinedDense(Dense):
    """A `Dense` that computes the activation behind it as well, in one node of the graph."""

    joined_activation: str

    def forward(self, input: Tensor) -> Tensor:
        return F.dense_activation(input, self.weight, self.bias, self.joined_activation)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.joined_activation}"


class Joined(nn.Module):
    """The place of an activation that the layer before it computes."""

    joined_activation: str

    def forward(self, input: Tensor) -> Tensor:
        return input

    def extra_repr(self) -> str:
        return self.joined_activation
