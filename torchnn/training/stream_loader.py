"""Batches of a streamed table: row groups in another order each epoch, a shuffle buffer, and exact positions."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from torchnn.tables.columns import Schema
from torchnn.tables.stream import Stream
from torchnn.tables.stream_parts import ORDER, SHUFFLE, generator
from torchnn.training.batches import Batch

BUFFER_ROWS = 2**20
BUFFER_BYTES = 128 * 2**20
BYTES_BESIDE = 16  # of a row: its number, target and weight
ROWS_IN_ORDER = 65_536  # read ahead where nothing is shuffled


def buffer_rows(schema: Schema) -> int:
    """Rows of a shuffle buffer: 1,048,576, or as many as 128 MiB hold.

    >>> from torchnn.tables.columns import Column
    >>> buffer_rows(Schema(tuple(Column(f"x{i}", "number") for i in range(1000))))
    33420
    """
    bytes_per_row = len(schema.slots) * (8 if schema.exact else 4) + BYTES_BESIDE
    return max(1, min(BUFFER_ROWS, BUFFER_BYTES // bytes_per_row))


class StreamLoader:
    """Iterates over a part of a stream in batches; Lightning takes it as a data loader.

    An epoch is a sequence of rows: that of the table, or, shuffled, of its row groups in an order that follows from
    seed and epoch alone. Each of `num_ranks` processes takes a stretch of its own, so that it reads nothing of the
    others', in buffers of a whole number of batches; each buffer is shuffled, again by seed and epoch. Where a core is
    free, a thread reads the next one meanwhile, and two are in memory. When shuffling, all ranks get the same number
    of rows: up to `num_ranks` − 1 rows, others each epoch, sit an epoch out. In order, nothing is left out and nothing
    repeated.

    `state_dict` says how far an epoch has come, as that of `BatchLoader` does. After `load_state_dict` the next
    iteration goes on from there: what comes before its buffer is not read.

    Args:
        stream: where the rows come from.
        part: train, val, test or all.
        batch_size: rows in a batch, per process; the last batch may be smaller.
        shuffle_seed: None to keep the order of the table.
        rank: number of this process.
        num_ranks: number of processes.
        shuffle_rows: rows of the shuffle buffer, rounded down to whole batches, one at least; None for `buffer_rows`.
    """

    def __init__(
        self,
        stream: Stream,
        part: str,
        batch_size: int,
        shuffle_seed: int | None = None,
        rank: int = 0,
        num_ranks: int = 1,
        shuffle_rows: int | None = None,
    ) -> None:
        self.stream = stream
        self.part = part
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.rank = rank
        self.num_ranks = num_ranks
        wanted = shuffle_rows or buffer_rows(stream.schema)
        if shuffle_seed is None:
            wanted = min(wanted, ROWS_IN_ORDER)
        self.buffer_rows = max(1, wanted // batch_size) * batch_size
        self.counts = stream.counts_of(part)
        self.num_rows = int(self.counts.sum())
        if shuffle_seed is None:
            self.first, self.stop = (self.num_rows * r // num_ranks for r in (rank, rank + 1))
        else:
            self.first, self.stop = (self.num_rows // num_ranks * r for r in (rank, rank + 1))
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
        rows = min(self.steps_served * self.rows_per_step, self.num_rows)
        return {"epoch": self.epoch, "rows": rows, **self._order()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on where `state_dict` was taken.

        Raises:
            ValueError: rows came in another order there.
        """
        for name, own in self._order().items():
            if state[name] != own:
                raise ValueError(
                    f"the checkpoint was written inside an epoch whose order has {name} {state[name]}, this one has "
                    f"{own}: use the same, or a checkpoint from the end of an epoch."
                )
        self.epoch = state["epoch"]
        self.steps_served = self.steps_to_skip = -(-state["rows"] // self.rows_per_step)

    def _order(self) -> dict[str, int | None]:
        """What the order of an epoch depends on."""
        names = ("rows_per_step", "num_ranks", "buffer_rows")
        return {"seed": self.shuffle_seed, **{name: getattr(self, name) for name in names}}

    def __len__(self) -> int:
        return -(-(self.stop - self.first) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        self.steps_served, self.steps_to_skip = self.steps_to_skip, 0
        buffer, start = divmod(self.steps_served * self.batch_size, self.buffer_rows)
        buffers = self._buffers(buffer)
        for rows in read_ahead(buffers) if has_spare_core() else buffers:
            for batch in self._batches(rows, buffer, start):
                self.steps_served += 1
                yield batch
            del rows  # before the next one, or the one after it, is made
            buffer, start = buffer + 1, 0
        pa.default_memory_pool().release_unused()  # what the pages took, before validation needs it

    def _batches(self, rows: Batch, buffer: int, start: int) -> Iterator[Batch]:
        num_rows, size = len(rows.row), self.batch_size
        if self.shuffle_seed is None:
            for at in range(start, num_rows, size):
                yield _taken(rows, slice(at, at + size))
            return
        random = generator(self.shuffle_seed, SHUFFLE, self.epoch, self.rank, buffer << 32)
        order = torch.from_numpy(random.permutation(num_rows))
        for at in range(start, num_rows, size):
            yield _taken(rows, order[at : at + size])

    def _buffers(self, number: int) -> Iterator[Batch]:
        """The rows of this rank, from one buffer on."""
        begin = self.first + number * self.buffer_rows
        filling: Batch | None = None
        filled = 0
        for rows in self._rows(begin):
            done = 0
            while done < len(rows.row):
                if filling is None:
                    size = min(self.buffer_rows, self.stop - begin)
                    filling, filled = _room(rows, size), 0
                taken = min(len(filling.row) - filled, len(rows.row) - done)
                _copy(rows, done, filling, filled, taken)
                done, filled = done + taken, filled + taken
                if filled == len(filling.row):
                    begin += filled
                    yield _finished(filling)
                    filling = None

    def _rows(self, begin: int) -> Iterator[Batch]:
        """The rows of this rank from position `begin` of the epoch on, piece by piece."""
        if begin >= self.stop:
            return
        order, out, num_out = np.flatnonzero(self.counts), 0, 0
        if self.shuffle_seed is not None:
            random = generator(self.shuffle_seed, ORDER, self.epoch)
            order = self.stream.files.order(self.counts > 0, random)
            num_out = self.num_rows % self.num_ranks
            out = int(random.integers(self.num_rows - num_out + 1))  # from here on, so many rows sit this epoch out
        begin += num_out * (begin >= out)
        stop = self.stop + num_out * (self.stop > out)
        ends = self.counts[order].cumsum()
        first, last = np.searchsorted(ends, [begin, stop - 1], side="right").tolist()
        pieces = [self.stream.files.pieces[i] for i in order[first : last + 1]]
        position = int(ends[first] - self.counts[order[first]])
        for numbers, table in self.stream.tables(pieces, self.part, ids=self.shuffle_seed is None):
            for low, high in ((begin, min(stop, out)), (max(begin, out + num_out), stop)):
                kept = slice(max(0, low - position), max(0, high - position))
                if len(numbers[kept]):
                    ids = None if table.ids is None else table.ids[kept]
                    weight = None if table.weight is None else table.weight[kept]
                    row = torch.from_numpy(numbers)[kept]
                    yield Batch(row, table.features[kept], table.target[kept], weight, ids)
            position += len(numbers)


def has_spare_core() -> bool:
    """Whether a thread that reads takes nothing from the training: it is on another device, or leaves a core free.

    On as many cores as torch has threads, each of its steps would wait for the thread that was interrupted: reading
    and training in turn is faster there.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return torch.accelerator.is_available() or torch.get_num_threads() < cores


def read_ahead(buffers: Iterator[Batch]) -> Iterator[Batch]:
    """The buffers; while one is used, a thread reads the next."""
    with ThreadPoolExecutor(1, thread_name_prefix="torchnn-stream") as thread:
        coming = thread.submit(next, buffers, None)
        while (rows := coming.result()) is not None:
            coming = thread.submit(next, buffers, None)
            yield rows
            del rows


def _taken(rows: Batch, which: slice | Tensor) -> Batch:
    """Some of the rows; ids are kept of slices alone."""
    weight = None if rows.weight is None else rows.weight[which]
    ids = rows.ids[which] if rows.ids is not None and isinstance(which, slice) else None
    return Batch(rows.row[which], rows.features[which], rows.target[which], weight, ids)


def _room(like: Batch, num_rows: int) -> Batch:
    """Space for rows."""
    row, features, target = (t.new_empty((num_rows, *t.shape[1:])) for t in (like.row, like.features, like.target))
    weight = None if like.weight is None else like.weight.new_empty(num_rows)
    return Batch(row, features, target, weight, None if like.ids is None else [])


def _copy(rows: Batch, start: int, room: Batch, at: int, count: int) -> None:
    for source, target in zip(rows[:4], room[:4], strict=True):
        if source is not None and target is not None:
            target[at : at + count] = source[start : start + count]
    if room.ids is not None:
        room.ids.extend(rows.ids.slice(start, count).chunks)


def _finished(room: Batch) -> Batch:
    """Its ids in one."""
    return room if room.ids is None else room._replace(ids=pa.chunked_array(room.ids))
