"""Several tables as one."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from torchnn.tables.faults import TableError, first_line, quoted, short


def check_same_columns(tables: Sequence[pa.Table], paths: Sequence[Path | str]) -> None:
    """Refuse tables whose columns differ, in whatever order."""
    first = tables[0]
    for table, path in zip(tables[1:], paths[1:], strict=True):
        lacking = [name for name in first.column_names if name not in table.column_names]
        extra = [name for name in table.column_names if name not in first.column_names]
        if lacking:
            raise TableError(f"{path} lacks {_columns(lacking)} of {paths[0]}: give files with the same columns.")
        if extra:
            raise TableError(f"{path} has {_columns(extra)}, which {paths[0]} lacks: give files with the same columns.")


def _columns(names: Sequence[str]) -> str:
    return f"column{'s' * (len(names) > 1)} {quoted(names)}"


def words_in_some(tables: Sequence[pa.Table]) -> list[str]:
    """Columns that hold one type in some tables and another, or words, in others; null and numbers go with numbers."""
    mixed = []
    for name in tables[0].column_names:
        kinds = {table.schema.field(name).type for table in tables} - {pa.null()}
        numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds)
        if len(kinds) > 1 and not numbers and not all(map(pa.types.is_timestamp, kinds)):
            mixed.append(name)
    return mixed


def joined(tables: Sequence[pa.Table], paths: Sequence[Path | str]) -> pa.Table:
    """The rows of all tables, as the widest of their types.

    Raises:
        TableError: types that do not go together, with the column and the files.
    """
    ordered = [table.select(tables[0].column_names) for table in tables]
    try:
        return pa.concat_tables(ordered, promote_options="permissive")
    except pa.ArrowException as error:
        for name in tables[0].column_names:
            kinds = [table.schema.field(name).type for table in ordered]
            other = next((i for i, kind in enumerate(kinds) if kind != kinds[0] and not pa.types.is_null(kind)), None)
            if other is not None and f" {name} " in str(error):
                raise TableError(
                    f"column {short(name)} holds {kinds[0]} in {paths[0]} and {kinds[other]} in {paths[other]}: "
                    "give files whose columns hold the same."
                ) from error
        raise TableError(
            f"{paths[0]} and the files after it hold different types ({first_line(error)}): make them equal."
        ) from error
