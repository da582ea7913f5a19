"""Which process of which job this is, as its launcher says in the environment."""

import os
import socket
from dataclasses import dataclass
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from torchnn.console import fail


@dataclass(frozen=True)
class Place:
    """A rank, and where the store is through which the ranks talk.

    Attributes:
        rank: from 0 to `world_size` - 1.
        world_size: processes of the job.
        local_rank: the number of the process on its host.
        node: the number of the host.
        address: of the host with the store.
        port: of the store.
        hosts_store: whether it lives in this process.
        in_torchrun: whether it lives in torchrun, where it outlives a restart of the ranks.
        parent: the process of rank 0, if the Trainer there has started this one.
    """

    rank: int
    world_size: int
    local_rank: int
    node: int
    address: str
    port: int
    hosts_store: bool
    in_torchrun: bool = False
    parent: int | None = None

    @property
    def name(self) -> str:
        return f"rank {self.rank} (process {os.getpid()} on {socket.gethostname()})"

    @property
    def lobby(self) -> str:
        """Where ranks meet before they know the room of their attempt."""
        return f"lobby {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"

    @property
    def store_of(self) -> str:
        """Who is gone when the store is."""
        return "torchrun on the host of rank 0" if self.in_torchrun else "rank 0"

    @property
    def speaks_without_store(self) -> bool:
        """Whether this is the one process of its host that speaks when the ranks can no longer agree on one."""
        return self.local_rank == int(self.node == 0 and not self.in_torchrun)


def place_of_launcher() -> Place | None:
    """The place that torchrun, SLURM or the Trainer of rank 0 gave to this process, None if nobody did."""
    if TorchElasticEnvironment.detect():
        env = os.environ
        rank, in_torchrun = int(env["RANK"]), env.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
        return Place(
            rank,
            int(env["WORLD_SIZE"]),
            int(env["LOCAL_RANK"]),
            int(env["GROUP_RANK"]),
            env["MASTER_ADDR"],
            int(env["MASTER_PORT"]),
            rank == 0 and not in_torchrun,
            in_torchrun,
        )
    if runs_under_slurm():
        slurm = SLURMEnvironment()
        rank = slurm.global_rank()
        return Place(
            rank,
            slurm.world_size(),
            slurm.local_rank(),
            slurm.node_rank(),
            slurm.main_address,
            slurm.main_port,
            rank == 0,
        )
    if "LOCAL_RANK" in os.environ and "LOCAL_WORLD_SIZE" in os.environ:
        node, local_rank = int(os.environ["NODE_RANK"]), int(os.environ["LOCAL_RANK"])
        rank, world_size = node * int(os.environ["LOCAL_WORLD_SIZE"]) + local_rank, int(os.environ["WORLD_SIZE"])
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        parent = os.getppid() if node == 0 else None
        return Place(rank, world_size, local_rank, node, address, port, rank == 0, parent=parent)
    return None


def place_of_strategy(strategy: Any) -> Place:
    """The place of the process whose Trainer is about to launch the others."""
    environment = strategy.cluster_environment
    return Place(
        strategy.global_rank,
        strategy.world_size,
        strategy.local_rank,
        strategy.node_rank,
        environment.main_address,
        environment.main_port,
        strategy.global_rank == 0,
    )


def runs_under_slurm() -> bool:
    """Whether `srun` started this process, and not a shell that it gave to a person."""
    env = os.environ
    return "SLURM_NTASKS" in env and "SLURM_PROCID" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def launched() -> dict[str, int]:
    """The Trainer's arguments that torchrun or SLURM has already decided."""
    env = os.environ
    if TorchElasticEnvironment.detect():
        return {"devices": int(env["LOCAL_WORLD_SIZE"]), "num_nodes": int(env["GROUP_WORLD_SIZE"])}
    if runs_under_slurm() and "SLURM_NTASKS_PER_NODE" in env:
        return {"devices": int(env["SLURM_NTASKS_PER_NODE"]), "num_nodes": int(env.get("SLURM_NNODES", 1))}
    return {}


def refuse_other_sizes(given: dict[str, Any]) -> None:
    """Fail if a flag asks for other numbers of processes or hosts than the launcher has started.

    Args:
        given: the flags that were given.
    """
    for name, started in launched().items():
        wanted = given.get(f"trainer.{name}", started)
        if str(wanted) not in (str(started), "auto", "-1"):
            what = "processes on a host" if name == "devices" else "hosts"
            fail(f"--trainer.{name} is {wanted}, but the launcher has started {started} {what}: leave it out.")
