"""Read Parquet files in pieces, so that only the piece in use is in memory."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torchnn.tables.errors import TableError, check_names, check_width, corrupt_file
from torchnn.tables.files import PARQUET, file_digest, file_state, first_bytes
from torchnn.tables.kinds import kind_of_type
from torchnn.tables.raw import RawTable, SourceFile, check_same_columns, different_types

PIECE_ROWS = 65_536  # rows of a piece, for a table with up to 64 columns
FEWEST_PIECE_ROWS = 1024  # rows of a piece, however many columns there are
PIECE_VALUES = 2**22
READ_BYTES = 65_536  # read from the disk at a time, for each column
MOST_OPEN_GROUPS = 8  # row groups that are read in turn
MOST_OPEN_COLUMNS = 128  # columns of all row groups that are read in turn; each holds a page, 1 MiB by default


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Consecutive rows of a row group.

    Attributes:
        file: number of the file.
        group: number of the row group in the file.
        start: position of the first row in the row group.
        num_rows: number of rows.
        row_in_file: position of the first row in the file.
        row: position of the first row in the whole table.
    """

    file: int
    group: int
    start: int
    num_rows: int
    row_in_file: int
    row: int


@dataclass(frozen=True, kw_only=True)
class RawPiece(RawTable):
    """The rows of a piece as they are in the file.

    Attributes:
        first_row: position of the first row in its file, which is the only one of `sources`.
    """

    first_row: int = 0

    def where(self, row: int) -> str:
        """File and row of a row of the piece."""
        return super().where(self.first_row + row)


class ParquetFiles:
    """A table in one or more Parquet files; the constructor reads only their metadata.

    Args:
        paths: files with the same columns.
        max_columns: a file with more columns is refused.

    Attributes:
        schema: name and type of each column; if a column has only missing values in one file, the type in another.
        pieces: the pieces of the table, in order.
        num_rows: number of rows of all files.

    Raises:
        TableError: a file is corrupt, has no rows, or has other columns than the first one.
    """

    def __init__(self, paths: Sequence[Path], max_columns: int) -> None:
        self.paths = list(paths)
        self.states = [file_state(path) for path in self.paths]
        self.metadata = [_read_metadata(path, max_columns) for path in self.paths]
        self.schema = _common_schema([meta.schema.to_arrow_schema() for meta in self.metadata], self.paths)
        width = max(1, len(self.schema.names))
        self.piece_rows = max(FEWEST_PIECE_ROWS, min(PIECE_ROWS, 2 ** (PIECE_VALUES // width).bit_length() // 2))
        self.pieces = list(self._cut())
        self.num_rows = sum(meta.num_rows for meta in self.metadata)
        self.sources = tuple(SourceFile(path, m.num_rows) for path, m in zip(self.paths, self.metadata, strict=True))

    def _cut(self) -> Iterator[Piece]:
        row = 0
        for file, meta in enumerate(self.metadata):
            row_in_file = 0
            for group in range(meta.num_row_groups):
                group_rows = meta.row_group(group).num_rows
                for start in range(0, group_rows, self.piece_rows):
                    num_rows = min(self.piece_rows, group_rows - start)
                    yield Piece(
                        file=file, group=group, start=start, num_rows=num_rows, row_in_file=row_in_file, row=row
                    )
                    row_in_file, row = row_in_file + num_rows, row + num_rows

    @property
    def largest_group(self) -> int:
        """Number of rows of the largest row group."""
        groups = (meta.row_group(group).num_rows for meta in self.metadata for group in range(meta.num_row_groups))
        return max(map(int, groups))

    def without_rows(self) -> RawTable:
        """The names and types of the columns, without rows."""
        return RawTable(data=self.schema.empty_table(), sources=self.sources)

    def null_counts(self) -> Counter[str]:
        """Null rows of each column according to the metadata; NaN and words for missing values are not counted."""
        counts: Counter[str] = Counter()
        for meta in self.metadata:
            for group in map(meta.row_group, range(meta.num_row_groups)):
                for column in map(group.column, range(meta.num_columns)):
                    known = column.statistics is not None and column.statistics.has_null_count
                    counts[column.path_in_schema] += column.statistics.null_count if known else 0
        return counts

    def fingerprint(self) -> str:
        """Hash of the contents, the same as that of `read_files`."""
        digest = hashlib.blake2b(digest_size=16)
        for number, path in enumerate(self.paths):
            digest.update(file_digest(path))
            self._check_unchanged(number)
        return digest.hexdigest()

    def read(self, pieces: Iterable[Piece], columns: Sequence[str]) -> Iterator[tuple[Piece, RawPiece]]:
        """Read some pieces. The pieces of one row group must be in order; row groups may alternate.

        If `pieces` is a sequence, a row group is closed after its last piece, so that it does not stay in memory.

        Raises:
            TableError: a file has changed since the constructor read it, or is corrupt.
        """
        names = list(columns)
        last = {(piece.file, piece.group): piece for piece in pieces} if isinstance(pieces, Sequence) else {}
        opened: dict[tuple[int, int], Iterator[tuple[int, pa.Table]]] = {}
        for piece in pieces:
            key = (piece.file, piece.group)
            if key not in opened:
                self._check_unchanged(piece.file)
                opened[key] = self._read_group(*key, names)
            with self._report_corruption(piece.file):
                data = next(data for start, data in opened[key] if start == piece.start)
            at_end = piece.start + piece.num_rows == self.metadata[piece.file].row_group(piece.group).num_rows
            if at_end or piece is last.get(key):
                del opened[key]
                self._check_unchanged(piece.file)
            yield piece, RawPiece(data=data, sources=(self.sources[piece.file],), first_row=piece.row_in_file)

    def _read_group(self, file: int, group: int, names: list[str]) -> Iterator[tuple[int, pa.Table]]:
        """The pieces of a row group, each with the position of its first row."""
        start, waiting, size = 0, [], self.piece_rows
        left = self.metadata[file].row_group(group).num_rows
        # With a buffer, not all of the row group is in memory. Threads would take cores from the training.
        with pq.ParquetFile(self.paths[file], metadata=self.metadata[file], buffer_size=READ_BYTES) as opened:
            for batch in opened.iter_batches(size, row_groups=[group], columns=names, use_threads=False):
                waiting.append(batch)
                rows = sum(map(len, waiting))
                if rows == min(size, left):  # Arrow may return fewer rows than asked for
                    yield start, pa.Table.from_batches(waiting).select(names)
                    start, left, waiting = start + rows, left - rows, []

    @contextmanager
    def _report_corruption(self, file: int) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, StopIteration) as error:
            self._check_unchanged(file)
            reason = error if str(error) else EOFError("it ends too early")
            raise corrupt_file(self.paths[file], "Parquet", reason) from error

    def _check_unchanged(self, file: int) -> None:
        if file_state(self.paths[file]) != self.states[file]:
            raise TableError(
                f"{self.paths[file]} changed while it was in use: wait until it is complete, then start again."
            )

    def shuffled_order(self, wanted: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Numbers of pieces in a random order: several row groups alternate, and each is read from its start.

        Neighbouring rows of a sorted table thus end up further apart than a shuffle buffer could move them.

        Args:
            wanted: whether to read each piece, (pieces,); a row group without a wanted piece is not opened.
            random: the random numbers.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for number in np.flatnonzero(wanted).tolist():
            piece = self.pieces[number]
            groups.setdefault((piece.file, piece.group), []).append(number)
        queues = list(groups.values())
        closed = [queues[i] for i in random.permutation(len(queues))]
        num_open = max(1, min(MOST_OPEN_GROUPS, MOST_OPEN_COLUMNS // max(1, len(self.schema.names))))
        current = [(queue, 0) for queue in closed[:num_open]]
        closed = closed[num_open:][::-1]
        draws = iter(random.random(int(wanted.sum())).tolist())
        order = []
        while current:
            chosen = int(next(draws) * len(current))
            queue, done = current[chosen]
            order.append(queue[done])
            if done + 1 < len(queue):
                current[chosen] = (queue, done + 1)
            elif closed:
                current[chosen] = (closed.pop(), 0)
            else:
                current.pop(chosen)
        return np.array(order, dtype=np.int64)


def are_parquet(paths: Iterable[Path]) -> bool:
    """Whether all files start with the magic bytes of Parquet."""
    return all(first_bytes(path).startswith(PARQUET) for path in paths)


def _read_metadata(path: Path, max_columns: int) -> pq.FileMetaData:
    try:
        meta = pq.read_metadata(path)
        names = meta.schema.to_arrow_schema().names
    except (pa.ArrowException, OSError) as error:
        raise corrupt_file(path, "Parquet", error) from error
    check_width(len(names), path, max_columns)
    check_names(names, path)
    if meta.num_rows == 0:
        raise TableError(f"{path} has no rows: use a table with data.")
    return meta


def _common_schema(schemas: Sequence[pa.Schema], paths: Sequence[Path]) -> pa.Schema:
    """The columns of all files, each with the first type that is not null.

    Raises:
        TableError: the names or the kinds of the columns differ.
    """
    check_same_columns([schema.names for schema in schemas], paths)
    fields = {name: (schemas[0].field(name).type, paths[0]) for name in schemas[0].names}
    for schema, path in zip(schemas, paths, strict=True):
        for name in fields:
            (known, where), found = fields[name], schema.field(name).type
            if pa.types.is_null(known):
                fields[name] = (found, path)
            elif not pa.types.is_null(found) and kind_of_type(known) != kind_of_type(found):
                raise different_types(name, (known, where), (found, path))
    return pa.schema([(name, kind) for name, (kind, _) in fields.items()])
