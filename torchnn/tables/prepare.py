"""From raw rows to numbers: the target, the split, the columns as training rows show them, and the matrix."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchnn.tables.columns import Schema
from torchnn.tables.encode import encode
from torchnn.tables.faults import TableError, close_to, quoted, short
from torchnn.tables.files import RawTable
from torchnn.tables.kinds import ZONE, has_zone, values_of
from torchnn.tables.learn import learn_columns
from torchnn.tables.roles import Roles, check_types, ids_of, usable_columns, weight_of
from torchnn.tables.split import Parts
from torchnn.tables.splitting import Splitting, parts_of
from torchnn.tables.table import Table
from torchnn.tables.target import Target, read_target


@dataclass(frozen=True)
class Prepared:
    """A table ready to train on.

    Attributes:
        table: its numbers.
        schema: what a model has to know of its columns.
        rows: positions of the "train", "val" and "test" rows.
    """

    table: Table
    schema: Schema
    rows: Parts


def prepare(raw: RawTable, roles: Roles, splitting: Splitting, remark: Callable[[str], None]) -> Prepared:
    """A table to train on; the columns are judged by its training rows alone.

    Args:
        raw: the rows.
        roles: what the columns are for.
        splitting: how rows are divided.
        remark: is told of columns that are dropped, a sentence each.

    Raises:
        TableError: a fault of the table, the target first.
        ValueError: a split that leaves a part without a row of each class.
    """
    target = read_target(raw, roles.target, roles.positive, roles.missing)
    names = usable_columns(raw.data, raw.name, roles, splitting.column)
    check_types(raw, names)
    weight, ids = weight_of(raw, roles.weight_column), ids_of(raw, roles.id_column)
    rows = parts_of(raw, torch.from_numpy(target.values), splitting, roles)
    if weight is not None:
        weight = balanced(weight, target, rows, f"{raw.name}, weight {short(roles.weight_column)}")
    schema, columns = learn_columns(raw, names, rows["train"], roles, target.classes, remark)
    features = encode(columns, schema)
    table = Table(features, torch.from_numpy(target.values), schema.slots, target.classes, weight, ids, roles.id_column)
    return Prepared(table, schema, rows)


def balanced(weight: Tensor, target: Target, rows: Parts, source: str) -> Tensor:
    """Weights with mean 1 over the training rows.

    Raises:
        TableError: weights that leave nothing of a class to train on, or nothing to validate or test on.
    """
    labels = torch.from_numpy(target.values).round()
    for name, part in rows.items():
        own, its_labels = weight[part], labels[part]
        if not own.any() or (name == "train" and not all(own[its_labels == label].any() for label in (0, 1))):
            raise TableError(
                f"{source} is 0 in all {name} rows{' of a class' * bool(own.any())}: give weights above 0."
            )
    return weight / weight[rows["train"]].mean()


def encode_table(
    raw: RawTable, schema: Schema, with_target: bool = False, id_column: str = "", weight_column: str = ""
) -> Table:
    """A table as a trained model takes it.

    Args:
        raw: the rows.
        schema: what the model knows of its columns.
        with_target: whether to read the target; else it is NaN.
        id_column: names the rows; "" for their numbers.
        weight_column: the weight of each row; "" for 1.

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
        encode(columns, schema), torch.from_numpy(target.values), schema.slots, schema.classes, weight, ids, id_column
    )


def check_complete(raw: RawTable, schema: Schema) -> None:
    """Refuse a table that lacks a column of the schema."""
    lacking = [column.name for column in schema.columns if column.name not in raw.data.column_names]
    if lacking:
        raise TableError(
            f"{raw.name} lacks column{'s' * bool(lacking[1:])} {quoted(lacking)} that the model was trained on: "
            f"{close_to(lacking[0], raw.data.column_names)}"
        )


def check_zones(raw: RawTable, schema: Schema) -> None:
    """Refuse times with a zone, which are taken as UTC, for a model whose training had none, and the reverse."""
    for column in schema.columns:
        zoned = None if column.zoned is None else has_zone(raw.data[column.name], schema.missing)
        if zoned is not None and zoned != column.zoned:
            raise TableError(
                f"{raw.name}, column {short(column.name)} holds times {ZONE[zoned]}, the model was trained on times "
                f"{ZONE[not zoned]}: write them as it knows them, so that an hour stays the same hour."
            )


def unseen_categories(table: Table, schema: Schema) -> dict[str, int]:
    """Rows of each category column whose value training has not seen; only columns that have any."""
    counts = {}
    for slot, column in enumerate(schema.slot_columns):
        if column.kind == "category" and (unseen := int((table.features[:, slot] == 0).sum())):
            counts[column.name] = unseen
    return counts


def missing_values(table: Table, schema: Schema) -> dict[str, int]:
    """Rows of each column without a value."""
    first = {column.name: slot for slot, column in reversed(list(enumerate(schema.slot_columns)))}
    return {name: int(table.features[:, slot].isnan().sum()) for name, slot in first.items()}


def more_missing(counts: Mapping[str, int], num_rows: int, schema: Schema) -> Iterator[str]:
    """A sentence on each column that a model is given without values, as its training did not show it.

    >>> from torchnn.tables.columns import Column
    >>> seen = Schema((Column("x", "number"), Column("z", "number", missing=True)))
    >>> list(more_missing({"x": 1, "z": 3}, 4, seen))
    ["column 'x' has no value in 1 of 4 rows, in training it always had one."]
    >>> list(more_missing({"x": 0, "z": 4}, 4, seen))
    ["column 'z' has no value in any of 4 rows."]
    """
    for column in schema.columns:
        count = counts.get(column.name, 0)
        if count and not column.missing:
            yield (
                f"column {short(column.name)} has no value in {count:,} of {num_rows:,} rows, in training it always "
                "had one."
            )
        elif count == num_rows > 1:
            yield f"column {short(column.name)} has no value in any of {num_rows:,} rows."
