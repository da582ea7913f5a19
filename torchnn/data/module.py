"""The data module: a table, split and served in batches."""

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
from torchnn.data.options import TAB_IN_WORDS, check_options
from torchnn.data.shares import place
from torchnn.data.source import (
    DataSource,
    Loader,
    Part,
    TableSource,
    description,
    is_path,
    stream_source,
    streamed,
    trained_stream,
    trained_table,
)
from torchnn.tables.columns import Schema, of_numbers
from torchnn.tables.embedded import EMBEDDED
from torchnn.tables.faults import TableError
from torchnn.tables.files import RawTable, find_files, read_files
from torchnn.tables.memory import raw_tables
from torchnn.tables.prepare import Prepared, prepare
from torchnn.tables.roles import Roles
from torchnn.tables.split import Parts, Split, split_by_class, split_fold
from torchnn.tables.splitting import Splitting
from torchnn.tables.table import Table
from torchnn.tables.text import TextOptions

EVALUATION_BATCH_SIZE = 4096


class TabularDataModule(pl.LightningDataModule):
    """A table for binary classification, split into training, validation and held-out rows.

    Args:
        path: CSV, TSV, compressed text, Parquet, Arrow or Feather; a folder, a glob or a list of them. In Python each
            path may also be an Arrow table, a dataframe or a dictionary of columns. null takes `dataset`.
        target: name of the column to predict: two values, or probabilities from 0 to 1.
        positive: the value of the target that is class 1; null for 1, true, yes, or the last in order.
        include: names or patterns (x_*) of the columns to learn from; empty for all.
        exclude: names or patterns of columns to leave out.
        keep: columns to learn from although they are constant, look like ids, or have a role of their own.
        types: kinds of columns that are not what they look like: number, boolean, category or time, by name.
        id_column: column that names the rows in predictions; null for the number of the row.
        weight_column: column with the weight of each row, 0 or more; null for equal weights.
        missing: further words that stand for a missing value.
        delimiter: between the values of a text, one character or tab; null looks at its header.
        decimal: decimal mark of a text, a point or a comma.
        encoding: of a text.
        time_format: how a text writes dates, such as %d/%m/%Y; null for ISO 8601.
        max_categories: most values of a category.
        max_columns: most columns of a file.
        split: random by class proportions; time: the latest rows are held out; group: rows of a group stay together.
        split_column: the time or the group of each row; it is not learnt from, unless it is in keep.
        val_path: files with the validation rows; null takes them from `path`.
        test_path: files with the held-out rows; null takes them from `path`.
        val_fraction: fraction of the rows that validation gets, between 0 and 1.
        test_fraction: fraction of the rows that are held out for the test, between 0 and 1.
        folds: 2 or more for cross-validation: as many runs, each with another part held out; 0 for one run.
        fold: the fold, from 0, that this run holds out; null for all of them in turn.
        part: rows that test and predict take: held_out, or all.
        batch_size: rows in a training batch, of all processes together; auto for the power of two nearest to a
            hundredth of the training rows, from 32 to 1024.
        stream: read Parquet piece by piece instead of at once; auto does if its numbers would take more than 512 MiB.
        shuffle_rows: rows of the buffer that shuffles a stream; null for what 128 MiB hold, 1,048,576 at most.
        seed: seed of the split and of the order of the batches; independent of the seed of the weights.
        dataset: name of an embedded data set; breast_cancer is scikit-learn's (569 rows, 30 columns).
        schema: what a trained model knows of its columns; its checkpoint sets it.

    Raises:
        ValueError: an argument outside what is said above, or a split that leaves nothing to train on.
        TableError: a fault of the table, which names file, row and column; a ValueError too.

    >>> data = TabularDataModule()
    >>> data.num_features, data.source.num_rows
    (30, {'train': 397, 'val': 86, 'test': 86, 'all': 569})
    """

    table: Table  # of a table in memory alone
    rows: Parts

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
        split: Split = "random",
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
        # A checkpoint names the split that it must not be tested on.
        self.save_hyperparameters(ignore=["schema", *in_memory])
        options: Any = self.hparams
        check_options({**options, **tables})
        self.seed = seed
        self.evaluates_all = part == "all"
        self.roles = Roles(
            target,
            positive,
            tuple(include or ()),
            tuple(exclude or ()),
            tuple(keep or ()),
            dict(types or {}),
            id_column or "",
            weight_column or "",
            tuple(map(str, missing or ())),
            max_categories,
        )
        self.read_target: Callable[[], DataSource] | None = None
        self.trained = None if schema is None else Schema.from_plain(schema)
        self.source = (
            self._in_memory(self._embedded(options))
            if path is None
            else self._own({"train": path, "val": val_path, "test": test_path}, options)
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
        """Raw features of the training rows, (rows, slots) each: all that a model may fit its preprocessing on."""
        return self.source.training_features()

    def class_counts(self) -> tuple[float, float]:
        """Weight (or number) of the training rows of class 0 and of class 1."""
        return self.source.class_counts()

    def train_dataloader(self) -> Loader:
        return self.source.loader("train", self.batch_size, self.seed, *place(self.trainer))

    def val_dataloader(self) -> Loader:
        if not self.source.num_rows.get("val"):  # of a table that is not trained on
            return self.test_dataloader()
        return self._evaluated("val")

    def test_dataloader(self) -> Loader:
        self.open_target()
        return self._evaluated(self.evaluated)

    def predict_dataloader(self) -> Loader:
        """Every process gets its share of the rows; `row` says which."""
        return self._evaluated(self.evaluated)

    def open_target(self) -> None:
        """Read the target of a table that was not trained on, which predictions do not need; refuse one class."""
        if self.read_target is not None:
            self.source, self.read_target = self.read_target(), None

    @property
    def evaluated(self) -> Part:
        """The rows that test and predict take."""
        return "all" if self.evaluates_all else "test"

    def _evaluated(self, part: Part) -> Loader:
        rank, num_ranks = place(self.trainer)  # as nothing depends on the batches, each process takes large ones
        return self.source.loader(part, EVALUATION_BATCH_SIZE * num_ranks, None, rank, num_ranks)

    def _in_memory(self, prepared: Prepared) -> DataSource:
        self.table, self.rows = prepared.table, prepared.rows
        return TableSource(prepared)

    def _embedded(self, options: Any) -> Prepared:
        table = EMBEDDED[options.dataset]()
        if options.folds:
            rows = split_fold(table.target, None, options.folds, options.fold or 0, options.val_fraction, self.seed)
        else:
            rows = split_by_class(table.target, options.val_fraction, options.test_fraction, self.seed)
        return Prepared(table, of_numbers(table.columns, "", table.classes), rows)

    def _own(self, tables: Mapping[str, Any], options: Any) -> DataSource:
        parts = {part: table for part, table in tables.items() if table is not None}
        if self.evaluates_all:
            parts = {"train": tables["train"]}
        files = {part: find_files(table) for part, table in parts.items() if is_path(table)}
        stream, hint = streamed([file for group in files.values() for file in group], options) if files else (None, "")
        if hint:
            note(hint)
        splitting = Splitting(
            options.split,
            options.split_column or "",
            options.val_fraction,
            options.test_fraction,
            options.folds,
            options.fold or 0,
            self.seed,
        )
        tell = note if self.trained is None else (lambda _: None)
        source: DataSource
        if stream is not None:
            self.hparams["fingerprint"] = stream.fingerprint()
            if self.trained is not None and self.evaluates_all:
                self.read_target = partial(trained_stream, stream, self.trained, self.roles, with_target=True)
                return trained_stream(stream, self.trained, self.roles, with_target=False)
            of_files = [part for part, group in files.items() for _ in group]
            source = own = stream_source(stream, self.roles, splitting, of_files, tell, options.shuffle_rows)
            name, share = stream.described().name, own.stream.positive_share
        else:
            raw, given = self._read(parts, files, options)
            self.hparams["fingerprint"] = raw.fingerprint
            if self.trained is not None and self.evaluates_all:
                self.read_target = partial(self._known, raw, self.trained, with_target=True)
                return self._known(raw, self.trained, with_target=False)
            prepared = prepare(raw, self.roles, replace(splitting, given=given), tell)
            source, name, share = self._in_memory(prepared), raw.name, float(prepared.table.target.double().mean())
        if self.trained is None:
            note(description(source.schema, source.num_rows["all"], share, name))
        elif self.trained != source.schema:
            raise TableError(f"{name} does not hold the columns that the checkpoint was trained on: use its own data.")
        return source

    def _known(self, raw: RawTable, schema: Schema, with_target: bool) -> DataSource:
        return self._in_memory(trained_table(raw, schema, self.roles, with_target))

    def _read(
        self, parts: Mapping[str, Any], files: Mapping[str, list[Path]], options: Any
    ) -> tuple[RawTable, Mapping[str, Tensor]]:
        """All rows, and which of them are those of the tables of other parts."""
        if not files:
            raw, sizes = raw_tables(list(parts.values()))
        elif len(files) == len(parts):
            raw = read_files(
                [file for group in files.values() for file in group], self._text(options), options.max_columns
            )
            counts = iter(source.num_rows for source in raw.sources)
            sizes = [sum(next(counts) for _ in group) for group in files.values()]
        else:
            raise ValueError(
                "path, val_path and test_path are files and tables: give all of them as files, or as tables."
            )
        if len(parts) == 1:
            return raw, {}
        return raw, dict(zip(parts, torch.arange(sum(sizes)).split(sizes), strict=True))

    def _text(self, options: Any) -> TextOptions:
        trained_categories = (
            [] if self.trained is None else [c.name for c in self.trained.columns if c.kind == "category"]
        )
        given_categories = [name for name, kind in self.roles.types.items() if kind == "category"]
        return TextOptions(
            TAB_IN_WORDS.get(options.delimiter, options.delimiter),
            options.decimal,
            options.encoding,
            self.roles.missing,
            options.time_format,
            (*given_categories, *trained_categories, self.roles.id_column),
            self.roles.target if self.trained is None else self.trained.target,
            self.roles.id_column,
        )
