"""Where rows come from: a table in memory or a stream, with one interface for the data module."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from torchnn.console import is_first_process, note
from torchnn.data.batches import Batch, BatchLoader
from torchnn.data.stream_loader import StreamLoader, default_buffer_rows
from torchnn.tables.errors import TableError
from torchnn.tables.files import file_state
from torchnn.tables.kinds import kind_of_type
from torchnn.tables.parquet import ParquetFiles, are_parquet
from torchnn.tables.prepare import (
    Prepared,
    count_missing,
    count_unseen_categories,
    encode_table,
    notes_on_missing,
    notes_on_unseen,
)
from torchnn.tables.raw import RawTable
from torchnn.tables.roles import Roles
from torchnn.tables.schema import TIME_PARTS, Schema
from torchnn.tables.split import PARTS, Splitting
from torchnn.tables.stream import (
    Item,
    Stream,
    count_classes_in_stream,
    count_unseen_in_stream,
    stream_for_model,
    stream_for_training,
)
from torchnn.tables.target import check_both_classes

MOST_BYTES_IN_MEMORY = 512 * 2**20  # of a float32 matrix; "auto" streams a larger one
MOST_BYTES_OF_TEXT = 2**30  # without a note; text takes about twice as many bytes as its numbers
PartName = Literal["train", "val", "test", "all"]


class Loader(Protocol):
    """Gives batches, in an order that depends on the epoch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def set_epoch(self, epoch: int) -> None: ...


class DataSource(Protocol):
    """The rows of a data module.

    Attributes:
        schema: what a model has to know about the columns.
        num_rows: rows of "train", "val", "test" and "all".
        id_name: name of the ids in predictions.
    """

    schema: Schema
    num_rows: dict[str, int]
    id_name: str

    def training_features(self) -> Iterator[Tensor]:
        """Raw features of the training rows, in tensors of shape (rows, slots)."""
        ...

    def class_counts(self) -> tuple[float, float]:
        """Weight (or number) of the training rows of class 0 and of class 1."""
        ...

    def loader(
        self, part: PartName, batch_size: int, shuffle_seed: int | None = None, rank: int = 0, num_ranks: int = 1
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
        self, part: PartName, batch_size: int, shuffle_seed: int | None = None, rank: int = 0, num_ranks: int = 1
    ) -> BatchLoader:
        warn_about_small_batch(batch_size, num_ranks)
        rows = torch.arange(len(self.table)) if part == "all" else self.rows[part]
        return BatchLoader(self.table, rows, batch_size, shuffle_seed, rank, num_ranks)


class StreamSource:
    """A table that is read again whenever it is needed.

    Args:
        stream: the table.
        shuffle_rows: rows of the shuffle buffer; None for what fits into 128 MiB, at most 1,048,576.
    """

    def __init__(self, stream: Stream, shuffle_rows: int | None = None) -> None:
        self.stream, self.schema, self.id_name = stream, stream.schema, stream.id_column or "row"
        self.shuffle_rows = shuffle_rows
        self.num_rows = {part: int(stream.counts_of(part).sum()) for part in (*PARTS, "all")}

    def training_features(self) -> Iterator[Tensor]:
        for _, table in self.stream.tables(with_progress(self.stream.files.pieces, "preprocessing"), "train"):
            yield table.features

    def class_counts(self) -> tuple[float, float]:
        return self.stream.class_counts

    def loader(
        self, part: PartName, batch_size: int, shuffle_seed: int | None = None, rank: int = 0, num_ranks: int = 1
    ) -> StreamLoader:
        warn_about_small_batch(batch_size, num_ranks)
        return StreamLoader(self.stream, part, batch_size, shuffle_seed, rank, num_ranks, self.shuffle_rows)


def is_path(value: Any) -> bool:
    """Whether a table is given by the paths of its files, and not as a table in memory."""
    if isinstance(value, str | os.PathLike):
        return True
    return isinstance(value, Sequence) and all(isinstance(item, str | os.PathLike) for item in value)


def with_progress(items: Sequence[Item], what: str) -> Iterable[Item]:
    """The items; the first process shows a progress bar if it has a terminal."""
    silent = not sys.stderr.isatty() or not is_first_process()
    return track(items, f"{what}:", console=Console(stderr=True), transient=True, disable=silent)


def files_to_stream(paths: Sequence[Path], options: Any) -> ParquetFiles | None:
    """The files, if they are to be streamed; None if they are to be read into memory.

    Args:
        paths: the files.
        options: `stream` and `max_columns` of the data module. "auto" streams Parquet whose float32 matrix takes more
            than 512 MiB, and suggests it for text of more than 1 GiB.

    Raises:
        TableError: `stream` is true, but a file is not a Parquet file.
    """
    stream = options.stream
    if stream is False:
        return None
    if are_parquet(paths):
        files = ParquetFiles(paths, options.max_columns)
        return files if stream is True or matrix_bytes(files) > MOST_BYTES_IN_MEMORY else None
    path = paths[0]
    convert = (
        'convert it with python -c "import pyarrow.dataset as d; '
        f"d.write_dataset(d.dataset('{path}', format='csv'), '{path.stem}', format='parquet')\", which writes a folder "
        f"{path.stem}."
    )
    if stream is True:
        raise TableError(f"{path} is not a Parquet file, and only Parquet can be streamed: {convert}")
    if sum(file_state(path)[1] for path in paths) > MOST_BYTES_OF_TEXT:
        note(f"{path} is read into memory as a whole; a Parquet file of this size would be streamed: {convert}")
    return None


def stream_source_for_training(
    files: ParquetFiles,
    roles: Roles,
    splitting: Splitting,
    part_of_file: Sequence[str],
    note: Callable[[str], None],
    shuffle_rows: int | None,
) -> StreamSource:
    """Look through Parquet files, and learn their columns.

    Args:
        files: the table.
        roles: what its columns are for.
        splitting: how its rows are split.
        part_of_file: "train", "val" or "test" for each file.
        note: called with a sentence for each column that is dropped, and for row groups that cannot be mixed.
        shuffle_rows: rows of the shuffle buffer; None for what fits into 128 MiB.

    Raises:
        TableError: something is wrong with the table.
        ValueError: the split leaves a part without rows of both classes.
    """
    parts = [PARTS.index(part) for part in part_of_file]
    stream = stream_for_training(files, roles, splitting, parts, note, with_progress)
    rows = shuffle_rows or default_buffer_rows(stream.schema)
    if files.largest_group > max(rows, files.piece_rows):
        note(
            f"a row group of {files.largest_group:,} rows is larger than the shuffle buffer of {rows:,} rows "
            "(--data.shuffle_rows), so rows are mixed only with nearby rows of their group: if the table is sorted, "
            "write smaller row groups."
        )
    return StreamSource(stream, shuffle_rows)


def table_source_for_model(raw: RawTable, schema: Schema, roles: Roles, with_target: bool) -> TableSource:
    """All rows of a table as a trained model expects them; only a test reads the target and the weights.

    Raises:
        TableError: a column that is needed is missing, or a test has rows of one class only.
    """
    weight_column = roles.weight_column if with_target else ""
    table = encode_table(raw, schema, with_target, roles.id_column, weight_column)
    if with_target:
        positive = int(table.target.round().sum())
        check_both_classes(raw.name, (len(table) - positive, positive), schema.classes)
    else:
        for sentence in notes_on_unseen(count_unseen_categories(table, schema), len(table)):
            note(sentence)
        for sentence in notes_on_missing(count_missing(table, schema), len(table), schema):
            note(sentence)
    return TableSource(Prepared(table, schema, {}))


def stream_source_for_model(files: ParquetFiles, schema: Schema, roles: Roles, with_target: bool) -> StreamSource:
    """All rows of Parquet files as a trained model expects them; only a test reads the target and the weights.

    Raises:
        TableError: a column that is needed is missing, or a test has rows of one class only.
    """
    weight_column = roles.weight_column if with_target else ""
    stream = stream_for_model(files, schema, with_target, roles.id_column, weight_column)
    if with_target:
        counts = count_classes_in_stream(stream, with_progress)
        check_both_classes(files.without_rows().name, counts, schema.classes)
    else:
        for sentence in notes_on_unseen(count_unseen_in_stream(stream, with_progress), files.num_rows):
            note(sentence)
        for sentence in notes_on_missing(files.null_counts(), files.num_rows, schema):
            note(sentence)
    return StreamSource(stream)


def matrix_bytes(files: ParquetFiles) -> int:
    """Bytes that all columns would take as a float32 matrix, approximately."""
    times = sum(kind_of_type(kind) == "time" for kind in files.schema.types)
    rows: int = files.num_rows
    return 4 * rows * (len(files.schema.names) + (len(TIME_PARTS) - 1) * times)


@cache
def warn_about_small_batch(batch_size: int, num_ranks: int) -> None:
    """Warn, once, about a batch with fewer rows than there are processes."""
    if batch_size < num_ranks:
        note(
            f"--data.batch_size {batch_size} is shared by all {num_ranks} processes, so in each step some have no "
            "rows: use a larger batch."
        )


def describe_table(schema: Schema, num_rows: int, share: float, source: str) -> str:
    """What was found in a table: rows, kinds of columns, and which class is 1.

    >>> from torchnn.tables.schema import Column
    >>> schema = Schema(columns=(Column(name="age", kind="number"),), target="late", classes=("no", "yes"))
    >>> describe_table(schema, 1000, 0.25, "loans.csv")
    'loans.csv: 1,000 rows; number age; late is yes in 25.0%'
    """
    kinds: dict[str, list[str]] = {}
    for column in schema.columns:
        kinds.setdefault(column.kind, []).append(column.name)
    found = "; ".join(f"{kind} {', '.join(names[:8])}{', …' if names[8:] else ''}" for kind, names in kinds.items())
    return f"{source}: {num_rows:,} rows; {found}; {schema.target} is {schema.classes[1]} in {share:.1%}"
