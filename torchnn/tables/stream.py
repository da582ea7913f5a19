"""A Parquet table that is never in memory as a whole: looked through once, then encoded piece by piece."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch

from torchnn.tables.encode import encode
from torchnn.tables.errors import TableError, quote
from torchnn.tables.kinds import values_of
from torchnn.tables.learn import Profile, new_profiles, record_zone, schema_of
from torchnn.tables.parquet import ParquetFiles, Piece, RawPiece
from torchnn.tables.prepare import check_complete, check_zones
from torchnn.tables.raw import RawTable
from torchnn.tables.roles import Roles, check_any_usable_type, ids_of, usable_columns, weight_of
from torchnn.tables.schema import Schema
from torchnn.tables.split import (
    PARTS,
    TRAIN,
    Splitting,
    StreamSplitter,
    count_by_part_and_class,
    files_of_one_class,
    kind_of_split_column,
    split_times,
    split_too_small,
    time_thresholds,
)
from torchnn.tables.table import Table
from torchnn.tables.target import TargetReader, check_target, target_reader

Item = TypeVar("Item")
ShowProgress = Callable[[Sequence[Item], str], Iterable[Item]]  # iterates over items, and shows how many are done
ALL_ROWS = "all"
MOST_WORDS = 200_000  # distinct words of a column that are kept in memory, unless --data.max_categories allows more


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A table in Parquet files, with everything that is needed to encode it piece by piece.

    Attributes:
        files: the files.
        schema: what a model has to know about the columns.
        counts: rows of each piece by part, with those of "all" last, (pieces, 4).
        target: reads the target; None leaves it NaN.
        splitter: finds the part of each row; None if there is only "all".
        class_counts: weight (or number) of the training rows of class 0 and of class 1.
        positive_share: share of class 1 among all rows.
        weight_column: the column with the weight of each row; "" for equal weights.
        mean_weight: mean weight of the training rows.
        id_column: the column with the id of each row; "" for the number of the row.
    """

    files: ParquetFiles
    schema: Schema
    counts: np.ndarray
    target: TargetReader | None = None
    splitter: StreamSplitter | None = None
    class_counts: tuple[float, float] = (0.0, 0.0)
    positive_share: float = 0.0
    weight_column: str = ""
    mean_weight: float = 1.0
    id_column: str = ""

    def columns_to_read(self, ids: bool) -> list[str]:
        """Columns of the files that have to be read, with the ids or without them."""
        names = [column.name for column in self.schema.columns]
        names += [] if self.target is None else [self.target.name]
        names += [] if self.splitter is None else self.splitter.columns
        names += [name for name, used in ((self.weight_column, True), (self.id_column, ids)) if name and used]
        return list(dict.fromkeys(names))

    def counts_of(self, part: str) -> np.ndarray:
        """Rows of each piece that belong to a part, (pieces,)."""
        counts: np.ndarray = self.counts[:, (*PARTS, ALL_ROWS).index(part)]
        return counts

    def tables(self, pieces: Iterable[Piece], part: str, ids: bool = False) -> Iterator[tuple[np.ndarray, Table]]:
        """For each piece, the rows that belong to a part: their numbers in the whole table, and their contents.

        Raises:
            TableError: a value cannot be used, or a file has changed.
        """
        for piece, raw in self.files.read(pieces, self.columns_to_read(ids)):
            rows = np.arange(piece.row, piece.row + piece.num_rows)
            if part != ALL_ROWS and self.splitter is not None:
                chosen = self.splitter.parts(piece, raw) == PARTS.index(part)
                if not chosen.all():
                    rows, raw = rows[chosen], _filter_piece(raw, chosen)
            yield rows, self._encode(raw, ids)

    def _encode(self, raw: RawPiece, ids: bool) -> Table:
        columns = {c.name: values_of(raw, c.name, c.kind, self.schema.missing) for c in self.schema.columns}
        check_zones(raw, self.schema)
        num_rows = raw.data.num_rows
        target = np.full(num_rows, np.nan, dtype=np.float32) if self.target is None else self.target.read(raw)
        weight = weight_of(raw, self.weight_column, may_be_zero=True)
        return Table(
            features=encode(columns, self.schema),
            target=torch.from_numpy(target),
            columns=self.schema.slots,
            classes=self.schema.classes,
            weight=None if weight is None else weight / self.mean_weight,
            ids=ids_of(raw, self.id_column) if ids else None,
            id_name=self.id_column,
        )


def _filter_piece(raw: RawPiece, chosen: np.ndarray) -> RawPiece:
    """Some rows of a piece. The first pass has checked all rows, so no message will need their positions."""
    return RawPiece(data=raw.data.filter(pa.array(chosen)), sources=raw.sources, first_row=raw.first_row)


def stream_for_training(
    files: ParquetFiles,
    roles: Roles,
    splitting: Splitting,
    part_of_file: Sequence[int],
    note: Callable[[str], None],
    show_progress: ShowProgress[Any],
) -> Stream:
    """A stream to train on: one pass over the target, then one over all columns to learn from the training rows.

    Args:
        files: the table.
        roles: what the columns are for.
        splitting: how the rows are split.
        part_of_file: TRAIN, VAL or TEST for each file.
        note: called with a sentence for each column that is dropped.
        show_progress: shows the progress over the pieces.

    Raises:
        TableError: something is wrong with the table; problems of the target are reported first.
        ValueError: the split leaves a part without rows of both classes.
    """
    whole = files.without_rows()
    check_target(whole, roles.target)
    targets = (raw for _, raw in files.read(show_progress(files.pieces, "target"), [roles.target]))
    target = target_reader(whole, targets, roles.target, roles.positive, roles.missing)
    names = usable_columns(whole.data, whole.name, roles, splitting.column)
    check_any_usable_type(whole, names)
    profiles = new_profiles(whole, names, roles, note)
    check_columns_exist(whole, roles.weight_column, roles.id_column)
    splitter = _make_splitter(files, splitting, tuple(part_of_file), roles, show_progress)
    summary = _StreamSummary(files, target, splitter, roles, profiles)
    used = [*profiles, roles.target, *splitter.columns, *filter(None, (roles.weight_column,))]
    for piece, raw in files.read(show_progress(files.pieces, "columns"), list(dict.fromkeys(used))):
        summary.add(piece, raw)
    by_class = summary.by_class
    if (by_class == 0).any():
        if any(part_of_file):
            raise files_of_one_class(
                next(part for part, counts in zip(PARTS, by_class, strict=True) if (counts == 0).any())
            )
        raise split_too_small(splitting.val_fraction, splitting.test_fraction, files.num_rows)
    if roles.weight_column and not summary.weight.sum():
        raise TableError(
            f"{whole.name}, weight {quote(roles.weight_column)} is 0 in all training rows: set a weight above 0 in "
            "some of these rows."
        )
    mean_weight = float(summary.weight.sum() / by_class[TRAIN].sum())
    negative, positive = (summary.weight / mean_weight).tolist()
    return Stream(
        files=files,
        schema=schema_of(profiles, roles, target.classes, whole.name, note),
        counts=np.column_stack([summary.counts, summary.counts.sum(axis=1)]),
        target=target,
        splitter=splitter,
        class_counts=(negative, positive),
        positive_share=summary.positives / files.num_rows,
        weight_column=roles.weight_column,
        mean_weight=mean_weight,
        id_column=roles.id_column,
    )


def check_columns_exist(whole: RawTable, weight_column: str, id_column: str) -> None:
    """Refuse a weight or id column that the table, given without rows, does not have."""
    weight_of(whole, weight_column, may_be_zero=True)
    ids_of(whole, id_column)


class _StreamSummary:
    """What the pieces have shown so far in the pass over all columns."""

    def __init__(
        self,
        files: ParquetFiles,
        target: TargetReader,
        splitter: StreamSplitter,
        roles: Roles,
        profiles: dict[str, Profile],
    ) -> None:
        self.target, self.splitter, self.roles, self.profiles = target, splitter, roles, profiles
        self.counts = np.zeros((len(files.pieces), len(PARTS)), dtype=np.int64)
        self.by_class = np.zeros((len(PARTS), 2), dtype=np.int64)
        self.weight = np.zeros(2)
        self.positives = 0.0
        self.num_pieces = 0

    def add(self, piece: Piece, raw: RawPiece) -> None:
        target = self.target.read(raw)
        parts = self.splitter.parts(piece, raw)
        training = parts == TRAIN
        self.by_class += count_by_part_and_class(parts, target)
        self.positives += float(target.sum(dtype=np.float64))
        self.counts[self.num_pieces] = np.bincount(parts, minlength=len(PARTS))
        self.num_pieces += 1
        weight = weight_of(raw, self.roles.weight_column, may_be_zero=True)
        weights = (np.ones(len(target)) if weight is None else weight.double().numpy()) * training
        self.weight += [weights @ (1.0 - target), weights @ target]
        for name, profile in self.profiles.items():
            if len(profile.counts) > max(MOST_WORDS, self.roles.max_categories):
                continue  # it will be refused or dropped, whatever the other rows hold
            values = values_of(raw, name, profile.kind, self.roles.missing)
            kept = values[training] if isinstance(values, np.ndarray) else values.filter(pa.array(training))
            profile.update(kept)
            record_zone(raw, profile, self.roles.missing)


def _make_splitter(
    files: ParquetFiles,
    splitting: Splitting,
    part_of_file: tuple[int, ...],
    roles: Roles,
    show_progress: ShowProgress[Any],
) -> StreamSplitter:
    missing = roles.missing
    if splitting.by != "time":
        return StreamSplitter(splitting=splitting, part_of_file=part_of_file, missing=missing)
    kind = kind_of_split_column(files.without_rows(), splitting.column, roles)

    def read() -> Iterator[np.ndarray]:
        for _, raw in files.read(show_progress(files.pieces, splitting.column), [splitting.column]):
            yield split_times(raw, splitting.column, kind, missing)

    first_val, first_test = time_thresholds(read, files.num_rows, splitting.val_fraction, splitting.test_fraction)
    return StreamSplitter(
        splitting=splitting,
        part_of_file=part_of_file,
        missing=missing,
        kind=kind,
        first_val=first_val,
        first_test=first_test,
    )


def stream_for_model(
    files: ParquetFiles, schema: Schema, with_target: bool = False, id_column: str = "", weight_column: str = ""
) -> Stream:
    """A stream as a trained model expects it, all of it one part; no rows are read yet.

    Args:
        files: the table.
        schema: what the model knows about its columns.
        with_target: whether to read the target; else it is NaN.
        id_column: the column with the id of each row; "" for the number of the row.
        weight_column: the column with the weight of each row; "" for equal weights.

    Raises:
        TableError: a column that the model needs is missing.
    """
    whole = files.without_rows()
    check_complete(whole, schema)
    check_zones(whole, schema)
    check_columns_exist(whole, weight_column, id_column)
    target = None
    if with_target:
        check_target(whole, schema.target)
        soft = pa.types.is_floating(files.schema.field(schema.target).type) and schema.classes == ("0", "1")
        target = TargetReader(name=schema.target, classes=schema.classes, soft=soft, missing=schema.missing)
    rows = np.array([piece.num_rows for piece in files.pieces])
    counts = np.column_stack([np.zeros((len(rows), len(PARTS)), dtype=np.int64), rows])
    return Stream(
        files=files, schema=schema, counts=counts, target=target, weight_column=weight_column, id_column=id_column
    )


def count_unseen_in_stream(stream: Stream, show_progress: ShowProgress[Any]) -> dict[str, int]:
    """Rows of each category column whose value did not occur in training; only columns that have such rows."""
    columns = [column for column in stream.schema.columns if column.kind == "category"]
    only = Schema(columns=tuple(columns), missing=stream.schema.missing)
    counts = np.zeros(len(columns), dtype=np.int64)
    if columns:
        names = [column.name for column in columns]
        for _, raw in stream.files.read(show_progress(stream.files.pieces, "categories"), names):
            words = {c.name: values_of(raw, c.name, c.kind, stream.schema.missing) for c in columns}
            counts += (encode(words, only) == 0).sum(0).numpy()
    return {column.name: int(count) for column, count in zip(columns, counts, strict=True) if count}


def count_classes_in_stream(stream: Stream, show_progress: ShowProgress[Any]) -> tuple[int, int]:
    """Rows of class 0 and of class 1 of a stream with a target.

    Raises:
        TableError: a target is missing, or belongs to neither class.
    """
    assert stream.target is not None
    positive = 0
    for _, raw in stream.files.read(show_progress(stream.files.pieces, "target"), [stream.target.name]):
        positive += int(stream.target.read(raw).round().sum(dtype=np.float64))
    return stream.files.num_rows - positive, positive
