"""Prepare a table in memory: as training data with its schema and split, or as a trained model expects it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchnn.tables.encode import encode
from torchnn.tables.errors import TableError, quote, quote_all, suggest_column
from torchnn.tables.kinds import ZONE_PHRASE, has_zone, values_of
from torchnn.tables.learn import learn_columns
from torchnn.tables.raw import RawTable
from torchnn.tables.roles import Roles, check_any_usable_type, ids_of, usable_columns, weight_of
from torchnn.tables.schema import Schema
from torchnn.tables.split import PartRows, Splitting, split_rows
from torchnn.tables.table import Table
from torchnn.tables.target import Target, read_target

PART_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Prepared:
    """A table that is ready for training.

    Attributes:
        table: its numbers.
        schema: what a model has to know about its columns.
        rows: positions of the "train", "val" and "test" rows.
    """

    table: Table
    schema: Schema
    rows: PartRows


def prepare(raw: RawTable, roles: Roles, splitting: Splitting, note: Callable[[str], None]) -> Prepared:
    """Prepare a table for training; only the training rows decide how columns are used.

    Args:
        raw: the rows.
        roles: what the columns are for.
        splitting: how the rows are split.
        note: called with a sentence for each column that is dropped.

    Raises:
        TableError: something is wrong with the table; problems of the target are reported first.
        ValueError: the split leaves a part without rows of both classes.
    """
    target = read_target(raw, roles.target, roles.positive, roles.missing)
    names = usable_columns(raw.data, raw.name, roles, splitting.column)
    check_any_usable_type(raw, names)
    weight, ids = weight_of(raw, roles.weight_column), ids_of(raw, roles.id_column)
    rows = split_rows(raw, torch.from_numpy(target.values), splitting, roles)
    if weight is not None:
        weight = normalise_weights(weight, target, rows, f"{raw.name}, weight {quote(roles.weight_column)}")
    schema, columns = learn_columns(raw, names, rows["train"], roles, target.classes, note)
    table = Table(
        features=encode(columns, schema),
        target=torch.from_numpy(target.values),
        columns=schema.slots,
        classes=target.classes,
        weight=weight,
        ids=ids,
        id_name=roles.id_column,
    )
    return Prepared(table, schema, rows)


def normalise_weights(weight: Tensor, target: Target, rows: PartRows, source: str) -> Tensor:
    """Weights scaled to mean 1 over the training rows.

    Raises:
        TableError: all weights of a part, or of a class of the training rows, are 0.
    """
    labels = torch.from_numpy(target.values).round()
    for name, part in rows.items():
        own, its_labels = weight[part], labels[part]
        if not own.any() or (name == "train" and not all(own[its_labels == label].any() for label in (0, 1))):
            of_a_class = " of one class" * bool(own.any())
            raise TableError(
                f"{source} is 0 in all {PART_NAMES[name]} rows{of_a_class}: set a weight above 0 in some of these rows."
            )
    return weight / weight[rows["train"]].mean()


def encode_table(
    raw: RawTable, schema: Schema, with_target: bool = False, id_column: str = "", weight_column: str = ""
) -> Table:
    """A table as a trained model expects it.

    Args:
        raw: the rows.
        schema: what the model knows about its columns.
        with_target: whether to read the target; else it is NaN.
        id_column: the column with the id of each row; "" for the number of the row.
        weight_column: the column with the weight of each row; "" for equal weights.

    Raises:
        TableError: a column that the model needs is missing, or holds something else.
    """
    check_complete(raw, schema)
    if with_target:
        target = read_target(raw, schema.target, None, schema.missing, schema.classes)
    else:
        target = Target(np.full(raw.data.num_rows, np.nan, dtype=np.float32), schema.classes)
    columns = {column.name: values_of(raw, column.name, column.kind, schema.missing) for column in schema.columns}
    check_zones(raw, schema)
    weight, ids = weight_of(raw, weight_column), ids_of(raw, id_column)
    return Table(
        features=encode(columns, schema),
        target=torch.from_numpy(target.values),
        columns=schema.slots,
        classes=schema.classes,
        weight=weight,
        ids=ids,
        id_name=id_column,
    )


def check_complete(raw: RawTable, schema: Schema) -> None:
    """Refuse a table that does not have all columns of the schema."""
    lacking = [column.name for column in schema.columns if column.name not in raw.data.column_names]
    if lacking:
        raise TableError(
            f"{raw.name} does not have the column{'s' * bool(lacking[1:])} {quote_all(lacking)} that the model was "
            f"trained on: {suggest_column(lacking[0], raw.data.column_names)}"
        )


def check_zones(raw: RawTable, schema: Schema) -> None:
    """Refuse times with a zone, which are read as UTC, if the training had times without a zone, and vice versa."""
    for column in schema.columns:
        zoned = None if column.zoned is None else has_zone(raw.data[column.name], schema.missing)
        if zoned is not None and zoned != column.zoned:
            raise TableError(
                f"{raw.name}, column {quote(column.name)} holds times {ZONE_PHRASE[zoned]}, but the model was trained "
                f"on times {ZONE_PHRASE[not zoned]}: write them as in the training table, so that the hours mean the "
                "same."
            )


def count_unseen_categories(table: Table, schema: Schema) -> dict[str, int]:
    """Rows of each category column whose value did not occur in training; only columns that have such rows."""
    counts = {}
    for slot, column in enumerate(schema.slot_columns):
        if column.kind == "category" and (unseen := int((table.features[:, slot] == 0).sum())):
            counts[column.name] = unseen
    return counts


def count_missing(table: Table, schema: Schema) -> dict[str, int]:
    """Rows of each column that have no value."""
    first = {column.name: slot for slot, column in reversed(list(enumerate(schema.slot_columns)))}
    return {name: int(table.features[:, slot].isnan().sum()) for name, slot in first.items()}


def notes_on_unseen(counts: Mapping[str, int], num_rows: int) -> Iterator[str]:
    """A sentence for each column with categories that did not occur in training.

    >>> list(notes_on_unseen({"job": 2}, 9))
    ["column 'job' has values that did not occur in training, in 2 of 9 rows."]
    """
    for name, count in counts.items():
        yield f"column {quote(name)} has values that did not occur in training, in {count:,} of {num_rows:,} rows."


def notes_on_missing(counts: Mapping[str, int], num_rows: int, schema: Schema) -> Iterator[str]:
    """A sentence for each column that lacks values although it had them in training.

    >>> from torchnn.tables.schema import Column
    >>> x, z = Column(name="x", kind="number"), Column(name="z", kind="number", missing=True)
    >>> list(notes_on_missing({"x": 1, "z": 3}, 4, Schema(columns=(x, z))))
    ["column 'x' has no value in 1 of 4 rows, but always had one in training."]
    >>> list(notes_on_missing({"x": 0, "z": 4}, 4, Schema(columns=(x, z))))
    ["column 'z' has no value in any of 4 rows."]
    """
    for column in schema.columns:
        count, name = counts.get(column.name, 0), quote(column.name)
        if count and not column.missing:
            yield f"column {name} has no value in {count:,} of {num_rows:,} rows, but always had one in training."
        elif count == num_rows > 1:
            yield f"column {name} has no value in any of {num_rows:,} rows."
