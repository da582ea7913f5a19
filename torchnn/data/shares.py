"""What each of several processes contributes to a step, so that all of them together take that of one process."""

from typing import Any, NamedTuple

import torch


class Share(NamedTuple):
    """Of a step that is a mean over rows, what one process's batch is.

    Attributes:
        rows: of all processes together in this batch.
        of_batch: multiplies the mean loss of this process's rows; the mean of the products over processes is the mean
            loss of all rows of the batch.
        of_step: the same with accumulated gradients: the mean of the products over processes and batches is the mean
            loss of all rows of the step.
    """

    rows: int
    of_batch: float = 1.0
    of_step: float = 1.0


def place(trainer: Any) -> tuple[int, int]:
    """Number of this process among those that have rows of their own, and how many these are.

    Processes that share a row, each with a part of the network, count as one.
    """
    kwargs = None if trainer is None else trainer.distributed_sampler_kwargs
    return (0, 1) if kwargs is None else (kwargs["rank"], kwargs["num_replicas"])


def share_of(trainer: Any, batch_idx: int, num_rows: int, device: torch.device) -> Share:
    """The share of this process's rows of a training batch.

    Gradients are averaged over processes by DDP and FSDP2, and over accumulated batches by Lightning: a mean of means,
    which is the mean over rows only where all have as many rows. Each mean is therefore multiplied by its number of
    rows, relative to that of the average batch of the step. Loaders that know the rows of every step (`EpochLoader`)
    are asked; with others, processes tell each other how many rows they have, and accumulated batches count alike.

    Args:
        trainer: that fits; None for none.
        batch_idx: number of the batch in its epoch.
        num_rows: of this process.
        device: that processes talk from.
    """
    every = 1 if trainer is None else trainer.accumulate_grad_batches
    _, replicas = place(trainer)
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
