"""What the columns of a table are for: target, inputs, weights and ids."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from torchnn.tables.errors import TableError, no_such_column, quote, suggest_column
from torchnn.tables.kinds import kind_of_type, values_of
from torchnn.tables.raw import RawTable


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What the columns of a table are for.

    Attributes:
        target: the column to predict.
        positive: the value of the target that is class 1; None to choose by convention.
        include: names or patterns of the columns to learn from; empty for all.
        exclude: names or patterns of columns to leave out.
        keep: columns to keep even if they look useless.
        types: kinds of columns that are not what they look like.
        id_column: the column with the id of each row in predictions; "" for the number of the row.
        weight_column: the column with the weight of each row; "" for equal weights.
        missing: additional words that stand for a missing value.
        max_categories: the most values that a category may have.
    """

    target: str = ""
    positive: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    id_column: str = ""
    weight_column: str = ""
    missing: tuple[str, ...] = ()
    max_categories: int = 1000


def usable_columns(data: pa.Table, source: str, roles: Roles, split_column: str) -> list[str]:
    """The names of the columns to learn from, in the order of the table.

    Raises:
        TableError: a name or pattern matches no column, or the target has a second role.
    """
    names = list(data.column_names)
    role_of: dict[str, str] = {}
    named = (("target", roles.target), ("id_column", roles.id_column), ("weight_column", roles.weight_column))
    for role, name in (*named, ("split_column", split_column)):
        if name and "target" in (role, role_of.get(name)) and name in role_of:
            raise TableError(f"--data.{role} and --data.target are both {quote(name)}: use different columns.")
        role_of.setdefault(name, role)
    if split_column and split_column not in names:
        raise no_such_column(source, split_column, "split_column", names)
    for flag, patterns in (("include", roles.include), ("exclude", roles.exclude), ("keep", roles.keep)):
        for pattern in patterns:
            if not _matching(names, pattern):
                raise TableError(
                    f"--data.{flag} {quote(pattern)} matches no column of {source}: {suggest_column(pattern, names)}"
                )
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


def check_any_usable_type(raw: RawTable, names: Sequence[str]) -> None:
    """Refuse a table if a network can use none of these columns."""
    if not any(kind_of_type(raw.data.schema.field(name).type) for name in names):
        raise TableError(
            f"{raw.name} has no column of numbers, words, booleans or times: use a table with such a column."
        )


def weight_of(raw: RawTable, name: str, may_be_zero: bool = False) -> Tensor | None:
    """The weight of each row; None without a name.

    Args:
        raw: the table, or some of its rows.
        name: the column, or "".
        may_be_zero: whether all weights may be zero, as in some rows of a table.

    Raises:
        TableError: there is no such column, or a weight is missing or below 0.
    """
    if not name:
        return None
    if name not in raw.data.column_names:
        raise no_such_column(raw.name, name, "weight_column", raw.data.column_names)
    numbers = values_of(raw, name, "number", ())
    bad = ~(numbers >= 0)
    if bad.any():
        row = int(np.argmax(bad))
        raise TableError(
            f"{raw.where(row)}, weight {quote(name)} is {raw.data[name][row].as_py() or 'missing'}: it must be a "
            "number that is 0 or more."
        )
    if not (may_be_zero or numbers.any()):
        raise TableError(f"{raw.name}, weight {quote(name)} is 0 in all rows: set a weight above 0 in some rows.")
    return torch.from_numpy(numbers.astype(np.float32))


def ids_of(raw: RawTable, name: str) -> Any:
    """The id of each row; None without a name.

    Raises:
        TableError: there is no such column.
    """
    if name and name not in raw.data.column_names:
        raise no_such_column(raw.name, name, "id_column", raw.data.column_names)
    return raw.data[name] if name else None
