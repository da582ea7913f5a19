"""The columns of a table: what kind each is, which are of no use, and what a model has to remember of them."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from torchnn.tables.faults import TableError

Kind = Literal["number", "boolean", "category", "time"]
KINDS: tuple[str, ...] = get_args(Kind)
# What a point in time becomes: how long ago it is, and the cycles of its clock and calendar.
TIME_PARTS = ("days", "hour sin", "hour cos", "weekday sin", "weekday cos", "season sin", "season cos")
EPOCH = datetime.date(2000, 1, 1)  # days are counted from here, so that float32 holds them to the minute


@dataclass(frozen=True)
class Column:
    """One column of a table, as a trained model knows it.

    Attributes:
        name: in the header.
        kind: number, boolean, category or time.
        values: of a category: what training has seen more than once, in the order of the codes 1, 2, …; 0 is any other.
        missing: whether training has seen a missing value, so that missing is something to learn from.
        parts: of a time: those of `TIME_PARTS` that differ between rows.
        zoned: of a time: whether it has a zone; None if nothing tells, as in a checkpoint without this entry, whose
            model takes both.
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    missing: bool = False
    parts: tuple[str, ...] = ()
    zoned: bool | None = field(default=None, compare=False)

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the numbers that stand for a value of this column.

        >>> Column("due", "time", parts=("days", "hour sin")).slots
        ('due days', 'due hour sin')
        """
        return tuple(f"{self.name} {part}" for part in self.parts) if self.kind == "time" else (self.name,)

    def as_plain(self) -> dict[str, Any]:
        """Strings, lists, booleans and None only, for a checkpoint."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Schema:
    """What a trained model knows of its table.

    Attributes:
        columns: the columns that it takes, in order.
        target: name of the target column, "" if the target has no name.
        classes: the names of class 0 and class 1.
        missing: further words that stand for a missing value.
        exact: whether the numbers need float64.
    """

    columns: tuple[Column, ...]
    target: str = ""
    classes: tuple[str, str] = ("0", "1")
    missing: tuple[str, ...] = ()
    exact: bool = False

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of all columns of the matrix that a table becomes."""
        return tuple(slot for column in self.columns for slot in column.slots)

    @property
    def slot_columns(self) -> tuple[Column, ...]:
        """The column that each of `slots` belongs to."""
        return tuple(column for column in self.columns for _ in column.slots)

    def as_plain(self) -> dict[str, Any]:
        """Strings, lists, booleans and None only, for a checkpoint; `from_plain` reads it.

        >>> schema = Schema((Column("age", "number"), Column("job", "category", ("cook", "smith"))), "late")
        >>> Schema.from_plain(schema.as_plain()) == schema
        True
        """
        return {
            "columns": [column.as_plain() for column in self.columns],
            "target": self.target,
            "classes": list(self.classes),
            "missing": list(self.missing),
            "exact": self.exact,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Schema":
        """A schema from a checkpoint, proven to be one.

        Raises:
            TableError: anything else than `as_plain` writes.
        """
        try:
            columns = tuple(_column(entry) for entry in plain["columns"])
            first, second = map(str, plain["classes"])
            names = [column.name for column in columns]
            if len(set(names)) < len(names):
                raise ValueError("a name occurs twice")
            missing = tuple(map(str, plain["missing"]))
            return cls(columns, str(plain["target"]), (first, second), missing, bool(plain["exact"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TableError(f"the description of the columns is broken ({error}): use another checkpoint.") from error


def _column(plain: Mapping[str, Any]) -> Column:
    kind, parts, values = plain["kind"], tuple(plain["parts"]), tuple(plain["values"])
    zoned = None if plain.get("zoned") is None else bool(plain["zoned"])
    if kind not in KINDS or not set(parts) <= set(TIME_PARTS) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"column {plain['name']!r}")
    return Column(str(plain["name"]), kind, values, bool(plain["missing"]), parts, zoned)


def of_numbers(names: Sequence[str], target: str, classes: tuple[str, str]) -> Schema:
    """The schema of a table that holds numbers only.

    >>> of_numbers(["x"], "y", ("no", "yes")).columns
    (Column(name='x', kind='number', values=(), missing=False, parts=(), zoned=None),)
    """
    return Schema(tuple(Column(name, "number") for name in names), target, classes)
