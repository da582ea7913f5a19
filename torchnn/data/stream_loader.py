"""Batches of a streamed table: row groups in another order each epoch, a shuffle buffer, and exact positions."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from torchnn.data.batches import Batch, EpochLoader
from torchnn.tables.columns import Schema
from torchnn.tables.stream import Stream
from torchnn.tables.stream_parts import ORDER, SHUFFLE, generator
from torchnn.tables.table import Table

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


class StreamLoader(EpochLoader):
    """Iterates over a part of a stream in batches; Lightning takes it as a data loader.

    An epoch is a sequence of rows: those of the row groups in an order that follows from seed and epoch alone, cut into
    buffers of a whole number of batches, each shuffled as a whole, again by seed and epoch. That order is the same for
    any number of processes. Each process reads a stretch of each buffer and gives, in every step, those rows of the
    batch that lie in its stretch: about as many as the others, in the whole buffer exactly. Where a core is free, a
    thread reads the next buffer meanwhile, and two are in memory.

    Without a shuffle, each process takes a stretch of the whole table, in order, and gives its share of `batch_size`
    rows at a time.

    Args:
        stream: where the rows come from.
        part: train, val, test or all.
        batch_size: rows of a step, of all processes together; the last step may have fewer.
        shuffle_seed: None to keep the order of the table.
        rank: number of this process.
        num_ranks: number of processes.
        shuffle_rows: rows of the shuffle buffer, of all processes together, rounded down to whole batches, one at
            least; None for `buffer_rows`.
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
        counts = stream.counts_of(part)
        shares = num_ranks if shuffle_seed is None else 1
        self.own_rows = -(-batch_size // shares)  # of the rows in order that this process has, those of a batch
        super().__init__(int(counts.sum()), self.own_rows * shares, shuffle_seed, rank, num_ranks)
        self.stream = stream
        self.part = part
        self.counts = counts
        wanted = shuffle_rows or buffer_rows(stream.schema)
        if shuffle_seed is None:
            wanted = min(wanted, ROWS_IN_ORDER)
        self.buffer_rows = max(1, wanted // self.own_rows) * self.own_rows

    def order(self) -> dict[str, int | None]:
        return {**super().order(), "buffer_rows": self.buffer_rows}

    def batches(self, first_step: int) -> Iterator[Batch]:
        number, start = divmod(first_step * self.own_rows, self.buffer_rows)
        left = len(self) - first_step
        buffers = self._buffers(number) if left else iter(())
        for rows in read_ahead(buffers) if has_spare_core() else buffers:
            for batch in self._batches(rows, number, start):
                left -= 1
                yield batch
            nothing = _taken(rows, rows.row[:0])
            del rows  # before the next one, or the one after it, is made
            number, start = number + 1, 0
        pa.default_memory_pool().release_unused()  # what the pages took, before validation needs it
        for _ in range(left):  # in order, another process has a row more
            yield nothing

    def _batches(self, rows: Batch, number: int, start: int) -> Iterator[Batch]:
        """This process's share of the batches of a buffer, of which it has read its stretch."""
        if self.shuffle_seed is None:
            for at in range(start, len(rows.row), self.own_rows):
                yield _taken(rows, slice(at, at + self.own_rows))
            return
        begin, end = self._bounds(number)
        random = generator(self.shuffle_seed, SHUFFLE, self.epoch, 0, number << 32)
        order = torch.from_numpy(random.permutation(end - begin))
        low, high = self._stretch(end - begin)
        for at in range(start, end - begin, self.own_rows):
            chosen = order[at : at + self.own_rows]
            if self.num_ranks > 1:
                chosen = chosen[(chosen >= low) & (chosen < high)] - low
            yield _taken(rows, chosen)

    def _bounds(self, number: int) -> tuple[int, int]:
        """Where a buffer begins and ends in the sequence that it is a part of."""
        first, stop = (0, self.num_rows) if self.shuffle_seed is not None else self._stretch(self.num_rows)
        begin = first + number * self.buffer_rows
        return begin, min(begin + self.buffer_rows, stop)

    def _stretch(self, num_rows: int) -> tuple[int, int]:
        """The part of so many rows that this process reads."""
        low, high = (num_rows * rank // self.num_ranks for rank in (self.rank, self.rank + 1))
        return low, high

    def _buffers(self, number: int) -> Iterator[Batch]:
        """What this process reads of each buffer, from one on."""
        wanted = self._wanted(number)
        uses = Counter(cut.piece for cuts in wanted for cut in cuts)
        pieces = [self.stream.files.pieces[piece] for piece in uses]
        tables = self.stream.tables(pieces, self.part, ids=self.shuffle_seed is None)
        kept: dict[int, Batch] = {}  # pieces that later buffers have rows of
        for cuts in wanted:
            room, filled = None, 0
            for cut in cuts:
                rows = kept.pop(cut.piece) if cut.piece in kept else _as_batch(*next(tables))
                uses[cut.piece] -= 1
                if uses[cut.piece]:
                    kept[cut.piece] = rows
                room = room or _room(rows, sum(other.num_rows for other in cuts))
                _copy(rows, cut.start, room, filled, cut.num_rows)
                filled += cut.num_rows
            assert room is not None
            yield _finished(room)

    def _wanted(self, number: int) -> list[list["Cut"]]:
        """What this process reads of each buffer, from one on, at least of one, if only no rows of a piece."""
        order = np.flatnonzero(self.counts)
        if self.shuffle_seed is not None:
            order = self.stream.files.order(self.counts > 0, generator(self.shuffle_seed, ORDER, self.epoch))
        stops = self.counts[order].cumsum()
        wanted: list[list[Cut]] = []
        while (bounds := self._bounds(number))[0] < bounds[1] or not wanted:
            cuts = list(cuts_between(order, stops, *bounds))
            if self.shuffle_seed is not None:  # the order of the buffer is lost, so a row group may stay together
                cuts = stretch_of(sorted(cuts), *self._stretch(bounds[1] - bounds[0]))
            wanted.append(cuts)
            number += 1
        return wanted


@dataclass(frozen=True, order=True)
class Cut:
    """Consecutive rows of those of a piece that belong to the part.

    Attributes:
        piece: its number.
        start: the first row.
        stop: the row after the last one.
    """

    piece: int
    start: int
    stop: int

    @property
    def num_rows(self) -> int:
        return self.stop - self.start


def cuts_between(order: np.ndarray, stops: np.ndarray, begin: int, end: int) -> Iterator[Cut]:
    """The rows from `begin` to `end` − 1 of a sequence of pieces; of no rows a cut without any.

    Args:
        order: numbers of the pieces.
        stops: where each of them ends in the sequence.
        begin: the first row.
        end: the row after the last one.

    >>> list(cuts_between(np.array([5, 2]), np.array([10, 14]), 8, 12))
    [Cut(piece=5, start=8, stop=10), Cut(piece=2, start=0, stop=2)]
    """
    first, last = np.searchsorted(stops, [begin, max(begin, end - 1)], side="right").clip(max=len(order) - 1).tolist()
    starts = np.append(0, stops)
    for number in range(first, last + 1):
        piece, start, stop = int(order[number]), int(starts[number]), int(stops[number])
        yield Cut(piece, max(begin - start, 0), max(begin, min(end, stop)) - start)


def stretch_of(cuts: Sequence[Cut], low: int, high: int) -> list[Cut]:
    """The rows from `low` to `high` − 1 of a sequence of cuts; of no rows a cut without any.

    >>> stretch_of([Cut(5, 8, 10), Cut(7, 0, 4)], 1, 3)
    [Cut(piece=5, start=9, stop=10), Cut(piece=7, start=0, stop=1)]
    """
    found, at = [], 0
    for cut in cuts:
        start, stop = (min(max(cut.start + edge - at, cut.start), cut.stop) for edge in (low, high))
        if start < stop:
            found.append(replace(cut, start=start, stop=stop))
        at += cut.num_rows
    return found or [replace(cuts[0], stop=cuts[0].start)]


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


def _as_batch(numbers: np.ndarray, table: Table) -> Batch:
    return Batch(torch.from_numpy(numbers), table.features, table.target, table.weight, table.ids)


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
