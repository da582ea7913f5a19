"""Rows as they are in files or in memory, before their columns are interpreted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from torchnn.tables.errors import TableError, check_names, first_line, quote, quote_all


@dataclass(frozen=True)
class SourceFile:
    """A file of a table.

    Attributes:
        path: its path.
        num_rows: rows in it, without the header.
        rows_are_lines: whether row r is line r + 2, as in a text file without blank lines and without line breaks in
            values.
    """

    path: Path
    num_rows: int
    rows_are_lines: bool = False


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """Rows as they are in the files, and which file each came from.

    Attributes:
        data: the columns, as Arrow read them.
        sources: the files, in the order of their rows; empty for a table that was in memory.
        from_text: whether the types were inferred from text.
        fingerprint: hash of the contents of the files.
    """

    data: pa.Table
    sources: tuple[SourceFile, ...] = ()
    from_text: bool = False
    fingerprint: str = ""

    @property
    def name(self) -> str:
        """The name of the table in a message."""
        if not self.sources:
            return "the table"
        others = len(self.sources) - 1
        more = f" and {others} more file{'s' * (others > 1)}" if others else ""
        return f"{self.sources[0].path}{more}"

    def where(self, row: int) -> str:
        """File, row (counted from 0 as in predictions) and line of a row of the whole table."""
        for source in self.sources:
            if row < source.num_rows:
                line = f"line {row + 2}" if source.rows_are_lines else "counted from 0"
                return f"{source.path}, row {row} ({line})"
            row -= source.num_rows
        return f"row {row} (counted from 0)"


def raw_table(data: Any) -> RawTable:
    """A `RawTable` from an Arrow table, a dataframe, or a mapping of columns.

    Raises:
        TableError: `data` is something else, has blank or repeated names, or has no rows.

    >>> raw_table({"x": [1.0, 2.0]}).data.num_rows
    2
    """
    try:
        if isinstance(data, pa.Table):
            table = data
        elif isinstance(data, Mapping):
            table = pa.table({str(name): pa.array(values) for name, values in data.items()})
        elif hasattr(data, "iloc") or not hasattr(data, "__arrow_c_stream__"):
            # The Arrow stream of a pandas dataframe would make the index a column.
            table = pa.Table.from_pandas(data, preserve_index=False)
        else:
            table = pa.table(data)
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
        raise TableError(
            f"this is not a table ({first_line(error)}): pass a dataframe, an Arrow table, or a dictionary of columns."
        ) from error
    check_names(table.column_names, "the table")
    if table.num_rows == 0:
        raise TableError("the table has no rows: use a table with data.")
    return RawTable(data=table)


def raw_tables(tables: Sequence[Any]) -> tuple[RawTable, list[int]]:
    """The rows of several tables in memory, concatenated, and the number of rows of each.

    Raises:
        TableError: as `raw_table`; or the columns of the tables differ.
    """
    arrow = [raw_table(table).data for table in tables]
    names = [f"the {nth} table" for nth in ("first", "second", "third")[: len(arrow)]]
    check_same_columns([table.column_names for table in arrow], names)
    return RawTable(data=concatenate(arrow, names)), [table.num_rows for table in arrow]


def check_same_columns(names: Sequence[Sequence[str]], sources: Sequence[Path | str]) -> None:
    """Refuse tables whose column names differ, in whatever order.

    Args:
        names: the column names of each table.
        sources: the name of each table in a message.
    """
    first = names[0]
    for others, source in zip(names[1:], sources[1:], strict=True):
        if lacking := [name for name in first if name not in others]:
            raise TableError(
                f"{source} does not have {_columns(lacking)} of {sources[0]}: use files with the same columns."
            )
        if extra := [name for name in others if name not in first]:
            raise TableError(
                f"{source} has {_columns(extra)}, which {sources[0]} does not have: use files with the same columns."
            )


def _columns(names: Sequence[str]) -> str:
    return f"column{'s' * (len(names) > 1)} {quote_all(names)}"


def different_types(name: str, first: tuple[pa.DataType, Any], second: tuple[pa.DataType, Any]) -> TableError:
    """The error for a column whose type, given with its file, differs between two files."""
    return TableError(
        f"column {quote(name)} holds {first[0]} in {first[1]} and {second[0]} in {second[1]}: convert it to the same "
        "type in all files."
    )


def columns_of_mixed_type(tables: Sequence[pa.Table]) -> list[str]:
    """Columns whose type differs between tables; null and any two types of numbers do not count as different."""
    mixed = []
    for name in tables[0].column_names:
        kinds = {table.schema.field(name).type for table in tables} - {pa.null()}
        numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds)
        if len(kinds) > 1 and not numbers and not all(map(pa.types.is_timestamp, kinds)):
            mixed.append(name)
    return mixed


def concatenate(tables: Sequence[pa.Table], sources: Sequence[Path | str]) -> pa.Table:
    """The rows of tables with the same columns, in the widest of their types.

    Raises:
        TableError: the types of a column cannot be combined.
    """
    ordered = [table.select(tables[0].column_names) for table in tables]
    try:
        return pa.concat_tables(ordered, promote_options="permissive")
    except pa.ArrowException as error:
        for name in tables[0].column_names:
            kinds = [table.schema.field(name).type for table in ordered]
            other = next((i for i, kind in enumerate(kinds) if kind != kinds[0] and not pa.types.is_null(kind)), None)
            if other is not None and f" {name} " in str(error):
                raise different_types(name, (kinds[0], sources[0]), (kinds[other], sources[other])) from error
        raise TableError(
            f"{sources[0]} and the files after it have columns of different types ({first_line(error)}): use the same "
            "types in all files."
        ) from error
