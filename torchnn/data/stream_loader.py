"""Batches of a streamed table: row groups in another order each epoch, a shuffle buffer, and exact resuming."""

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
from torchnn.tables.schema import Schema
from torchnn.tables.split import ORDER_STREAM, SHUFFLE_STREAM, random_stream
from torchnn.tables.stream import Stream
from torchnn.tables.table import Table

MOST_BUFFER_ROWS = 2**20
BUFFER_BYTES = 128 * 2**20
BYTES_WITHOUT_FEATURES = 16  # of a row: its number, target and weight
ROWS_IN_ORDER = 65_536  # read ahead if nothing is shuffled


def default_buffer_rows(schema: Schema) -> int:
    """Number of rows of a shuffle buffer: what fits into 128 MiB, at most 1,048,576.

    >>> from torchnn.tables.schema import Column
    >>> default_buffer_rows(Schema(columns=tuple(Column(name=f"x{i}", kind="number") for i in range(1000))))
    33420
    """
    bytes_per_row = len(schema.slots) * (8 if schema.exact else 4) + BYTES_WITHOUT_FEATURES
    return max(1, min(MOST_BUFFER_ROWS, BUFFER_BYTES // bytes_per_row))


class StreamLoader(EpochLoader):
    """Iterates over a part of a stream in batches; Lightning accepts it as a data loader.

    An epoch is a sequence of rows. The row groups come in an order that depends only on seed and epoch. The sequence is
    cut into buffers of a whole number of batches, and each buffer is shuffled as a whole, again by seed and epoch. So
    the order is the same for any number of processes. Each process reads one slice of each buffer, and in every step
    serves the rows of the batch that are in its slice: about the same number as the other processes, and exactly the
    same number over the whole buffer. If a core is free, a thread reads the next buffer in the meantime, so two buffers
    are in memory.

    Without shuffling, each process serves one slice of the whole table, in order, with its share of `batch_size` rows
    in each step.

    Args:
        stream: the table.
        part: train, val, test or all.
        batch_size: rows of a step, of all processes together; the last step may have fewer.
        shuffle_seed: None to keep the order of the table.
        rank: number of this process.
        num_ranks: number of processes.
        shuffle_rows: rows of the shuffle buffer, of all processes together, rounded down to whole batches but at least
            one; None for `default_buffer_rows`.
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
        self.own_rows = -(-batch_size // shares)  # of a step: in order, those of this process; shuffled, all
        super().__init__(int(counts.sum()), self.own_rows * shares, shuffle_seed, rank, num_ranks)
        self.stream = stream
        self.part = part
        self.counts = counts
        wanted = shuffle_rows or default_buffer_rows(stream.schema)
        if shuffle_seed is None:
            wanted = min(wanted, ROWS_IN_ORDER)
        self.buffer_rows = max(1, wanted // self.own_rows) * self.own_rows

    def order(self) -> dict[str, int | None]:
        return {**super().order(), "buffer_rows": self.buffer_rows}

    def batches(self, first_step: int) -> Iterator[Batch]:
        number, start = divmod(first_step * self.own_rows, self.buffer_rows)
        left = len(self) - first_step
        buffers = self._read_buffers(number) if left else iter(())
        for rows in read_ahead(buffers) if has_spare_core() else buffers:
            for batch in self._batches_of_buffer(rows, number, start):
                left -= 1
                yield batch
            empty = _select(rows, rows.row[:0])
            del rows  # frees the buffer before the next one is read
            number, start = number + 1, 0
        pa.default_memory_pool().release_unused()  # frees what the pages took, because validation needs it
        for _ in range(left):  # in order, another process may have one step more
            yield empty

    def _batches_of_buffer(self, rows: Batch, number: int, start: int) -> Iterator[Batch]:
        """This process's share of the batches of a buffer, from its slice of the buffer."""
        if self.shuffle_seed is None:
            for first in range(start, len(rows.row), self.own_rows):
                yield _select(rows, slice(first, first + self.own_rows))
            return
        begin, end = self._buffer_bounds(number)
        random = random_stream(self.shuffle_seed, SHUFFLE_STREAM, self.epoch, 0, number << 32)
        order = torch.from_numpy(random.permutation(end - begin))
        low, high = self._own_slice(end - begin)
        for first in range(start, end - begin, self.own_rows):
            chosen = order[first : first + self.own_rows]
            if self.num_ranks > 1:
                chosen = chosen[(chosen >= low) & (chosen < high)] - low
            yield _select(rows, chosen)

    def _buffer_bounds(self, number: int) -> tuple[int, int]:
        """The first row of a buffer and the row after its last one, in the sequence of the epoch."""
        first, stop = (0, self.num_rows) if self.shuffle_seed is not None else self._own_slice(self.num_rows)
        begin = first + number * self.buffer_rows
        return begin, min(begin + self.buffer_rows, stop)

    def _own_slice(self, num_rows: int) -> tuple[int, int]:
        """The rows, of `num_rows` consecutive ones, that this process reads: the first, and the one after the last."""
        low, high = (num_rows * rank // self.num_ranks for rank in (self.rank, self.rank + 1))
        return low, high

    def _read_buffers(self, number: int) -> Iterator[Batch]:
        """This process's slice of each buffer, from buffer `number` on."""
        wanted = self._segments_of_buffers(number)
        uses = Counter(segment.piece for segments in wanted for segment in segments)
        pieces = [self.stream.files.pieces[piece] for piece in uses]
        tables = self.stream.tables(pieces, self.part, ids=self.shuffle_seed is None)
        kept: dict[int, Batch] = {}  # pieces with rows of later buffers
        for segments in wanted:
            buffer, filled = None, 0
            for segment in segments:
                rows = kept.pop(segment.piece) if segment.piece in kept else _as_stream_batch(*next(tables))
                uses[segment.piece] -= 1
                if uses[segment.piece]:
                    kept[segment.piece] = rows
                buffer = buffer or _new_buffer(rows, sum(other.num_rows for other in segments))
                _copy_rows(rows, segment.start, buffer, filled, segment.num_rows)
                filled += segment.num_rows
            assert buffer is not None
            yield buffer if buffer.ids is None else buffer._replace(ids=pa.chunked_array(buffer.ids))

    def _segments_of_buffers(self, number: int) -> list[list["Segment"]]:
        """What this process reads for each buffer, from buffer `number` on; at least one list, which may be empty."""
        order = np.flatnonzero(self.counts)
        if self.shuffle_seed is not None:
            random = random_stream(self.shuffle_seed, ORDER_STREAM, self.epoch)
            order = self.stream.files.shuffled_order(self.counts > 0, random)
        stops = self.counts[order].cumsum()
        wanted: list[list[Segment]] = []
        while (bounds := self._buffer_bounds(number))[0] < bounds[1] or not wanted:
            segments = list(segments_between(order, stops, *bounds))
            if self.shuffle_seed is not None:  # the buffer will be shuffled, so row groups may be read in one go
                segments = slice_segments(sorted(segments), *self._own_slice(bounds[1] - bounds[0]))
            wanted.append(segments)
            number += 1
        return wanted


@dataclass(frozen=True, order=True)
class Segment:
    """Consecutive rows among those rows of a piece that belong to the part.

    Attributes:
        piece: number of the piece.
        start: the first row.
        stop: the row after the last one.
    """

    piece: int
    start: int
    stop: int

    @property
    def num_rows(self) -> int:
        return self.stop - self.start


def segments_between(order: np.ndarray, stops: np.ndarray, begin: int, end: int) -> Iterator[Segment]:
    """The rows from `begin` to `end` − 1 of a sequence of pieces; one empty segment if there are none.

    Args:
        order: numbers of the pieces.
        stops: the end of each piece in the sequence.
        begin: the first row.
        end: the row after the last one.

    >>> list(segments_between(np.array([5, 2]), np.array([10, 14]), 8, 12))
    [Segment(piece=5, start=8, stop=10), Segment(piece=2, start=0, stop=2)]
    """
    first, last = np.searchsorted(stops, [begin, max(begin, end - 1)], side="right").clip(max=len(order) - 1).tolist()
    starts = np.append(0, stops)
    for number in range(first, last + 1):
        piece, start, stop = int(order[number]), int(starts[number]), int(stops[number])
        yield Segment(piece, max(begin - start, 0), max(begin, min(end, stop)) - start)


def slice_segments(segments: Sequence[Segment], low: int, high: int) -> list[Segment]:
    """The rows from `low` to `high` − 1 of a sequence of segments; one empty segment if there are none.

    >>> slice_segments([Segment(5, 8, 10), Segment(7, 0, 4)], 1, 3)
    [Segment(piece=5, start=9, stop=10), Segment(piece=7, start=0, stop=1)]
    """
    found, position = [], 0
    for segment in segments:
        start, stop = (min(max(segment.start + edge - position, segment.start), segment.stop) for edge in (low, high))
        if start < stop:
            found.append(replace(segment, start=start, stop=stop))
        position += segment.num_rows
    return found or [replace(segments[0], stop=segments[0].start)]


def has_spare_core() -> bool:
    """Whether a reading thread would not slow down the training, because that leaves a core free or uses a GPU.

    If torch has as many threads as there are cores, each training step would wait for the thread that the reading
    interrupts, so it is faster to read and train in turn.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return torch.accelerator.is_available() or torch.get_num_threads() < cores


def read_ahead(buffers: Iterator[Batch]) -> Iterator[Batch]:
    """The buffers; while one is in use, a thread reads the next."""
    with ThreadPoolExecutor(1, thread_name_prefix="torchnn-stream") as thread:
        coming = thread.submit(next, buffers, None)
        while (rows := coming.result()) is not None:
            coming = thread.submit(next, buffers, None)
            yield rows
            del rows


def _as_stream_batch(numbers: np.ndarray, table: Table) -> Batch:
    return Batch(
        row=torch.from_numpy(numbers),
        features=table.features,
        target=table.target,
        weight=table.weight,
        ids=table.ids,
    )


def _select(rows: Batch, which: slice | Tensor) -> Batch:
    """Some of the rows; ids are kept only for slices."""
    return Batch(
        row=rows.row[which],
        features=rows.features[which],
        target=rows.target[which],
        weight=None if rows.weight is None else rows.weight[which],
        ids=rows.ids[which] if rows.ids is not None and isinstance(which, slice) else None,
    )


def _new_buffer(like: Batch, num_rows: int) -> Batch:
    """A batch of `num_rows` rows without contents; its ids are a list of chunks."""
    row, features, target = (t.new_empty((num_rows, *t.shape[1:])) for t in (like.row, like.features, like.target))
    weight = None if like.weight is None else like.weight.new_empty(num_rows)
    return Batch(row=row, features=features, target=target, weight=weight, ids=None if like.ids is None else [])


def _copy_rows(rows: Batch, start: int, buffer: Batch, position: int, count: int) -> None:
    """Copy `count` rows from `start` on into the buffer at `position`."""
    for source, target in zip(rows[:4], buffer[:4], strict=True):
        if source is not None and target is not None:
            target[position : position + count] = source[start : start + count]
    if buffer.ids is not None:
        buffer.ids.extend(rows.ids.slice(start, count).chunks)
