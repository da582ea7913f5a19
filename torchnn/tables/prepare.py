"""From raw rows to numbers: the target, the split, the columns as training rows show them, and the matrix."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from torchnn.tables.columns import Schema
from torchnn.tables.encode import encode
from torchnn.tables.faults import TableError, check_names, close_to
from torchnn.tables.files import RawTable
from torchnn.tables.kinds import as_text, kind_of_type, kinds_of, values_of
from torchnn.tables.learn import learn_columns
from torchnn.tables.roles import Roles
from torchnn.tables.split import Parts, Split, split_by_class, split_by_group, split_by_time, split_fold
from torchnn.tables.table import Table
from torchnn.tables.target import Target, read_target


@dataclass(frozen=True)
class Splitting:
    """How rows are divided.

    Attributes:
        by: random by class proportions, by time, or by group.
        column: the time or the group.
        val_fraction: of the rows.
        test_fraction: of the rows.
        folds: 0 for one split; else fold `fold` of so many is held out.
        fold: from 0.
        seed: of the split.
        given: rows of "train", "val" and "test" files, where they are separate.
    """

    by: Split = "random"
    column: str = ""
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    folds: int = 0
    fold: int = 0
    seed: int = 0
    given: Mapping[str, Tensor] = field(default_factory=dict)


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
    rows = _split(raw, torch.from_numpy(target.values), splitting, roles.missing)
    schema, columns = learn_columns(raw, names, rows["train"], roles, target.classes, remark)
    if weight is not None:
        weight = weight / weight[rows["train"]].mean()
    features = encode(columns, schema)
    table = Table(features, torch.from_numpy(target.values), schema.slots, target.classes, weight, ids, roles.id_column)
    return Prepared(table, schema, rows)


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
    weight, ids = weight_of(raw, weight_column), ids_of(raw, id_column)
    return Table(
        encode(columns, schema), torch.from_numpy(target.values), schema.slots, schema.classes, weight, ids, id_column
    )


def check_complete(raw: RawTable, schema: Schema) -> None:
    """Refuse a table that lacks a column of the schema."""
    lacking = [column.name for column in schema.columns if column.name not in raw.data.column_names]
    if lacking:
        raise TableError(
            f"{raw.name} lacks column {lacking[0]!r}"
            + (f" and {len(lacking) - 1} more" if lacking[1:] else "")
            + f" that the model was trained on: {close_to(lacking[0], raw.data.column_names)}"
        )


def unseen_categories(table: Table, schema: Schema) -> dict[str, int]:
    """Rows of each category column whose value training has not seen; only columns that have any."""
    counts = {}
    for slot, column in enumerate(schema.slot_columns):
        if column.kind == "category" and (unseen := int((table.features[:, slot] == 0).sum())):
            counts[column.name] = unseen
    return counts


def raw_table(data: Any) -> RawTable:
    """An Arrow table, a dataframe, or a mapping of columns, as it is in memory.

    Raises:
        TableError: something else, blank or repeated names, or no rows.

    >>> raw_table({"x": [1.0, 2.0]}).data.num_rows
    2
    """
    try:
        if isinstance(data, pa.Table):
            table = data
        elif isinstance(data, Mapping):
            table = pa.table({str(name): pa.array(values) for name, values in data.items()})
        elif hasattr(data, "__arrow_c_stream__"):
            table = pa.table(data)
        else:
            table = pa.Table.from_pandas(data, preserve_index=False)
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
        raise TableError(
            f"this is no table ({error}): give a dataframe, an Arrow table, or a dictionary of columns."
        ) from error
    check_names(table.column_names, "the table")
    if table.num_rows == 0:
        raise TableError("the table has no rows: give one with data.")
    return RawTable(table)


def usable_columns(data: pa.Table, source: str, roles: Roles, split_column: str) -> list[str]:
    """The names of the columns to learn from, in the order of the table.

    Raises:
        TableError: a name or pattern that fits no column.
    """
    names = list(data.column_names)
    if split_column and split_column not in names:
        raise TableError(
            f"{source} has no column {split_column!r} for --data.split_column: {close_to(split_column, names)}"
        )
    for flag, patterns in (("include", roles.include), ("exclude", roles.exclude), ("keep", roles.keep)):
        for pattern in patterns:
            if not _matching(names, pattern):
                raise TableError(f"--data.{flag} {pattern!r} fits no column of {source}: {close_to(pattern, names)}")
    other = {roles.target, roles.id_column, roles.weight_column, split_column}
    chosen = {name for pattern in roles.include or ("*",) for name in _matching(names, pattern)}
    left_out = {name for pattern in roles.exclude for name in _matching(names, pattern)}
    kept = [name for name in names if name in chosen - left_out and (name not in other or name in roles.keep)]
    kept = [name for name in kept if name != roles.target]
    if not kept:
        raise TableError(f"{source} has no column left to learn from: check --data.include and --data.exclude.")
    return kept


def _matching(names: Sequence[str], pattern: str) -> list[str]:
    return [pattern] if pattern in names else fnmatch.filter(names, pattern)


def check_types(raw: RawTable, names: Sequence[str]) -> None:
    """Refuse a table none of whose columns a network takes."""
    if not any(kind_of_type(raw.data.schema.field(name).type) for name in names):
        raise TableError(f"{raw.name} has no column of numbers, words, booleans or times: give one with such columns.")


def weight_of(raw: RawTable, name: str, may_be_zero: bool = False) -> Tensor | None:
    """The weight of each row; None without a name. Of some rows of a table, all may be zero."""
    if not name:
        return None
    if name not in raw.data.column_names:
        raise TableError(
            f"{raw.name} has no column {name!r} for --data.weight_column: {close_to(name, raw.data.column_names)}"
        )
    numbers = values_of(raw, name, "number", ())
    bad = ~(numbers >= 0)
    if bad.any():
        row = int(np.argmax(bad))
        raise TableError(
            f"{raw.where(row)}, weight {name!r} is {raw.data[name][row].as_py()}: a weight is a number, 0 or more."
        )
    if not (may_be_zero or numbers.any()):
        raise TableError(f"{raw.name}, weight {name!r} is 0 in all rows: give a weight above 0.")
    return torch.from_numpy(numbers.astype(np.float32))


def ids_of(raw: RawTable, name: str) -> Any:
    """What names each row; None without a name."""
    if name and name not in raw.data.column_names:
        raise TableError(
            f"{raw.name} has no column {name!r} for --data.id_column: {close_to(name, raw.data.column_names)}"
        )
    return raw.data[name] if name else None


def _split(raw: RawTable, target: Tensor, how: Splitting, missing: tuple[str, ...]) -> Parts:
    if how.given:
        return _split_files(target, how)
    order, groups = None, None
    if how.by == "time":
        kind = kinds_of(raw, [how.column], {}, missing)[how.column]
        if kind not in ("time", "number"):
            raise TableError(
                f"{raw.name}, column {how.column!r} orders no rows: give --data.split_column a time or a number."
            )
        order = values_of(raw, how.column, kind, missing)
        if np.isnan(order).any():
            row = int(np.argmax(np.isnan(order)))
            raise TableError(
                f"{raw.where(row)}, column {how.column!r} is missing: every row needs a time to be split by."
            )
    elif how.by == "group":
        groups = pc.fill_null(as_text(raw.data[how.column], missing), "").to_numpy(zero_copy_only=False)
    if how.folds:
        return split_fold(target, groups, how.folds, how.fold, how.val_fraction, how.seed)
    if order is not None:
        return split_by_time(order, target, how.val_fraction, how.test_fraction)
    if groups is not None:
        return split_by_group(groups, target, how.val_fraction, how.test_fraction, how.seed)
    return split_by_class(target, how.val_fraction, how.test_fraction, how.seed)


def _split_files(target: Tensor, how: Splitting) -> Parts:
    """The parts that files give, and the others from the rows of the first."""
    own = how.given["train"]
    parts = split_by_class(target[own], how.val_fraction, how.test_fraction, how.seed)
    rows = {name: own[part] for name, part in parts.items()}
    for name in ("val", "test"):
        if name in how.given:
            rows["train"] = torch.cat([rows["train"], rows[name]]).sort().values
            rows[name] = how.given[name]
    for name in ("val", "test"):
        if len(target[rows[name]].round().unique()) < 2:
            raise TableError(f"--data.{name}_path has rows of one class only: give rows of both.")
    return rows
