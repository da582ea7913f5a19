"""A table that is in memory already."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from torchnn.tables.faults import TableError, check_names, first_line
from torchnn.tables.files import RawTable
from torchnn.tables.joining import check_same_columns, joined


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
        elif hasattr(data, "iloc") or not hasattr(data, "__arrow_c_stream__"):
            table = pa.Table.from_pandas(
                data, preserve_index=False
            )  # through its stream, pandas makes its index a column
        else:
            table = pa.table(data)
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
        raise TableError(
            f"this is no table ({first_line(error)}): give a dataframe, an Arrow table, or a dictionary of columns."
        ) from error
    check_names(table.column_names, "the table")
    if table.num_rows == 0:
        raise TableError("the table has no rows: give one with data.")
    return RawTable(table)


def raw_tables(tables: Sequence[Any]) -> tuple[RawTable, list[int]]:
    """The rows of tables in memory, one after the other, and how many each has.

    Raises:
        TableError: as `raw_table`; or tables whose columns differ.
    """
    own = [raw_table(table).data for table in tables]
    names = [f"the {nth} table" for nth in ("first", "second", "third")[: len(own)]]
    check_same_columns(own, names)
    return RawTable(joined(own, names)), [table.num_rows for table in own]
