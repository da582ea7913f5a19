"""How a job that its launcher has restarted finds what it had written."""

import functools
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from torchnn.model.checkpoint import CheckpointError, load_plain
from torchnn.ranks.place import place_of_launcher, runs_under_slurm
from torchnn.ranks.store import CONNECT, Store, connected
from torchnn.runs.checkpoints import newest_first
from torchnn.runs.resume import SECTION


def names_of_job() -> list[str]:
    """What torchrun and SLURM call this job in every attempt, and no other job."""
    names = []
    if runs_under_slurm() and "SLURM_JOB_ID" in os.environ:
        names.append(f"slurm {os.environ['SLURM_JOB_ID']}.{os.environ.get('SLURM_STEP_ID', 0)}")
    if (store := _store_of_torchrun()) is not None:
        names.append(f"torchrun {store.first('name of the job', uuid.uuid4().hex)}")
    return names


@functools.cache
def is_restarted() -> bool:
    """Whether this is not the first attempt; rank 0 alone asks, and so counts them."""
    store = _store_of_torchrun()
    again = store is not None and store.count("attempts", 1) > 1
    return again or int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0


def _store_of_torchrun() -> Store | None:
    place = place_of_launcher()
    return Store(connected(place, CONNECT), "all attempts") if place is not None and place.in_torchrun else None


def last_of_job(root: Path, names: Iterable[str], fold: int | None) -> Path | None:
    """The newest `last.ckpt` that an earlier attempt of this job has written, None if there is none.

    Args:
        root: the folder that holds `lightning_logs`.
        names: of the job.
        fold: of a cross-validation, whose folds have runs of their own.
    """
    for path in newest_first(root):
        try:
            checkpoint = load_plain(path)
            written_by = checkpoint[SECTION]["settings"]["job"]
        except (CheckpointError, KeyError, TypeError):
            continue
        data = checkpoint.get("datamodule_hyper_parameters", {})
        if set(names) & set(written_by) and data.get("fold") == fold:
            return path
    return None
