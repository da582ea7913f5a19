"""Lightning's launcher and signals, made to leave the end of a job to the ranks."""

import atexit
import os
import subprocess
import sys
from typing import Any

import lightning.pytorch as pl
import torch
from jsonargparse.typing import PositiveFloat
from lightning.fabric.utilities.distributed import _destroy_dist_connection, _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch._C._distributed_c10d import PrefixStore

from torchnn.ranks.job import TIMEOUT, job
from torchnn.ranks.place import place_of_strategy
from torchnn.ranks.store import connected


def add_argument(parser: Any) -> None:
    """Give a command line the flag of the ranks."""
    parser.add_argument(
        "--ranks.timeout",
        type=PositiveFloat,
        default=TIMEOUT,
        help="seconds of silence after which a process of the job counts as dead, and ends all the others",
    )


def adopt(trainer: pl.Trainer, timeout: float) -> None:
    """Give a Trainer the parts below, unless its strategy is one that forks.

    Args:
        trainer: before it has run.
        timeout: seconds of silence after which a rank counts as dead.
    """
    strategy: Any = trainer.strategy
    if type(strategy.launcher) is _SubprocessScriptLauncher:
        strategy._launcher = Launcher(strategy, timeout)
        trainer._signal_connector = Signals(trainer)


class Launcher(_SubprocessScriptLauncher):
    """Lightning's, without its observer: that kills rank 0 in silence when another rank ends."""

    def __init__(self, strategy: Any, timeout: float) -> None:
        super().__init__(strategy.cluster_environment, strategy.num_processes, strategy.num_nodes)
        self.strategy, self.timeout = strategy, timeout

    def launch(self, function: Any, *args: Any, trainer: pl.Trainer | None = None, **kwargs: Any) -> Any:
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            os.environ["LOCAL_WORLD_SIZE"] = str(self.num_processes)
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # no page for each connection that breaks
            job.join(place_of_strategy(self.strategy), self.timeout)
            self._call_children_scripts()
            job.mind(dict(enumerate(self.procs, self.strategy.global_rank + 1)))
        meet(self.strategy)
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


def meet(strategy: Any) -> None:
    """Make the process group, under torchrun, of this attempt alone.

    Lightning would have torch make it, which takes the addresses of ranks from torchrun's store, where a restart finds
    those of the attempt before.
    """
    watch = job.watch
    if watch is None or not watch.place.in_torchrun or torch.distributed.is_initialized():
        return
    device = strategy.root_device
    torch.distributed.init_process_group(
        strategy._get_process_group_backend(),
        timeout=strategy._timeout,
        rank=watch.place.rank,
        world_size=watch.place.world_size,
        store=PrefixStore(watch.room, connected(watch.place, strategy._timeout.total_seconds())),
        device_id=None if device.type == "cpu" else device,
    )
    if torch.distributed.get_backend() == "nccl":
        atexit.register(_destroy_dist_connection)


class Signals(_SignalConnector):
    """Lightning's, whose handlers talk to the other ranks, which may be anywhere, or gone; these do not."""

    def _sigterm_notifier_fn(self, signum: Any, _: Any) -> None:
        if not self.received_sigterm:
            self.received_sigterm = True
            launcher = self.trainer.strategy.launcher
            if launcher is not None:
                launcher.kill(signum)
            job.alarm()  # a launcher sends it to the survivors when a rank has died
            raise SIGTERMException

    def _slurm_sigusr_handler_fn(self, signum: Any, _: Any) -> None:
        """Have the job queued again: it goes on from `last.ckpt`, which is written between two steps only."""
        if self.trainer.is_global_zero:
            number = "_".join(
                os.environ[name] for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID") if name in os.environ
            )
            number = number or os.environ["SLURM_JOB_ID"]
            try:
                done = subprocess.run(["scontrol", "requeue", number], capture_output=True, text=True, check=False)
                reason = None if done.returncode == 0 else done.stderr.strip()
            except OSError as error:
                reason = str(error)
            what = "is queued again" if reason is None else f"could not be queued again ({reason})"
            sys.stderr.write(f"torchnn: the time of job {number} is nearly over: it {what}\n")
