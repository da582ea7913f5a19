"""A Parquet table as numbers without ever being in memory: looked through once, then encoded piece by piece."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch

from torchnn.tables.columns import Schema
from torchnn.tables.encode import encode
from torchnn.tables.faults import TableError
from torchnn.tables.kinds import values_of
from torchnn.tables.learn import new_profiles, note_zone
from torchnn.tables.parquet import ParquetFiles, Piece, RawPiece
from torchnn.tables.prepare import check_complete, check_zones
from torchnn.tables.profile import Profile, schema_of
from torchnn.tables.roles import Roles, check_types, ids_of, usable_columns, weight_of
from torchnn.tables.split import too_small
from torchnn.tables.splitting import Splitting, kind_of_order, times
from torchnn.tables.stream_parts import PARTS, TRAIN, Splitter, in_parts, thresholds
from torchnn.tables.table import Table
from torchnn.tables.target import check_target
from torchnn.tables.target_stream import TargetReader, target_reader

T = TypeVar("T")
Watch = Callable[[Sequence[T], str], Iterable[T]]  # shows how far a pass has come
ALL = "all"
MOST_WORDS = 200_000  # that a column is kept in memory for, or more if --data.max_categories asks for more


@dataclass(frozen=True)
class Stream:
    """A table in Parquet files, known well enough to be encoded piece by piece.

    Attributes:
        files: where it is.
        schema: what a model has to know of its columns.
        counts: rows of each piece by part, those of "all" last, (pieces, 4).
        target: how the target becomes numbers; None leaves it NaN.
        splitter: the part of each row; None if there is only "all".
        class_counts: weight (or number) of the training rows of class 0 and of class 1.
        positive_share: of all rows.
        weight_column: with the weight of each row; "" for 1.
        mean_weight: of the training rows.
        id_column: names the rows; "" for their number.
    """

    files: ParquetFiles
    schema: Schema
    counts: np.ndarray
    target: TargetReader | None = None
    splitter: Splitter | None = None
    class_counts: tuple[float, float] = (0.0, 0.0)
    positive_share: float = 0.0
    weight_column: str = ""
    mean_weight: float = 1.0
    id_column: str = ""

    def columns(self, ids: bool) -> list[str]:
        """Columns of the files that have to be read."""
        names = [column.name for column in self.schema.columns]
        names += [] if self.target is None else [self.target.name]
        names += [] if self.splitter is None else self.splitter.columns
        names += [name for name, used in ((self.weight_column, True), (self.id_column, ids)) if name and used]
        return list(dict.fromkeys(names))

    def counts_of(self, part: str) -> np.ndarray:
        """Rows of each piece that belong to a part, (pieces,)."""
        counts: np.ndarray = self.counts[:, (*PARTS, ALL).index(part)]
        return counts

    def tables(self, pieces: Iterable[Piece], part: str, ids: bool = False) -> Iterator[tuple[np.ndarray, Table]]:
        """The rows of a part in some pieces: their numbers in the whole table, and what stands in them.

        Raises:
            TableError: a value that cannot be used, or a file that has changed.
        """
        for piece, raw in self.files.read(pieces, self.columns(ids)):
            rows = np.arange(piece.row, piece.row + piece.num_rows)
            if part != ALL and self.splitter is not None:
                chosen = self.splitter.parts(piece, raw) == PARTS.index(part)
                if not chosen.all():
                    rows, raw = rows[chosen], _only(raw, chosen)
            yield rows, self._encoded(raw, ids)

    def _encoded(self, raw: RawPiece, ids: bool) -> Table:
        columns = {c.name: values_of(raw, c.name, c.kind, self.schema.missing) for c in self.schema.columns}
        check_zones(raw, self.schema)
        num_rows = raw.data.num_rows
        target = np.full(num_rows, np.nan, dtype=np.float32) if self.target is None else self.target.read(raw)
        weight = weight_of(raw, self.weight_column, may_be_zero=True)
        return Table(
            encode(columns, self.schema),
            torch.from_numpy(target),
            self.schema.slots,
            self.schema.classes,
            None if weight is None else weight / self.mean_weight,
            ids_of(raw, self.id_column) if ids else None,
            self.id_column,
        )


def _only(raw: RawPiece, chosen: np.ndarray) -> RawPiece:
    """Some rows of a piece that has been found to be without fault as a whole."""
    return RawPiece(raw.data.filter(pa.array(chosen)), raw.sources, first_row=raw.first_row)


def open_stream(
    files: ParquetFiles,
    roles: Roles,
    splitting: Splitting,
    parts_of_files: Sequence[int],
    remark: Callable[[str], None],
    watch: Watch[Any],
) -> Stream:
    """A stream to train on: a look at the target, then one at all columns, of which training rows are judged.

    Args:
        files: the table.
        roles: what the columns are for.
        splitting: how rows are divided.
        parts_of_files: TRAIN, VAL or TEST of each file.
        remark: is told of columns that are dropped, a sentence each.
        watch: shows progress over the pieces.

    Raises:
        TableError: a fault of the table, the target first.
        ValueError: a split that leaves a part without a row of each class.
    """
    whole = files.described()
    check_target(whole, roles.target)
    seen = (raw for _, raw in files.read(watch(files.pieces, "target"), [roles.target]))
    target = target_reader(whole, seen, roles.target, roles.positive, roles.missing)
    names = usable_columns(whole.data, whole.name, roles, splitting.column)
    check_types(whole, names)
    profiles = new_profiles(whole, names, roles, remark)
    weight_of(whole, roles.weight_column, may_be_zero=True)  # of no rows: whether it is there
    ids_of(whole, roles.id_column)
    splitter = _splitter(files, splitting, tuple(parts_of_files), roles, watch)
    look = _Look(files, target, splitter, roles, profiles)
    used = [*profiles, roles.target, *splitter.columns, *filter(None, (roles.weight_column,))]
    for piece, raw in files.read(watch(files.pieces, "columns"), list(dict.fromkeys(used))):
        look.at(piece, raw)
    by_class = look.by_class
    if (by_class == 0).any():
        if any(parts_of_files):
            part = next(part for part, counts in zip(PARTS, by_class, strict=True) if (counts == 0).any())
            raise TableError(f"the {part} rows are of one class only: give --data.{part}_path with rows of both.")
        raise too_small(splitting.val_fraction, splitting.test_fraction, files.num_rows)
    if roles.weight_column and not look.weight.sum():
        raise TableError(f"{whole.name}, weight {roles.weight_column!r} is 0 in all training rows: give some above 0.")
    schema = schema_of(
        profiles, roles.keep, roles.max_categories, roles.target, target.classes, roles.missing, whole.name, remark
    )
    mean_weight = float(look.weight.sum() / by_class[TRAIN].sum())
    negative, positive = (look.weight / mean_weight).tolist()
    return Stream(
        files,
        schema,
        np.column_stack([look.counts, look.counts.sum(axis=1)]),
        target,
        splitter,
        (negative, positive),
        look.positives / files.num_rows,
        roles.weight_column,
        mean_weight,
        roles.id_column,
    )


class _Look:
    """What a pass over all columns has shown so far."""

    def __init__(
        self,
        files: ParquetFiles,
        target: TargetReader,
        splitter: Splitter,
        roles: Roles,
        profiles: dict[str, Profile],
    ) -> None:
        self.target, self.splitter, self.roles, self.profiles = target, splitter, roles, profiles
        self.counts = np.zeros((len(files.pieces), len(PARTS)), dtype=np.int64)
        self.by_class = np.zeros((len(PARTS), 2), dtype=np.int64)
        self.weight = np.zeros(2)
        self.positives = 0.0
        self.number = 0

    def at(self, piece: Piece, raw: RawPiece) -> None:
        target = self.target.read(raw)
        parts = self.splitter.parts(piece, raw)
        training = parts == TRAIN
        self.by_class += in_parts(parts, target)
        self.positives += float(target.sum(dtype=np.float64))
        self.counts[self.number] = np.bincount(parts, minlength=len(PARTS))
        self.number += 1
        weight = weight_of(raw, self.roles.weight_column, may_be_zero=True)
        weights = (np.ones(len(target)) if weight is None else weight.double().numpy()) * training
        self.weight += [weights @ (1.0 - target), weights @ target]
        for name, profile in self.profiles.items():
            if len(profile.counts) > max(MOST_WORDS, self.roles.max_categories):
                continue  # it is refused or dropped, whatever follows
            values = values_of(raw, name, profile.kind, self.roles.missing)
            kept = values[training] if isinstance(values, np.ndarray) else values.filter(pa.array(training))
            profile.update(kept)
            note_zone(raw, profile, self.roles.missing)


def _splitter(
    files: ParquetFiles, how: Splitting, of_files: tuple[int, ...], roles: Roles, watch: Watch[Any]
) -> Splitter:
    missing = roles.missing
    if how.by != "time":
        return Splitter(how, of_files, missing)
    kind = kind_of_order(files.described(), how.column, roles)

    def read() -> Iterator[np.ndarray]:
        for _, raw in files.read(watch(files.pieces, how.column), [how.column]):
            yield times(raw, how.column, kind, missing)

    first_val, first_test = thresholds(read, files.num_rows, how.val_fraction, how.test_fraction)
    return Splitter(how, of_files, missing, kind, first_val, first_test)


def open_trained(
    files: ParquetFiles, schema: Schema, with_target: bool = False, id_column: str = "", weight_column: str = ""
) -> Stream:
    """A stream as a trained model takes it, all of it one part; nothing is read yet.

    Args:
        files: the table.
        schema: what the model knows of its columns.
        with_target: whether to read the target; else it is NaN.
        id_column: names the rows; "" for their numbers.
        weight_column: the weight of each row; "" for 1.

    Raises:
        TableError: a column that the model needs is missing.
    """
    whole = files.described()
    check_complete(whole, schema)
    check_zones(whole, schema)
    weight_of(whole, weight_column, may_be_zero=True)  # of no rows: whether it is there
    ids_of(whole, id_column)
    target = None
    if with_target:
        check_target(whole, schema.target)
        soft = pa.types.is_floating(files.schema.field(schema.target).type) and schema.classes == ("0", "1")
        target = TargetReader(schema.target, schema.classes, soft, schema.missing)
    rows = np.array([piece.num_rows for piece in files.pieces])
    counts = np.column_stack([np.zeros((len(rows), len(PARTS)), dtype=np.int64), rows])
    return Stream(files, schema, counts, target, None, weight_column=weight_column, id_column=id_column)


def unseen_in(stream: Stream, watch: Watch[Any]) -> dict[str, int]:
    """Rows of each category column whose value training has not seen; only columns that have any."""
    columns = [column for column in stream.schema.columns if column.kind == "category"]
    only = Schema(tuple(columns), missing=stream.schema.missing)
    counts = np.zeros(len(columns), dtype=np.int64)
    if columns:
        names = [column.name for column in columns]
        for _, raw in stream.files.read(watch(stream.files.pieces, "categories"), names):
            words = {c.name: values_of(raw, c.name, c.kind, stream.schema.missing) for c in columns}
            counts += (encode(words, only) == 0).sum(0).numpy()
    return {column.name: int(count) for column, count in zip(columns, counts, strict=True) if count}


def labels_in(stream: Stream, watch: Watch[Any]) -> tuple[int, int]:
    """Rows of class 0 and of class 1 of a stream with a target.

    Raises:
        TableError: a target that is missing, or of neither class.
    """
    assert stream.target is not None
    positive = 0
    for _, raw in stream.files.read(watch(stream.files.pieces, "target"), [stream.target.name]):
        positive += int(stream.target.read(raw).round().sum(dtype=np.float64))
    return stream.files.num_rows - positive, positive
