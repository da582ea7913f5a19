"""What a model has to know of the columns of a table, learnt from some of its rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from torchnn.tables.columns import Schema
from torchnn.tables.faults import TableError, short
from torchnn.tables.files import RawTable
from torchnn.tables.infer import kinds_of
from torchnn.tables.kinds import ZONE, has_zone, values_of
from torchnn.tables.profile import Profile, schema_of
from torchnn.tables.roles import Roles


def learn_columns(
    raw: RawTable,
    names: list[str],
    rows: Tensor,
    roles: Roles,
    classes: tuple[str, str],
    remark: Callable[[str], None],
) -> tuple[Schema, dict[str, Any]]:
    """The schema that some rows show, and the values of all rows as `encode` takes them.

    Args:
        raw: the table.
        names: the columns to learn from.
        rows: positions of the training rows.
        roles: kinds that are prescribed, columns to keep, limits.
        classes: names of class 0 and class 1.
        remark: is told of columns that are dropped, a sentence each.

    Raises:
        TableError: values that do not fit their column, or no column left.
    """
    profiles = new_profiles(raw, names, roles, remark)
    values = {name: values_of(raw, name, profile.kind, roles.missing) for name, profile in profiles.items()}
    for name, profile in profiles.items():
        profile.update(taken(values[name], rows))
        note_zone(raw, profile, roles.missing)
    limits = roles.keep, roles.max_categories
    return schema_of(profiles, *limits, roles.target, classes, roles.missing, raw.name, remark), values


def new_profiles(raw: RawTable, names: list[str], roles: Roles, remark: Callable[[str], None]) -> dict[str, Profile]:
    """An empty profile of each column that a network takes; arguments and errors as `learn_columns`."""
    of_others = set(raw.data.column_names) - set(names)  # a type for the target or an id says how to read it
    given = {name: kind for name, kind in roles.types.items() if name not in of_others}
    kinds = kinds_of(raw, names, given, roles.missing)
    for name in names:
        if not kinds[name]:
            kind = raw.data.schema.field(name).type
            remark(f"column {short(name)} holds {kind}, which no network takes: dropped; write it as numbers or words.")
    return {name: Profile(name, kinds[name]) for name in names if kinds[name]}


def note_zone(raw: RawTable, profile: Profile, missing: tuple[str, ...]) -> None:
    """Let the profile of a time know whether it has a zone.

    Raises:
        TableError: some of its rows have one, others have not.
    """
    if profile.kind != "time":
        return
    zoned = has_zone(raw.data[profile.name], missing)
    if zoned is None:
        return
    if profile.zoned is not None and profile.zoned != zoned:
        raise TableError(
            f"{raw.name}, column {short(profile.name)} holds times {ZONE[zoned]}, others of the table are "
            f"{ZONE[not zoned]}: write all of them alike."
        )
    profile.zoned = zoned


def taken(values: Any, rows: Tensor) -> Any:
    """Some rows of a column."""
    return values[rows.numpy()] if isinstance(values, np.ndarray) else values.take(pa.array(rows.numpy()))
