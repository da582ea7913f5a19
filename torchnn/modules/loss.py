"""Losses as modules: torch's classes, constructors and buffers, with hand-derived backwards."""

from torch import Tensor, nn

from torchnn import functional as F


class BCELoss(nn.BCELoss):
    """`torch.nn.BCELoss` with a hand-derived backward.

    >>> import torch
    >>> BCELoss()(torch.tensor([0.5]), torch.tensor([1.0]))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(nn.BCEWithLogitsLoss):
    """`torch.nn.BCEWithLogitsLoss` with a hand-derived backward, accurate in both tails.

    >>> import torch
    >>> BCEWithLogitsLoss()(torch.tensor([-200.0]), torch.tensor([1.0]))
    tensor(200.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class MSELoss(nn.MSELoss):
    """`torch.nn.MSELoss` with a hand-derived backward.

    >>> import torch
    >>> MSELoss()(torch.tensor([3.0]), torch.tensor([1.0]))
    tensor(4.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)
