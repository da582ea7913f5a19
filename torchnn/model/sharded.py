"""FSDP2, which splits parameters, gradients and optimiser state over processes, as `--trainer.strategy fsdp2`."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import nn
from torch.distributed.constants import default_pg_timeout
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's `ModelParallelStrategy` without tensor parallelism: each process has its own rows and its own shard.

    A checkpoint is one file, the same as that of a single process, so any number of processes can resume from it.

    Args:
        process_group_backend: backend of torch.distributed; null for gloo on CPUs and NCCL on GPUs.
        timeout: how long a process waits for the others.
    """

    def __init__(
        self, process_group_backend: str | None = None, timeout: timedelta | None = default_pg_timeout
    ) -> None:
        super().__init__(
            save_distributed_checkpoint=False, process_group_backend=process_group_backend, timeout=timeout
        )

    def _setup_distributed(self) -> None:
        super()._setup_distributed()
        self._data_parallel_size, self._tensor_parallel_size = self.world_size, 1

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state, on the first process; Lightning cannot name the parameters of an empty state."""
        if any(optimizer.state.values()):
            return super().optimizer_state(optimizer)
        return optimizer.state_dict()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """As Lightning, but also for an optimiser that keeps no state, such as plain SGD, where Lightning fails."""
        optimisers, path = self.optimizers, Path(self.broadcast(checkpoint_path))
        saved = []
        if optimisers and path.is_file():
            saved = torch.load(path, "cpu", weights_only=weights_only, mmap=True).get("optimizer_states", [])
        if not saved or any(state["state"] for state in saved):
            return super().load_checkpoint(path, weights_only)
        self._optimizers = []
        checkpoint = super().load_checkpoint(path, weights_only)
        self._optimizers = optimisers
        for optimiser, state in zip(optimisers, saved, strict=True):
            optimiser.load_state_dict(state)
        return checkpoint


StrategyRegistry.register(
    "fsdp2", ShardedStrategy, description="Parameters, gradients and optimizer state are sharded over the processes"
)


def shard(modules: list[nn.Module], mesh: Any) -> None:
    """Shard the parameters of each module over the processes of a mesh, once; they are gathered while it runs.

    Raises:
        MisconfigurationException: the mesh has tensor parallelism, where several processes train on the same rows.
    """
    if mesh["tensor_parallel"].size() > 1:
        raise MisconfigurationException(
            f"tensor_parallel_size is {mesh['tensor_parallel'].size()}, but each process has its own rows: set "
            "--trainer.strategy fsdp2, or set data_parallel_size to the number of processes and tensor_parallel_size "
            "to 1."
        )
    for module in modules:
        if any(True for _ in module.parameters()) and not isinstance(module, FSDPModule):
            fully_shard(module, mesh=mesh["data_parallel"])
