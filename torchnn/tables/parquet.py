"""Parquet files read piece by piece, so that no more of a table is in memory than is being looked at."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torchnn.tables.faults import TableError, check_names, check_width, quoted
from torchnn.tables.files import PARQUET, RawTable, Source, digest_of_file, first_bytes, stamp
from torchnn.tables.kinds import kind_of_type

PIECE_ROWS = 65_536  # rows that are decoded at a time, of a table with up to 64 columns
FEWEST_ROWS = 1024  # of a piece, however many columns there are
PIECE_VALUES = 2**22
READ_BYTES = 65_536  # of each column that are read from the disk at a time
MOST_OPEN = 8  # row groups that are read in turn
OPEN_COLUMNS = 128  # of all row groups that are read in turn; each holds a page, 1 MiB by default


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of a row group.

    Attributes:
        file: number of the file.
        group: number of the row group in the file.
        start: its first row, counted in the row group.
        num_rows: how many.
        row_in_file: its first row, counted in the file.
        row: its first row, counted in the whole table.
    """

    file: int
    group: int
    start: int
    num_rows: int
    row_in_file: int
    row: int


@dataclass(frozen=True)
class RawPiece(RawTable):
    """The rows of a piece as they stand in the file.

    Attributes:
        first_row: of the piece, counted in its file, which is the only one of `sources`.
    """

    first_row: int = 0

    def where(self, row: int) -> str:
        """File and row of a row of the piece."""
        return super().where(self.first_row + row)


class ParquetFiles:
    """A table in one or more Parquet files, of which only the metadata is read at once.

    Args:
        paths: the files, each with the same columns.
        max_columns: more columns than these are refused.

    Attributes:
        schema: name and type of each column; where a file has only missing values, the type of another one.
        pieces: what the table consists of, in order.
        num_rows: of all files.

    Raises:
        TableError: a file that is broken, has no rows, or differs from the first one.
    """

    def __init__(self, paths: Sequence[Path], max_columns: int) -> None:
        self.paths = list(paths)
        self.stamps = [stamp(path) for path in self.paths]
        self.metadata = [_metadata(path, max_columns) for path in self.paths]
        self.schema = _common_schema([meta.schema.to_arrow_schema() for meta in self.metadata], self.paths)
        width = max(1, len(self.schema.names))
        self.piece_rows = max(FEWEST_ROWS, min(PIECE_ROWS, 2 ** (PIECE_VALUES // width).bit_length() // 2))
        self.pieces = list(self._cut())
        self.num_rows = sum(meta.num_rows for meta in self.metadata)
        self.sources = tuple(Source(path, m.num_rows) for path, m in zip(self.paths, self.metadata, strict=True))

    def _cut(self) -> Iterator[Piece]:
        row = 0
        for file, meta in enumerate(self.metadata):
            row_in_file = 0
            for group in range(meta.num_row_groups):
                left = meta.row_group(group).num_rows
                for start in range(0, left, self.piece_rows):
                    num_rows = min(self.piece_rows, left - start)
                    yield Piece(file, group, start, num_rows, row_in_file, row)
                    row_in_file, row = row_in_file + num_rows, row + num_rows

    @property
    def largest_group(self) -> int:
        """Rows of the largest row group."""
        groups = (meta.row_group(group).num_rows for meta in self.metadata for group in range(meta.num_row_groups))
        return max(map(int, groups))

    def described(self) -> RawTable:
        """The columns without their rows, to ask for names and types."""
        return RawTable(self.schema.empty_table(), self.sources)

    def nulls(self) -> Counter[str]:
        """Rows of each column that are null, as far as the metadata tell; NaN and words for missing are not counted."""
        counts: Counter[str] = Counter()
        for meta in self.metadata:
            for group in map(meta.row_group, range(meta.num_row_groups)):
                for column in map(group.column, range(meta.num_columns)):
                    known = column.statistics is not None and column.statistics.has_null_count
                    counts[column.path_in_schema] += column.statistics.null_count if known else 0
        return counts

    def fingerprint(self) -> str:
        """That of the contents, the same as when the files are read at once."""
        digest = hashlib.blake2b(digest_size=16)
        for number, path in enumerate(self.paths):
            digest.update(digest_of_file(path))
            self._check_unchanged(number)
        return digest.hexdigest()

    def read(self, pieces: Iterable[Piece], columns: Sequence[str]) -> Iterator[tuple[Piece, RawPiece]]:
        """Some pieces, those of one row group in order, those of different ones in any.

        Of a sequence it is known which is the last piece of a row group, so that nothing of it is held afterwards.

        Raises:
            TableError: a file that has changed since it was first looked at, or is broken.
        """
        names = list(columns)
        last = {(piece.file, piece.group): piece for piece in pieces} if isinstance(pieces, Sequence) else {}
        opened: dict[tuple[int, int], Iterator[tuple[int, pa.Table]]] = {}
        for piece in pieces:
            key = (piece.file, piece.group)
            if key not in opened:
                self._check_unchanged(piece.file)
                opened[key] = self._group(*key, names)
            with self._broken(piece.file):
                data = next(data for start, data in opened[key] if start == piece.start)
            whole = piece.start + piece.num_rows == self.metadata[piece.file].row_group(piece.group).num_rows
            if whole or piece is last.get(key):
                del opened[key]
                self._check_unchanged(piece.file)
            yield piece, RawPiece(data, (self.sources[piece.file],), first_row=piece.row_in_file)

    def _group(self, file: int, group: int, names: list[str]) -> Iterator[tuple[int, pa.Table]]:
        """The pieces of a row group, each with its first row."""
        start, waiting, size = 0, [], self.piece_rows
        left = self.metadata[file].row_group(group).num_rows
        # Buffered, not all of the row group is in memory; threads would be taken from the training.
        with pq.ParquetFile(self.paths[file], metadata=self.metadata[file], buffer_size=READ_BYTES) as opened:
            for batch in opened.iter_batches(size, row_groups=[group], columns=names, use_threads=False):
                waiting.append(batch)
                rows = sum(map(len, waiting))
                if rows == min(size, left):  # Arrow may give fewer rows than asked for
                    yield start, pa.Table.from_batches(waiting).select(names)
                    start, left, waiting = start + rows, left - rows, []

    @contextmanager
    def _broken(self, file: int) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, StopIteration) as error:
            self._check_unchanged(file)
            reason = (str(error).splitlines() or ["it ends too early"])[0].rstrip(".")
            raise TableError(f"{self.paths[file]} is a broken Parquet file ({reason}): write it again.") from error

    def _check_unchanged(self, file: int) -> None:
        if stamp(self.paths[file]) != self.stamps[file]:
            raise TableError(f"{self.paths[file]} changed while it was used: wait until it is complete, start again.")

    def order(self, wanted: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Numbers of pieces in a random order that can be read: several row groups in turn, each from its start.

        Rows that stand close together in a sorted table are so taken apart further than a shuffle buffer could.

        Args:
            wanted: whether to take each piece, (pieces,); a row group without a wanted piece is not opened.
            random: decides.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for number in np.flatnonzero(wanted).tolist():
            piece = self.pieces[number]
            groups.setdefault((piece.file, piece.group), []).append(number)
        queues = list(groups.values())
        closed = [queues[i] for i in random.permutation(len(queues))]
        lanes = max(1, min(MOST_OPEN, OPEN_COLUMNS // max(1, len(self.schema.names))))
        current = [(queue, 0) for queue in closed[:lanes]]
        closed = closed[lanes:][::-1]
        chances = iter(random.random(int(wanted.sum())).tolist())
        order = []
        while current:
            lane = int(next(chances) * len(current))
            queue, done = current[lane]
            order.append(queue[done])
            if done + 1 < len(queue):
                current[lane] = (queue, done + 1)
            elif closed:
                current[lane] = (closed.pop(), 0)
            else:
                current.pop(lane)
        return np.array(order, dtype=np.int64)


def are_parquet(paths: Iterable[Path]) -> bool:
    """Whether all files begin as Parquet files do."""
    return all(first_bytes(path).startswith(PARQUET) for path in paths)


def _metadata(path: Path, max_columns: int) -> pq.FileMetaData:
    try:
        meta = pq.read_metadata(path)
        names = meta.schema.to_arrow_schema().names
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise TableError(f"{path} is a broken Parquet file ({reason}): write it again.") from error
    check_width(len(names), path, max_columns)
    check_names(names, path)
    if meta.num_rows == 0:
        raise TableError(f"{path} has no rows: give a table with data.")
    return meta


def _common_schema(schemas: Sequence[pa.Schema], paths: Sequence[Path]) -> pa.Schema:
    """The columns of all files: of each the first type that is not only missing values."""
    first = schemas[0]
    fields = {name: (first.field(name).type, paths[0]) for name in first.names}
    for schema, path in zip(schemas, paths, strict=True):
        for which, names, other in (("lacks the", first.names, schema.names), ("adds the", schema.names, first.names)):
            if missing := [name for name in names if name not in other]:
                raise TableError(
                    f"{path} {which} columns {quoted(missing)}, unlike {paths[0]}: give files with the same columns."
                )
        for name in first.names:
            (known, where), found = fields[name], schema.field(name).type
            if pa.types.is_null(known):
                fields[name] = (found, path)
            elif not pa.types.is_null(found) and kind_of_type(known) != kind_of_type(found):
                raise TableError(
                    f"column {name!r} holds {known} in {where} and {found} in {path}: "
                    "give files whose columns hold the same."
                )
    return pa.schema([(name, kind) for name, (kind, _) in fields.items()])
