"""What torchrun or SLURM decides for a job: the number of its processes, and when it is queued again."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from torchnn.console import fail, note


def runs_under_slurm() -> bool:
    """Whether `srun` started this process as a task, and not as an interactive shell."""
    env = os.environ
    return "SLURM_NTASKS" in env and "SLURM_PROCID" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def launched() -> dict[str, int]:
    """The arguments of the Trainer that torchrun or SLURM has already decided, by name."""
    env = os.environ
    if torch.distributed.is_torchelastic_launched():
        return {"devices": int(env["LOCAL_WORLD_SIZE"]), "num_nodes": int(env["GROUP_WORLD_SIZE"])}
    if runs_under_slurm() and "SLURM_NTASKS_PER_NODE" in env:
        return {"devices": int(env["SLURM_NTASKS_PER_NODE"]), "num_nodes": int(env.get("SLURM_NNODES", 1))}
    return {}


def refuse_other_sizes(given: Mapping[str, Any]) -> None:
    """Fail if a flag asks for another number of processes or hosts than the launcher has started.

    Args:
        given: the flags that were given, by name.
    """
    for name, started in launched().items():
        wanted = given.get(f"trainer.{name}", started)
        if str(wanted) not in (str(started), "auto", "-1"):
            what = "processes on a host" if name == "devices" else "hosts"
            fail(f"--trainer.{name} is {wanted}, but the launcher has started {started} {what}: leave it out.")


@contextmanager
def requeued_by_slurm() -> Iterator[None]:
    """Put the job back into SLURM's queue when SLURM sends USR1 shortly before the time limit.

    Lightning would save a checkpoint in the signal handler, where the processes may be anywhere in a step. It keeps a
    handler that is already there. The restarted job resumes from `last.ckpt` instead.
    """
    if not runs_under_slurm() or torch.distributed.is_torchelastic_launched():
        yield
        return
    before = signal.signal(signal.SIGUSR1, lambda *_: requeue())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def requeue() -> None:
    """Ask SLURM to queue this job again; the first process asks for all."""
    env = os.environ
    if env["SLURM_PROCID"] != "0":
        return
    is_array = "SLURM_ARRAY_JOB_ID" in env
    job = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}" if is_array else env["SLURM_JOB_ID"]
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        reason = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        reason = str(error)
    outcome = f"could not be queued again ({reason})" if reason else "is queued again"
    note(f"the time of job {job} is nearly over: it {outcome}")
