"""The data module: a table, split and served in batches."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor

from torchnn.tables.columns import Schema, of_numbers
from torchnn.tables.embedded import EMBEDDED
from torchnn.tables.faults import TableError
from torchnn.tables.files import RawTable, find_files, read_files
from torchnn.tables.prepare import Prepared, Roles, Splitting, encode_table, prepare, raw_table, unseen_categories
from torchnn.tables.split import Parts, Split, split_by_class, split_fold
from torchnn.tables.table import Table
from torchnn.tables.text import TextOptions
from torchnn.training.source import (
    UNSEEN,
    DataSource,
    Loader,
    Part,
    TableSource,
    description,
    is_path,
    remark,
    stream_source,
    streamed,
)

EVALUATION_BATCH_SIZE = 4096


class TabularDataModule(pl.LightningDataModule):
    """A table for binary classification, split into training, validation and held-out rows.

    Args:
        path: CSV, TSV, compressed text, Parquet, Arrow or Feather; a folder, a glob or a list of them. In Python also
            an Arrow table, a dataframe or a dictionary of columns. null takes `dataset`.
        target: name of the column to predict: two values, or probabilities from 0 to 1.
        positive: the value of the target that is class 1; null for 1, true, yes, or the last in order.
        include: names or patterns (x_*) of the columns to learn from; empty for all.
        exclude: names or patterns of columns to leave out.
        keep: columns to learn from although they are constant, look like ids, or have a role of their own.
        types: kinds of columns that are not what they look like: number, boolean, category or time, by name.
        id_column: column that names the rows in predictions; null for the number of the row.
        weight_column: column with the weight of each row, 0 or more; null for equal weights.
        missing: further words that stand for a missing value.
        delimiter: between the values of a text; null looks at its header.
        decimal: decimal mark of a text.
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
        batch_size: rows in a training batch, per process.
        stream: read Parquet piece by piece instead of at once; auto does if its numbers would take more than 512 MiB.
        shuffle_rows: rows of the buffer that shuffles a stream; null for as many as 128 MiB hold, 1,048,576 at most.
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
        missing: list[str] | None = None,
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
        batch_size: int = 32,
        stream: bool | Literal["auto"] = "auto",
        shuffle_rows: int | None = None,
        seed: int = 0,
        dataset: Literal["breast_cancer"] = "breast_cancer",
        schema: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        in_memory = path is not None and not is_path(path)
        # A checkpoint names the split that it must not be tested on.
        self.save_hyperparameters(ignore=["schema", *(["path"] if in_memory else [])])
        options: Any = self.hparams
        check_options(options)
        self.batch_size = batch_size
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
            tuple(missing or ()),
            max_categories,
        )
        self.trained = None if schema is None else Schema.from_plain(schema)
        self.source = self._in_memory(self._embedded(options)) if path is None else self._own(path, options)
        self.schema = self.source.schema

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
        return self._loader("train", self.batch_size, shuffle_seed=self.seed)

    def val_dataloader(self) -> Loader:
        return self._loader("val", EVALUATION_BATCH_SIZE)

    def test_dataloader(self) -> Loader:
        return self._loader(self.evaluated, EVALUATION_BATCH_SIZE)

    def predict_dataloader(self) -> Loader:
        """Every process gets its share of the rows; `row` says which."""
        return self._loader(self.evaluated, EVALUATION_BATCH_SIZE)

    @property
    def evaluated(self) -> Part:
        """The rows that test and predict take."""
        return "all" if self.evaluates_all else "test"

    def _loader(self, part: Part, batch_size: int, shuffle_seed: int | None = None) -> Loader:
        rank, num_ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self.source.loader(part, batch_size, shuffle_seed, rank, num_ranks)

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

    def _own(self, path: Any, options: Any) -> DataSource:
        files = self._files(path, options)
        stream, hint = streamed([file for group in files.values() for file in group], options) if files else (None, "")
        if hint:
            remark(hint)
        splitting = Splitting(
            options.split,
            options.split_column or "",
            options.val_fraction,
            options.test_fraction,
            options.folds,
            options.fold or 0,
            self.seed,
        )
        tell = remark if self.trained is None else (lambda _: None)
        source: DataSource
        if stream is not None:
            self.hparams["fingerprint"] = stream.fingerprint()
            known = self.trained if self.evaluates_all else None
            of_files = [part for part, group in files.items() for _ in group]
            source = own = stream_source(stream, self.roles, splitting, of_files, known, tell, options.shuffle_rows)
            name, share = stream.described().name, own.positive_share
        else:
            raw, given = self._read(path, files, options)
            self.hparams["fingerprint"] = raw.fingerprint
            if self.trained is not None and self.evaluates_all:
                return self._in_memory(self._known(raw, self.trained))
            prepared = prepare(raw, self.roles, replace(splitting, given=given), tell)
            source, name, share = self._in_memory(prepared), raw.name, float(prepared.table.target.double().mean())
        if self.trained is None:
            remark(description(source.schema, source.num_rows["all"], share, name))
        elif self.trained != source.schema:
            raise TableError(f"{name} does not hold the columns that the checkpoint was trained on: use its own data.")
        return source

    def _known(self, raw: RawTable, schema: Schema) -> Prepared:
        """A table that is not trained on."""
        has_target = schema.target in raw.data.column_names
        weight_column = self.roles.weight_column if has_target else ""
        table = encode_table(raw, schema, has_target, self.roles.id_column, weight_column)
        for name, count in unseen_categories(table, schema).items():
            remark(UNSEEN.format(name=name, count=count, rows=len(table)))
        return Prepared(table, schema, {})

    def _files(self, path: Any, options: Any) -> dict[str, list[Path]]:
        """The files of each part, those without files of their own left out; none for a table that is given."""
        if not is_path(path):
            return {}
        parts = {"train": path}
        if not self.evaluates_all:
            parts |= {name: at for name in ("val", "test") if (at := options[f"{name}_path"]) is not None}
        return {name: find_files(at) for name, at in parts.items()}

    def _read(self, path: Any, files: Mapping[str, list[Path]], options: Any) -> tuple[RawTable, Mapping[str, Tensor]]:
        """The rows of all files, and which of them are those of files of their own."""
        if not files:
            return raw_table(path), {}
        trained_categories = (
            [] if self.trained is None else [c.name for c in self.trained.columns if c.kind == "category"]
        )
        given_categories = [name for name, kind in self.roles.types.items() if kind == "category"]
        text = TextOptions(
            options.delimiter,
            options.decimal,
            options.encoding,
            self.roles.missing,
            options.time_format,
            (*given_categories, *trained_categories, self.roles.id_column),
        )
        raw = read_files([file for group in files.values() for file in group], text, options.max_columns)
        if len(files) == 1:
            return raw, {}
        counts = iter(source.num_rows for source in raw.sources)
        sizes = [sum(next(counts) for _ in group) for group in files.values()]
        return raw, dict(zip(files, torch.arange(sum(sizes)).split(sizes), strict=True))


def check_options(options: Any) -> None:
    """Raise ValueError naming the first argument that is out of range."""
    if options.dataset not in EMBEDDED:
        raise ValueError(f"dataset is {options.dataset!r}: choose one of {', '.join(EMBEDDED)}.")
    for name in ("batch_size", "max_categories", "max_columns", "shuffle_rows"):
        if options[name] is not None and options[name] < 1:
            raise ValueError(f"{name} is {options[name]}: it is 1 or more.")
    for name in ("val_fraction", "test_fraction"):
        if not 0 < options[name] < 1:
            raise ValueError(f"{name} is {options[name]}: it lies between 0 and 1.")
    together = options.val_fraction + options.test_fraction
    if together >= 1 and not options.folds:
        raise ValueError(f"val_fraction + test_fraction is {together}: nothing is left to train.")
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"seed is {options.seed}: it lies between 0 and 2**32 − 1.")
    if options.folds < 0 or options.folds == 1:
        raise ValueError(f"folds is {options.folds}: give 2 or more, or 0 for a single run.")
    if options.fold is not None and not 0 <= options.fold < options.folds:
        raise ValueError(f"fold is {options.fold}: it is counted from 0 and below folds, {options.folds}.")
    if options.split != "random" and not options.split_column:
        raise ValueError(f"split is {options.split}: give split_column, the {options.split} of each row.")
    if options.split == "random" and options.split_column:
        raise ValueError(f"split_column is {options.split_column!r}, but split is random: set split to time or group.")
    if options.split == "time" and options.folds:
        raise ValueError("folds does not go with split time: a later part would train an earlier one.")
    separate = [name for name in ("val_path", "test_path") if options[name] is not None]
    if separate and (options.folds or options.split != "random"):
        raise ValueError(f"{separate[0]} does not go with folds or split {options.split}: the files are the split.")
