"""What a job that torchrun or SLURM has restarted resumes from."""

import os
from collections.abc import Iterable
from pathlib import Path

from torchnn.model.checkpoint import CheckpointError, load_plain
from torchnn.runs.checkpoints import newest_first
from torchnn.runs.launcher import runs_under_slurm
from torchnn.runs.rendezvous import current_attempt
from torchnn.runs.resume import SECTION


def names_of_job() -> list[str]:
    """The names of this job with torchrun and SLURM, which all of its attempts share and no other job has."""
    names = []
    if runs_under_slurm() and "SLURM_JOB_ID" in os.environ:
        names.append(f"slurm {os.environ['SLURM_JOB_ID']}.{os.environ.get('SLURM_STEP_ID', 0)}")
    if (attempt := current_attempt()) is not None:
        names.append(f"torchrun {attempt.job}")
    return names


def is_restarted() -> bool:
    """Whether torchrun or SLURM has started this job before."""
    attempt = current_attempt()
    return (attempt is not None and attempt.number > 1) or int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0


def last_of_job(root: Path, names: Iterable[str], fold: int | None) -> Path | None:
    """The newest `last.ckpt` that an earlier attempt of a job has written, None if there is none.

    Args:
        root: the folder that holds `lightning_logs`.
        names: the names of the job.
        fold: of a cross-validation, whose folds have a run each.
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
