"""Batches by whole-tensor indexing: one gather a batch, instead of a Python call a row."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from torchnn.tables.table import Table

EPOCHS_OF_A_SEED = 2**31  # seeds are below 2**32, so that no two orders of any two seeds share a generator


class Batch(NamedTuple):
    """Rows of a table.

    Attributes:
        row: position of each row in its table, int64, shape (rows,).
        features: shape (rows, columns).
        target: shape (rows,).
        weight: of each row in the loss, shape (rows,); None for 1.
        ids: what names each row, an Arrow array of (rows,), where rows come in order; None for their number.
    """

    row: Tensor
    features: Tensor
    target: Tensor
    weight: Tensor | None = None
    ids: Any = None


def as_batch(batch: Any) -> Batch:
    """A batch of anybody's loader: (features, target) becomes a `Batch` with rows numbered from 0."""
    if isinstance(batch, Batch):
        return batch
    features, target = batch
    return Batch(torch.arange(len(target)), features, target.reshape(-1))


class BatchLoader:
    """Iterates over some rows of a table in batches; Lightning takes it as a data loader.

    Each of `num_ranks` processes gets every `num_ranks`-th row. When shuffling, all ranks get the same number of rows,
    so that every process takes part in every step: up to `num_ranks` − 1 rows, others each epoch, sit an epoch out.
    In order, nothing is left out and nothing repeated.

    `state_dict` says how far an epoch has come: epoch, rows served by all processes together, and seed, from which
    the order and so everything else follows. After `load_state_dict` the next iteration goes on from there.

    Args:
        table: where the rows come from.
        rows: positions in the table, int64, shape (n,).
        batch_size: rows in a batch, per process; the last batch may be smaller.
        shuffle_seed: None to keep the order of `rows`; else epoch e is shuffled by a generator of seed and e.
        rank: number of this process.
        num_ranks: number of processes.

    >>> table = Table(torch.arange(6.0).view(3, 2), torch.ones(3), ("a", "b"), ("no", "yes"))
    >>> [batch.row.tolist() for batch in BatchLoader(table, torch.arange(3), batch_size=2)]
    [[0, 1], [2]]
    >>> loader = BatchLoader(table, torch.arange(3), batch_size=2)
    >>> loader.load_state_dict({"epoch": 0, "rows": 2, "seed": None, "rows_per_step": 2})
    >>> [batch.row.tolist() for batch in loader]
    [[2]]
    """

    def __init__(
        self,
        table: Table,
        rows: Tensor,
        batch_size: int,
        shuffle_seed: int | None = None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.table = table
        self.rows = rows
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.rank = rank
        self.num_ranks = num_ranks
        self.epoch = 0
        self.steps_served = 0
        self.steps_to_skip = 0  # by the next iteration alone
        self.sampler, self.batch_sampler = self, None  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; Lightning calls this at the start of every epoch."""
        if epoch != self.epoch:
            self.epoch, self.steps_served, self.steps_to_skip = epoch, 0, 0

    @property
    def rows_per_step(self) -> int:
        """Rows that all processes together take in one step, unless it is the last of an epoch."""
        return self.batch_size * self.num_ranks

    def state_dict(self) -> dict[str, int | None]:
        """How far the epoch has come; the same on every rank."""
        rows = min(self.steps_served * self.rows_per_step, len(self.rows))
        return {"epoch": self.epoch, "rows": rows, "seed": self.shuffle_seed, "rows_per_step": self.rows_per_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on where `state_dict` was taken.

        Raises:
            ValueError: that was another order, or steps of another size, in which no step ends at this row.
        """
        if state["seed"] != self.shuffle_seed:
            raise ValueError(f"its rows were shuffled by seed {state['seed']}, these are by {self.shuffle_seed}.")
        if state["rows_per_step"] != self.rows_per_step:
            raise ValueError(
                f"it was written inside an epoch with steps of {state['rows_per_step']} rows (batch size times number "
                f"of processes), these have {self.rows_per_step}: use the same, or a checkpoint from the end of an "
                "epoch."
            )
        self.epoch = state["epoch"]
        self.steps_served = self.steps_to_skip = -(-state["rows"] // self.rows_per_step)

    def rows_of_this_rank(self) -> Tensor:
        """The rows of the current epoch, in order, that this process sees."""
        if self.shuffle_seed is None:
            return self.rows[self.rank :: self.num_ranks]
        generator = torch.Generator().manual_seed(self.shuffle_seed * EPOCHS_OF_A_SEED + self.epoch)
        order = torch.randperm(len(self.rows), generator=generator)
        even = len(order) - len(order) % self.num_ranks
        return self.rows[order[:even]][self.rank :: self.num_ranks]

    def __len__(self) -> int:
        num_rows = len(self.rows)
        if self.shuffle_seed is None:
            num_rows += self.num_ranks - 1 - self.rank
        return -(-(num_rows // self.num_ranks) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        self.steps_served, self.steps_to_skip = self.steps_to_skip, 0
        all_rows = self.rows_of_this_rank()
        for start in range(self.steps_served * self.batch_size, len(all_rows), self.batch_size):
            rows = all_rows[start : start + self.batch_size]
            self.steps_served += 1
            weight = None if self.table.weight is None else self.table.weight[rows]
            in_order = self.shuffle_seed is None and self.table.ids is not None
            ids = self.table.ids.take(pa.array(rows.numpy())) if in_order else None
            yield Batch(rows, self.table.features[rows], self.table.target[rows], weight, ids)
