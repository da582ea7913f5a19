"""Standardisation that travels with the model."""

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """(x − mean) / sd by column, with mean and sd as buffers, so that a saved model takes raw numbers.

    Until `fit` is called it changes nothing: mean 0, sd 1.

    Args:
        num_features: number of columns.

    >>> standardise = Standardise(2)
    >>> standardise.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    >>> standardise(torch.tensor([[1.0, 5.0]]))
    tensor([[-1., 0.]])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def fit(self, features: Tensor) -> None:
        """Take mean and (population) standard deviation of each column of (rows, num_features), in float64.

        A constant column gets scale 1: it becomes 0 and stays finite.
        """
        columns = features.double()
        sd = columns.std(dim=0, correction=0)
        self.mean.copy_(columns.mean(dim=0))
        self.scale.copy_(torch.where(sd > 0, sd, torch.ones_like(sd)))

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` or a checkpoint has set mean and sd."""
        return bool((self.mean != 0).any() or (self.scale != 1).any())

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale
