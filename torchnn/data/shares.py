"""How several processes share the rows of a step, so that together they take the same step as one process."""

from typing import Any, NamedTuple

import torch


class Share(NamedTuple):
    """How much the batch of one process counts in a step whose loss is a mean over rows.

    Attributes:
        rows: rows of all processes together in this batch.
        of_batch: factor for the mean loss of this process's rows; the mean of the products over the processes is the
            mean loss of all rows of the batch.
        of_step: the same with accumulated gradients: the mean of the products over processes and batches is the mean
            loss of all rows of the step.
    """

    rows: int
    of_batch: float = 1.0
    of_step: float = 1.0


def data_rank(trainer: Any) -> tuple[int, int]:
    """The number of this process among the processes with different rows, and the number of these processes.

    Processes that work on the same rows, each with a part of the network, count as one.
    """
    kwargs = None if trainer is None else trainer.distributed_sampler_kwargs
    return (0, 1) if kwargs is None else (kwargs["rank"], kwargs["num_replicas"])


def share_of(trainer: Any, batch_idx: int, num_rows: int, device: torch.device) -> Share:
    """The share of this process's rows in a training batch.

    DDP and FSDP2 average gradients over processes, and Lightning averages them over accumulated batches. This mean of
    means is the mean over rows only if every process and batch has the same number of rows. Each mean is therefore
    multiplied by its number of rows, divided by that of the average batch of the step. An `EpochLoader` knows the rows
    of every step; with another loader, the processes exchange their numbers of rows, and accumulated batches count
    equally.

    Args:
        trainer: the trainer; None without one.
        batch_idx: number of the batch in its epoch.
        num_rows: rows of this process.
        device: the device of the exchange between processes.
    """
    every = 1 if trainer is None else trainer.accumulate_grad_batches
    _, replicas = data_rank(trainer)
    if replicas == 1 and every == 1:
        return Share(num_rows)
    rows_of_steps = getattr(trainer.train_dataloader, "rows_of_steps", None)
    if rows_of_steps is None:
        if replicas == 1:
            return Share(num_rows)
        rows = int(trainer.strategy.reduce(torch.tensor(num_rows, device=device), reduce_op="sum"))
        share = num_rows * replicas / max(rows, 1)
        return Share(rows, share, share)
    rows = rows_of_steps(batch_idx, batch_idx + 1)
    first = batch_idx - batch_idx % every
    of_step = rows_of_steps(first, min(first + every, trainer.num_training_batches))
    return Share(rows, num_rows * replicas / rows, num_rows * replicas * every / of_step)
