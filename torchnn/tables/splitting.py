"""The rows of each part of a table: by class, time or group, by fold, or by file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from torchnn.tables.faults import TableError, short
from torchnn.tables.files import RawTable
from torchnn.tables.infer import kinds_of
from torchnn.tables.kinds import as_text, values_of
from torchnn.tables.roles import Roles
from torchnn.tables.split import Parts, Split, split_by_class, split_by_group, split_by_time, split_fold


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


def parts_of(raw: RawTable, target: Tensor, how: Splitting, roles: Roles) -> Parts:
    """Positions of the rows of each part.

    Args:
        raw: the table.
        target: of each row, (rows,).
        how: the rule.
        roles: kinds that are prescribed, and words that stand for a missing value.

    Raises:
        TableError: a column that orders no rows, a row without a time, or files with rows of one class only.
        ValueError: a part without a row of each class.
    """
    if how.given:
        return _split_files(target, how)
    order, groups = None, None
    if how.by == "time":
        order = times(raw, how.column, kind_of_order(raw, how.column, roles), roles.missing)
    elif how.by == "group":
        groups = pc.fill_null(as_text(raw.data[how.column], roles.missing), "").to_numpy(zero_copy_only=False)
    if how.folds:
        return split_fold(target, groups, how.folds, how.fold, how.val_fraction, how.seed)
    if order is not None:
        return split_by_time(order, target, how.val_fraction, how.test_fraction)
    if groups is not None:
        return split_by_group(groups, target, how.val_fraction, how.test_fraction, how.seed)
    return split_by_class(target, how.val_fraction, how.test_fraction, how.seed)


def kind_of_order(raw: RawTable, column: str, roles: Roles) -> str:
    """Whether a column that rows are split by holds times or numbers.

    Raises:
        TableError: it holds neither.
    """
    given = {name: kind for name, kind in roles.types.items() if name == column}
    kind = kinds_of(raw, [column], given, roles.missing)[column]
    if kind not in ("time", "number"):
        raise TableError(
            f"{raw.name}, column {short(column)} orders no rows: give --data.split_column a time or a number."
        )
    return kind


def times(raw: RawTable, column: str, kind: str, missing: tuple[str, ...]) -> np.ndarray:
    """The time of each row, float64.

    Raises:
        TableError: one is missing.
    """
    order: np.ndarray = values_of(raw, column, kind, missing)
    if np.isnan(order).any():
        row = int(np.argmax(np.isnan(order)))
        raise TableError(f"{raw.where(row)}, column {short(column)} is missing: every row needs a time to be split by.")
    return order


def _split_files(target: Tensor, how: Splitting) -> Parts:
    """The parts that files give, and the others from the rows of the first."""
    own = how.given["train"]
    rows = {name: how.given[name] for name in ("val", "test") if name in how.given}
    if len(rows) == 2:
        rows = {"train": own, **rows}
    else:
        parts = split_by_class(target[own], how.val_fraction, how.test_fraction, how.seed)
        for name, part in parts.items():
            if name in rows:  # what would have been this part trains too
                parts["train"] = torch.cat([parts["train"], part]).sort().values
        rows = {name: rows[name] if name in rows else own[parts[name]] for name in ("train", "val", "test")}
    for name, part in rows.items():
        if len(target[part].round().unique()) < 2:
            flag = "path" if name == "train" else f"{name}_path"
            raise TableError(f"--data.{flag} has rows of one class only: give rows of both.")
    return rows
