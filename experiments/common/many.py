"""Many networks of one shape, trained at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


def drawn(network: nn.Module, generator: torch.Generator, limit: float) -> dict[str, Tensor]:
    """Weights and biases for a network, by name, uniform within ±limit."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    return {name: (2 * torch.rand(shape, generator=generator) - 1) * limit for name, shape in shapes.items()}


class ManyNetworks(pl.LightningModule):
    """Networks of one shape, each trained as if it were alone: no sum runs over two of them.

    Parameters have a leading dimension of networks.

    Args:
        network: what all of them are; its own parameters are not used.
        each: parameters of each network, by name.
    """

    def __init__(self, network: nn.Module, each: Sequence[Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.names = list(each[0])
        self.stacked = nn.ParameterList(torch.stack([one[name] for one in each]) for name in self.names)

    def parameters_by_name(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.stacked, strict=True))

    def forward(self, x: Tensor, target: Tensor | None = None, own_rows: bool = False, **options: Any) -> Any:
        """What every network returns, stacked.

        Args:
            x: input (rows, features) for all of them, or (networks, rows, features) with `own_rows`.
            target: (rows, outputs), or (networks, rows, outputs) with `own_rows`.
            own_rows: whether each network has rows of its own.
            options: of the network's loss.

        Returns:
            Outputs (networks, rows, outputs); with a target what the loss returns, with a leading dimension.
        """

        def of_one(parameters: dict[str, Tensor], x: Tensor, target: Tensor | None) -> Any:
            return functional_call(self.network, parameters, (x, target), options)

        of_rows = 0 if own_rows else None
        in_dims = (0, of_rows, None if target is None else of_rows)
        return vmap(of_one, in_dims)(self.parameters_by_name(), x, target)
