"""Many networks of one shape, trained at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


def random_parameters(network: nn.Module, generator: torch.Generator, limit: float) -> dict[str, Tensor]:
    """Draw weights and biases for a network, uniform within ±limit; returned by name."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    return {name: (2 * torch.rand(shape, generator=generator) - 1) * limit for name, shape in shapes.items()}


class ManyNetworks(pl.LightningModule):
    """Networks of one shape that are trained at once and independently of each other.

    Parameters have a leading dimension for the networks.

    Args:
        network: the architecture; its own parameters are not used.
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
        """The results of all networks, stacked.

        Args:
            x: input, (rows, features) shared by all networks, or (networks, rows, features) with `own_rows`.
            target: (rows, outputs), or (networks, rows, outputs) with `own_rows`.
            own_rows: whether each network has its own rows.
            options: options of the network's loss.

        Returns:
            The outputs, (networks, rows, outputs); with a target the losses, with a leading dimension for the networks.
        """

        def of_one(parameters: dict[str, Tensor], x: Tensor, target: Tensor | None) -> Any:
            return functional_call(self.network, parameters, (x, target), options)

        of_rows = 0 if own_rows else None
        in_dims = (0, of_rows, None if target is None else of_rows)
        return vmap(of_one, in_dims)(self.parameters_by_name(), x, target)
