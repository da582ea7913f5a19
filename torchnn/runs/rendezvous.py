"""A process group of its own for each attempt of a job that torchrun restarts.

torchrun's store outlives the processes that it restarts, and torch keeps the addresses of a process group in it. A
restarted gloo job would try to reach the addresses of processes that have died. Each attempt therefore uses a key
prefix of its own, which the ranks agree on first: TORCHELASTIC_RESTART_COUNT can differ between the hosts of one job.
"""

import atexit
import functools
import os
import time
import uuid
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # public all the same
from torch.distributed.constants import default_pg_timeout

from torchnn.runs._lightning import process_group_options

POLL = 0.05  # seconds between two looks for ranks that have not joined an attempt yet


class Attempt(NamedTuple):
    """One start of all processes of a job of torchrun.

    Attributes:
        job: a name that all attempts of the job share, and no other job has.
        number: counted from 1.
    """

    job: str
    number: int


@functools.cache
def current_attempt() -> Attempt | None:
    """The attempt that this process belongs to; None outside torchrun, or if torchrun keeps no store for its processes.

    Waits until all ranks of the attempt have asked.
    """
    if not _has_torchruns_store():
        return None
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = _torchruns_store(default_pg_timeout)
    number = join_attempt(store, rank, world_size, default_pg_timeout)
    return Attempt(store.compare_set("name of the job", "", uuid.uuid4().hex).decode(), number)


def join_attempt(store: Store, rank: int, world_size: int, timeout: timedelta) -> int:
    """The number of the current attempt, on which all of its ranks agree.

    Rank 0 counts the attempts. Every other rank leaves a ticket, which no earlier process can have left, and rank 0
    writes the number on each ticket that it finds, until all ranks of the attempt have read theirs.

    Args:
        store: that outlives the attempts.
        rank: of this process.
        world_size: number of ranks.
        timeout: how long rank 0 waits for the others; they wait as long as the store's own timeout.

    Raises:
        TimeoutError: a rank did not join in time.
    """
    if rank > 0:
        ticket = uuid.uuid4().hex
        store.set(f"ticket of rank {rank}", ticket)
        number = int(store.get(f"attempt of ticket {ticket}"))
        store.add(f"ranks in attempt {number}", 1)
        return number
    number = store.add("attempts", 1)
    deadline = time.monotonic() + timeout.total_seconds()
    while store.add(f"ranks in attempt {number}", 0) < world_size - 1:
        for key in (f"ticket of rank {other}" for other in range(1, world_size)):
            if store.check([key]):
                store.set(f"attempt of ticket {store.get(key).decode()}", str(number))
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all of the {world_size} ranks joined attempt {number} within {timeout}")
        time.sleep(POLL)
    return number


def make_process_group(strategy: Any) -> None:
    """Make the process group of a Trainer under the key prefix of the attempt; elsewhere Lightning makes it.

    Args:
        strategy: of the Trainer, which has not run yet.
    """
    attempt = current_attempt()
    options = process_group_options(strategy)
    if attempt is None or options is None or torch.distributed.is_initialized():
        return
    backend, timeout = options
    device = strategy.root_device
    torch.distributed.init_process_group(
        backend,
        timeout=timeout,
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        store=PrefixStore(f"attempt {attempt.number}", _torchruns_store(timeout)),
        device_id=None if device.type == "cpu" else device,
    )
    if torch.distributed.get_backend() == "nccl":
        atexit.register(torch.distributed.destroy_process_group)


def _has_torchruns_store() -> bool:
    is_launched = torch.distributed.is_torchelastic_launched()
    return is_launched and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def _torchruns_store(timeout: timedelta) -> Store:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return PrefixStore("torchnn", TCPStore(address, port, is_master=False, timeout=timeout))
