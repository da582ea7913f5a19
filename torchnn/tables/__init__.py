"""From files to numbers: read tables, find the kinds of their columns, split and encode them."""

from torchnn.tables.errors import TableError
from torchnn.tables.schema import Column, Schema
from torchnn.tables.table import Table

__all__ = ["Column", "Schema", "Table", "TableError"]
