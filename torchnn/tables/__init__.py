"""From files to numbers: reading, typing, splitting and encoding tables."""

from torchnn.tables.columns import Column, Schema
from torchnn.tables.faults import TableError
from torchnn.tables.table import Table

__all__ = ["Column", "Schema", "Table", "TableError"]
