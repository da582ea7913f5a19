"""What the columns of a table are for: target, features, weight, names of rows."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from torchnn.tables.faults import TableError, close_to, short
from torchnn.tables.files import RawTable
from torchnn.tables.kinds import kind_of_type, values_of


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are for.

    Attributes:
        target: what is predicted.
        positive: its value that is class 1; None for the one that everybody would choose.
        include: names or patterns of the columns to learn from; empty for all.
        exclude: names or patterns of columns to leave out.
        keep: columns to keep even if they look useless.
        types: kinds of columns that are not what they look like.
        id_column: names the rows in predictions; "" for their number.
        weight_column: the weight of each row; "" for 1.
        missing: further words that stand for a missing value.
        max_categories: the most values of a category.
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
        TableError: a name or pattern that fits no column.
    """
    names = list(data.column_names)
    taken_by: dict[str, str] = {}
    named = (("target", roles.target), ("id_column", roles.id_column), ("weight_column", roles.weight_column))
    for role, name in (*named, ("split_column", split_column)):
        if name and "target" in (role, taken_by.get(name)) and name in taken_by:
            raise TableError(f"--data.{role} and --data.target are both {short(name)}: name another column.")
        taken_by.setdefault(name, role)
    if split_column and split_column not in names:
        raise TableError(
            f"{source} has no column {short(split_column)} for --data.split_column: {close_to(split_column, names)}"
        )
    for flag, patterns in (("include", roles.include), ("exclude", roles.exclude), ("keep", roles.keep)):
        for pattern in patterns:
            if not _matching(names, pattern):
                raise TableError(
                    f"--data.{flag} {short(pattern)} fits no column of {source}: {close_to(pattern, names)}"
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
            f"{raw.name} has no column {short(name)} for --data.weight_column: {close_to(name, raw.data.column_names)}"
        )
    numbers = values_of(raw, name, "number", ())
    bad = ~(numbers >= 0)
    if bad.any():
        row = int(np.argmax(bad))
        raise TableError(
            f"{raw.where(row)}, weight {short(name)} is {raw.data[name][row].as_py() or 'missing'}: "
            "give a number, 0 or more."
        )
    if not (may_be_zero or numbers.any()):
        raise TableError(f"{raw.name}, weight {short(name)} is 0 in all rows: give a weight above 0.")
    return torch.from_numpy(numbers.astype(np.float32))


def ids_of(raw: RawTable, name: str) -> Any:
    """What names each row; None without a name."""
    if name and name not in raw.data.column_names:
        raise TableError(
            f"{raw.name} has no column {short(name)} for --data.id_column: {close_to(name, raw.data.column_names)}"
        )
    return raw.data[name] if name else None
