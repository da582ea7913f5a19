"""What a model has to know of the columns of a table, learnt from some of its rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from torchnn.tables.columns import Schema
from torchnn.tables.files import RawTable
from torchnn.tables.kinds import kinds_of, values_of
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
    given = {name: kind for name, kind in roles.types.items() if name in names or name not in raw.data.column_names}
    kinds = kinds_of(raw, names, given, roles.missing)
    values = {name: values_of(raw, name, kinds[name], roles.missing) for name in names if kinds[name]}
    profiles = {}
    for name in names:
        if not kinds[name]:
            remark(f"column {name!r} holds {raw.data.schema.field(name).type}, which no network takes: dropped.")
            continue
        profiles[name] = Profile(name, kinds[name])
        profiles[name].update(taken(values[name], rows))
    schema = schema_of(
        profiles, roles.keep, roles.max_categories, roles.target, classes, roles.missing, raw.name, remark
    )
    return schema, values


def taken(values: Any, rows: Tensor) -> Any:
    """Some rows of a column."""
    return values[rows.numpy()] if isinstance(values, np.ndarray) else values.take(pa.array(rows.numpy()))
