"""The data module: a table that is split and served in batches."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor

from torchnn.console import note
from torchnn.data.batches import batch_size_for
from torchnn.data.options import check_options, roles_from, splitting_from, text_options_from
from torchnn.data.shares import data_rank
from torchnn.data.source import (
    DataSource,
    Loader,
    PartName,
    TableSource,
    describe_table,
    files_to_stream,
    is_path,
    stream_source_for_model,
    stream_source_for_training,
    table_source_for_model,
)
from torchnn.tables.errors import TableError
from torchnn.tables.files import find_files, read_files
from torchnn.tables.prepare import Prepared, prepare
from torchnn.tables.raw import RawTable, raw_tables
from torchnn.tables.schema import Schema, schema_of_numbers
from torchnn.tables.split import PartRows, SplitRule, split_by_class, split_fold
from torchnn.tables.table import EMBEDDED, Table

EVALUATION_BATCH_SIZE = 4096


class TabularDataModule(pl.LightningDataModule):
    """A table for binary classification, split into training, validation and test rows.

    Args:
        path: CSV, TSV, compressed text, Parquet, Arrow or Feather files; also folders, globs or a list of them. In
            Python, also an Arrow table, a dataframe or a dictionary of columns. null uses `dataset`.
        target: name of the column to predict, with two values or with probabilities from 0 to 1.
        positive: the value of the target that is class 1; null for 1, true, yes, or else the last value in order.
        include: names or patterns (x_*) of the columns to learn from; empty for all.
        exclude: names or patterns of columns to leave out.
        keep: columns to learn from even if they are constant, look like ids, or have another role.
        types: the kinds (number, boolean, category or time) of columns that are not what they look like, by name.
        id_column: column with the id of each row in predictions; null for the number of the row.
        weight_column: column with the weight of each row, 0 or more; null for equal weights.
        missing: additional words that stand for a missing value.
        delimiter: character between the values of a text file, or tab; null finds it in the header.
        decimal: decimal mark of a text file, a point or a comma.
        encoding: encoding of a text file.
        time_format: format of dates in a text file, such as %d/%m/%Y; null for ISO 8601.
        max_categories: largest number of values that a category may have.
        max_columns: largest number of columns that a file may have.
        split: random keeps the class proportions; time tests on the latest rows; group keeps the rows of a group
            together.
        split_column: column with the time or the group of each row; it is not learned from unless it is in keep.
        val_path: files with the validation rows; null takes these rows from `path`.
        test_path: files with the test rows; null takes these rows from `path`.
        val_fraction: fraction of the rows for validation, between 0 and 1.
        test_fraction: fraction of the rows that are held out for the test, between 0 and 1.
        folds: 2 or more for cross-validation, with one run for each fold that is held out; 0 for a single run.
        fold: the fold, counted from 0, that this run holds out; null runs all folds in turn.
        part: rows for test and predict, held_out or all.
        batch_size: rows in a training batch, of all processes together; auto for the power of two nearest to a
            hundredth of the training rows, from 32 to 1024.
        stream: true reads Parquet piece by piece and false reads it as a whole; auto streams if the numbers would take
            more than 512 MiB.
        shuffle_rows: rows of the buffer that shuffles a stream; null for what fits into 128 MiB, at most 1,048,576.
        seed: seed of the split and of the order of the batches; it does not affect the initial weights.
        dataset: name of an embedded data set; breast_cancer comes with scikit-learn (569 rows, 30 columns).
        schema: what a trained model knows about its columns; a checkpoint sets it.

    Raises:
        ValueError: an argument is out of range, or the split leaves a part without rows of both classes.
        TableError: something is wrong with the table; the message names file, row and column. It is a ValueError too.

    >>> data = TabularDataModule()
    >>> data.num_features, data.source.num_rows
    (30, {'train': 397, 'val': 86, 'test': 86, 'all': 569})
    """

    table: Table  # only of a table in memory
    rows: PartRows

    def __init__(
        self,
        path: str | list[str] | None = None,
        target: str = "",
        positive: str | None = None,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
        keep: list[str] | None = None,
        types: dict[str, str] | None = None,
        id_column: str | None = None,
        weight_column: str | None = None,
        missing: list[str | int | float] | None = None,
        delimiter: str | None = None,
        decimal: str = ".",
        encoding: str = "utf-8",
        time_format: str | None = None,
        max_categories: int = 1000,
        max_columns: int = 10_000,
        split: SplitRule = "random",
        split_column: str | None = None,
        val_path: str | list[str] | None = None,
        test_path: str | list[str] | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        folds: int = 0,
        fold: int | None = None,
        part: Literal["held_out", "all"] = "held_out",
        batch_size: int | Literal["auto"] = "auto",
        stream: bool | Literal["auto"] = "auto",
        shuffle_rows: int | None = None,
        seed: int = 0,
        dataset: Literal["breast_cancer"] = "breast_cancer",
        schema: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        tables = {"path": path, "val_path": val_path, "test_path": test_path}
        in_memory = [name for name, table in tables.items() if table is not None and not is_path(table)]
        # A checkpoint has to name the split, so that it is not tested on its training rows.
        self.save_hyperparameters(ignore=["schema", *in_memory])
        options: Any = self.hparams
        check_options({**options, **tables})
        self.seed = seed
        self.evaluates_all = part == "all"
        self.roles = roles_from(options)
        self.reopen_with_target: Callable[[], DataSource] | None = None
        self.trained_schema = None if schema is None else Schema.from_plain(schema)
        self.source = (
            self._keep_table(TableSource(self._embedded(options)))
            if path is None
            else self._open_tables({"train": path, "val": val_path, "test": test_path}, options)
        )
        self.schema = self.source.schema
        num_rows = self.source.num_rows.get("train", 0)
        self.batch_size = batch_size_for(num_rows) if batch_size == "auto" else batch_size

    @property
    def num_features(self) -> int:
        """Number of columns of the matrix that a model gets."""
        return len(self.schema.slots)

    @property
    def plain_schema(self) -> dict[str, Any]:
        """The schema as a checkpoint holds it."""
        return self.schema.as_plain()

    def training_features(self) -> Iterator[Tensor]:
        """Raw features of the training rows, in tensors of shape (rows, slots), to fit the preprocessing on."""
        return self.source.training_features()

    def class_counts(self) -> tuple[float, float]:
        """Weight (or number) of the training rows of class 0 and of class 1."""
        return self.source.class_counts()

    def train_dataloader(self) -> Loader:
        return self.source.loader("train", self.batch_size, self.seed, *data_rank(self.trainer))

    def val_dataloader(self) -> Loader:
        if not self.source.num_rows.get("val"):  # the table is not the training table
            return self.test_dataloader()
        return self._evaluation_loader("val")

    def test_dataloader(self) -> Loader:
        self.open_target()
        return self._evaluation_loader(self.evaluated_part)

    def predict_dataloader(self) -> Loader:
        """Each process gets its share of the rows; `row` is their numbers."""
        return self._evaluation_loader(self.evaluated_part)

    def open_target(self) -> None:
        """Read the target of a table other than the training table, which predictions do not need.

        Raises:
            TableError: the target is missing, or has rows of one class only.
        """
        if self.reopen_with_target is not None:
            self.source, self.reopen_with_target = self._keep_table(self.reopen_with_target()), None

    @property
    def evaluated_part(self) -> PartName:
        """The rows that test and predict use."""
        return "all" if self.evaluates_all else "test"

    def _evaluation_loader(self, part: PartName) -> Loader:
        rank, num_ranks = data_rank(self.trainer)
        # The results do not depend on the batches, so each process may use large ones.
        return self.source.loader(part, EVALUATION_BATCH_SIZE * num_ranks, None, rank, num_ranks)

    def _keep_table(self, source: DataSource) -> DataSource:
        if isinstance(source, TableSource):
            self.table, self.rows = source.table, source.rows
        return source

    def _embedded(self, options: Any) -> Prepared:
        table = EMBEDDED[options.dataset]()
        if options.folds:
            rows = split_fold(table.target, None, options.folds, options.fold or 0, options.val_fraction, self.seed)
        else:
            rows = split_by_class(table.target, options.val_fraction, options.test_fraction, self.seed)
        return Prepared(table, schema_of_numbers(table.columns, "", table.classes), rows)

    def _open_tables(self, tables: Mapping[str, Any], options: Any) -> DataSource:
        """The source for the tables of the user, in memory or streamed.

        Args:
            tables: what `path`, `val_path` and `test_path` are, under "train", "val" and "test".
            options: the arguments of the data module.
        """
        parts = {part: table for part, table in tables.items() if table is not None}
        if self.evaluates_all:
            parts = {"train": tables["train"]}
        files = {part: find_files(table) for part, table in parts.items() if is_path(table)}
        stream = files_to_stream([file for group in files.values() for file in group], options) if files else None
        splitting = splitting_from(options)
        note_if_new = note if self.trained_schema is None else (lambda _: None)
        source: DataSource
        if stream is not None:
            self.hparams["fingerprint"] = stream.fingerprint()
            if self.trained_schema is not None and self.evaluates_all:
                return self._without_target(partial(stream_source_for_model, stream, self.trained_schema, self.roles))
            part_of_file = [part for part, group in files.items() for _ in group]
            source = streamed = stream_source_for_training(
                stream, self.roles, splitting, part_of_file, note_if_new, options.shuffle_rows
            )
            name, share = stream.without_rows().name, streamed.stream.positive_share
        else:
            raw, file_rows = self._read(parts, files, options)
            self.hparams["fingerprint"] = raw.fingerprint
            if self.trained_schema is not None and self.evaluates_all:
                return self._without_target(partial(table_source_for_model, raw, self.trained_schema, self.roles))
            prepared = prepare(raw, self.roles, replace(splitting, file_rows=file_rows), note_if_new)
            source = self._keep_table(TableSource(prepared))
            name, share = raw.name, float(prepared.table.target.double().mean())
        if self.trained_schema is None:
            note(describe_table(source.schema, source.num_rows["all"], share, name))
        elif self.trained_schema != source.schema:
            raise TableError(
                f"the columns of {name} are not those that the checkpoint was trained on: use its training table."
            )
        return source

    def _without_target(self, open_source: Callable[..., DataSource]) -> DataSource:
        """Open a table other than the training table; `open_target` opens it again."""
        self.reopen_with_target = partial(open_source, with_target=True)
        return self._keep_table(open_source(with_target=False))

    def _read(
        self, parts: Mapping[str, Any], files: Mapping[str, list[Path]], options: Any
    ) -> tuple[RawTable, Mapping[str, Tensor]]:
        """All rows, and the positions of the rows of each part if there is a table for more than one part."""
        if not files:
            raw, sizes = raw_tables(list(parts.values()))
        elif len(files) == len(parts):
            text_options = text_options_from(options, self.roles, self.trained_schema)
            raw = read_files([file for group in files.values() for file in group], text_options, options.max_columns)
            counts = iter(source.num_rows for source in raw.sources)
            sizes = [sum(next(counts) for _ in group) for group in files.values()]
        else:
            raise ValueError(
                "path, val_path and test_path are partly files and partly tables in memory: pass only files, or only "
                "tables in memory."
            )
        if len(parts) == 1:
            return raw, {}
        return raw, dict(zip(parts, torch.arange(sum(sizes)).split(sizes), strict=True))
