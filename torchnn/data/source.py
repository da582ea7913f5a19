"""Where rows come from: a table in memory, or a stream; a data module asks both for the same."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from torchnn.console import is_first_process, note
from torchnn.data.batches import Batch, BatchLoader
from torchnn.data.stream_loader import StreamLoader, buffer_rows
from torchnn.tables.columns import Schema
from torchnn.tables.faults import TableError
from torchnn.tables.files import RawTable, stamp
from torchnn.tables.kinds import kind_of_type
from torchnn.tables.parquet import ParquetFiles, are_parquet
from torchnn.tables.prepare import Prepared, encode_table, missing_values, more_missing, unseen_categories
from torchnn.tables.roles import Roles
from torchnn.tables.splitting import Splitting
from torchnn.tables.stream import Stream, labels_in, open_stream, open_trained, unseen_in
from torchnn.tables.stream_parts import PARTS
from torchnn.tables.target import check_both_classes

MOST_IN_MEMORY = 512 * 2**20  # bytes of a matrix of float32 that "auto" reads at once
MOST_TEXT = 2**30  # bytes of text, which numbers take about twice as many of
SLOTS_OF_A_TIME = 7
UNSEEN = "column {name!r} has values that training has not seen in {count:,} of {rows:,} rows."
Part = Literal["train", "val", "test", "all"]
T = TypeVar("T")


class Loader(Protocol):
    """Batches, and the epoch that their order is of."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def set_epoch(self, epoch: int) -> None: ...


class DataSource(Protocol):
    """What a data module needs of its rows.

    Attributes:
        schema: what a model has to know of the columns.
        num_rows: rows of "train", "val", "test" and "all".
        id_name: what to call that which names a row in predictions.
    """

    schema: Schema
    num_rows: dict[str, int]
    id_name: str

    def training_features(self) -> Iterator[Tensor]:
        """Raw features of the training rows, (rows, slots) each."""
        ...

    def class_counts(self) -> tuple[float, float]:
        """Weight (or number) of the training rows of class 0 and of class 1."""
        ...

    def loader(
        self, part: Part, batch_size: int, shuffle_seed: int | None = None, rank: int = 0, num_ranks: int = 1
    ) -> Loader:
        """Batches of a part, for one of several processes."""
        ...


class TableSource:
    """A table in memory."""

    def __init__(self, prepared: Prepared) -> None:
        self.table, self.rows, self.schema = prepared.table, prepared.rows, prepared.schema
        self.num_rows = {part: len(rows) for part, rows in self.rows.items()} | {"all": len(self.table)}
        self.id_name = "row" if self.table.ids is None else self.table.id_name

    def training_features(self) -> Iterator[Tensor]:
        yield self.table.features[self.rows["train"]]

    def class_counts(self) -> tuple[float, float]:
        rows, weight = self.rows["train"], self.table.weight
        target = self.table.target[rows].double()
        weights = torch.ones_like(target) if weight is None else weight[rows].double()
        return float((weights * (1 - target)).sum()), float((weights * target).sum())

    def loader(
        self, part: Part, batch_size: int, shuffle_seed: int | None = None, rank: int = 0, num_ranks: int = 1
    ) -> BatchLoader:
        warn_of_small_batch(batch_size, num_ranks)
        rows = torch.arange(len(self.table)) if part == "all" else self.rows[part]
        return BatchLoader(self.table, rows, batch_size, shuffle_seed, rank, num_ranks)


class StreamSource:
    """A table that is read again whenever it is needed.

    Args:
        stream: the table.
        shuffle_rows: rows of the shuffle buffer; None for as many as 128 MiB hold, 1,048,576 at most.
    """

    def __init__(self, stream: Stream, shuffle_rows: int | None = None) -> None:
        self.stream, self.schema, self.id_name = stream, stream.schema, stream.id_column or "row"
        self.shuffle_rows = shuffle_rows
        self.num_rows = {part: int(stream.counts_of(part).sum()) for part in (*PARTS, "all")}

    def training_features(self) -> Iterator[Tensor]:
        for _, table in self.stream.tables(watched(self.stream.files.pieces, "preprocessing"), "train"):
            yield table.features

    def class_counts(self) -> tuple[float, float]:
        return self.stream.class_counts

    def loader(
        self, part: Part, batch_size: int, shuffle_seed: int | None = None, rank: int = 0, num_ranks: int = 1
    ) -> StreamLoader:
        warn_of_small_batch(batch_size, num_ranks)
        return StreamLoader(self.stream, part, batch_size, shuffle_seed, rank, num_ranks, self.shuffle_rows)


def is_path(value: Any) -> bool:
    """Whether a table is named rather than given."""
    if isinstance(value, str | os.PathLike):
        return True
    return isinstance(value, Sequence) and all(isinstance(item, str | os.PathLike) for item in value)


def watched(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with a bar on the terminal of the first process that says how many are done."""
    silent = not sys.stderr.isatty() or not is_first_process()
    return track(items, f"{what}:", console=Console(stderr=True), transient=True, disable=silent)


def streamed(paths: Sequence[Path], options: Any) -> tuple[ParquetFiles | None, str]:
    """The files, if they are to be streamed, and a remark on a text that would better be.

    Args:
        paths: the files.
        options: those of the data module: `stream`, "auto" for Parquet whose matrix of float32 takes more than
            512 MiB, and `max_columns`.

    Raises:
        TableError: `stream` is true, but a file is no Parquet.
    """
    stream = options.stream
    if stream is False:
        return None, ""
    if are_parquet(paths):
        files = ParquetFiles(paths, options.max_columns)
        return (files, "") if stream is True or matrix_bytes(files) > MOST_IN_MEMORY else (None, "")
    one = paths[0]
    mend = (
        'python -c "import pyarrow.dataset as d; '
        f"d.write_dataset(d.dataset('{one}', format='csv'), '{one.stem}', format='parquet')\" writes a folder of them."
    )
    if stream is True:
        raise TableError(f"{one}: --data.stream true reads Parquet only: {mend}")
    if sum(stamp(path)[1] for path in paths) <= MOST_TEXT:
        return None, ""
    return None, f"{one} is read into memory at once, a Parquet file of its size would be streamed: {mend}"


def stream_source(
    files: ParquetFiles,
    roles: Roles,
    splitting: Splitting,
    of_files: Sequence[str],
    tell: Callable[[str], None],
    shuffle_rows: int | None,
) -> StreamSource:
    """Look through Parquet files.

    Args:
        files: the table.
        roles: what its columns are for.
        splitting: how its rows are divided.
        of_files: "train", "val" or "test" for each file.
        tell: is told of columns that are dropped, and of row groups that cannot be mixed.
        shuffle_rows: rows of the shuffle buffer; None for as many as 128 MiB hold.

    Raises:
        TableError: a fault of the table.
        ValueError: a split that leaves a part without a row of each class.
    """
    stream = open_stream(files, roles, splitting, [PARTS.index(part) for part in of_files], tell, watched)
    if hint := long_groups(stream, shuffle_rows):
        tell(hint)
    return StreamSource(stream, shuffle_rows)


def trained_table(raw: RawTable, schema: Schema, roles: Roles, with_target: bool) -> Prepared:
    """All rows of a table as a trained model takes them; only a test reads their target and their weights.

    Raises:
        TableError: a column that is needed is missing, or a test of one class.
    """
    weight_column = roles.weight_column if with_target else ""
    table = encode_table(raw, schema, with_target, roles.id_column, weight_column)
    if with_target:
        positive = int(table.target.round().sum())
        check_both_classes(raw.name, (len(table) - positive, positive), schema.classes)
    else:
        for name, count in unseen_categories(table, schema).items():
            note(UNSEEN.format(name=name, count=count, rows=len(table)))
        for sentence in more_missing(missing_values(table, schema), len(table), schema):
            note(sentence)
    return Prepared(table, schema, {})


def trained_stream(files: ParquetFiles, schema: Schema, roles: Roles, with_target: bool) -> StreamSource:
    """All rows of Parquet files as a trained model takes them; only a test reads their target and their weights.

    Raises:
        TableError: a column that is needed is missing, or a test of one class.
    """
    weight_column = roles.weight_column if with_target else ""
    stream = open_trained(files, schema, with_target, roles.id_column, weight_column)
    if with_target:
        check_both_classes(files.described().name, labels_in(stream, watched), schema.classes)
    else:
        for name, count in unseen_in(stream, watched).items():
            note(UNSEEN.format(name=name, count=count, rows=files.num_rows))
        for sentence in more_missing(files.nulls(), files.num_rows, schema):
            note(sentence)
    return StreamSource(stream)


def matrix_bytes(files: ParquetFiles) -> int:
    """About how much memory all columns would take as numbers."""
    times = sum(kind_of_type(kind) == "time" for kind in files.schema.types)
    rows: int = files.num_rows
    return 4 * rows * (len(files.schema.names) + (SLOTS_OF_A_TIME - 1) * times)


def long_groups(stream: Stream, shuffle_rows: int | None) -> str:
    """A remark on row groups that a shuffle buffer cannot mix, "" if there are none."""
    rows = shuffle_rows or buffer_rows(stream.schema)
    if stream.files.largest_group <= max(rows, stream.files.piece_rows):
        return ""
    return (
        f"a row group of {stream.files.largest_group:,} rows is larger than the shuffle buffer of {rows:,} "
        "(--data.shuffle_rows), which mixes stretches of it only: if the rows are sorted, write smaller row groups."
    )


@cache
def warn_of_small_batch(batch_size: int, num_ranks: int) -> None:
    """Say, once, that a batch is smaller than the number of processes."""
    if batch_size < num_ranks:
        note(
            f"--data.batch_size {batch_size} is that of all {num_ranks} processes together, so in each step some have "
            "no rows: give more."
        )


def description(schema: Schema, num_rows: int, share: float, source: str) -> str:
    """What was found in a table: rows, kinds of columns, and which class is 1.

    >>> from torchnn.tables.columns import Column
    >>> description(Schema((Column("age", "number"),), "late", ("no", "yes")), 1000, 0.25, "loans.csv")
    'loans.csv: 1,000 rows; number age; late is yes in 25.0%'
    """
    kinds: dict[str, list[str]] = {}
    for column in schema.columns:
        kinds.setdefault(column.kind, []).append(column.name)
    found = "; ".join(f"{kind} {', '.join(names[:8])}{', …' if names[8:] else ''}" for kind, names in kinds.items())
    return f"{source}: {num_rows:,} rows; {found}; {schema.target} is {schema.classes[1]} in {share:.1%}"
