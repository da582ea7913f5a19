"""What a trained model knows about its table: the columns, their kinds and their values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from torchnn.tables.errors import TableError

Kind = Literal["number", "boolean", "category", "time"]
COLUMN_KINDS: tuple[str, ...] = get_args(Kind)
# The features of a point in time: how long ago it is, and the cycles of its clock and calendar.
TIME_PARTS = ("days", "hour sin", "hour cos", "weekday sin", "weekday cos", "season sin", "season cos")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table, as a trained model knows it.

    Attributes:
        name: name in the header.
        kind: number, boolean, category or time.
        values: for a category, the values that occur more than once in training, in the order of the codes 1, 2, …;
            code 0 stands for any other value.
        missing: whether the training rows have missing values, so that the model can learn from them.
        parts: for a time, the `TIME_PARTS` that differ between rows.
        zoned: for a time, whether it has a zone; None if unknown, as in a checkpoint without this entry, whose model
            accepts both.
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    missing: bool = False
    parts: tuple[str, ...] = ()
    zoned: bool | None = field(default=None, compare=False)

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the numbers that encode a value of this column.

        >>> Column(name="due", kind="time", parts=("days", "hour sin")).slots
        ('due days', 'due hour sin')
        """
        return tuple(f"{self.name} {part}" for part in self.parts) if self.kind == "time" else (self.name,)

    def as_plain(self) -> dict[str, Any]:
        """The column as strings, lists, booleans and None, for a checkpoint."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What a trained model knows about its table.

    Attributes:
        columns: the input columns, in order.
        target: name of the target column, "" if the target has no name.
        classes: the names of class 0 and class 1.
        missing: additional words that stand for a missing value.
        exact: whether the numbers need float64.
    """

    columns: tuple[Column, ...]
    target: str = ""
    classes: tuple[str, str] = ("0", "1")
    missing: tuple[str, ...] = ()
    exact: bool = False

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of all columns of the encoded matrix."""
        return tuple(slot for column in self.columns for slot in column.slots)

    @property
    def slot_columns(self) -> tuple[Column, ...]:
        """The column that each of `slots` belongs to."""
        return tuple(column for column in self.columns for _ in column.slots)

    def as_plain(self) -> dict[str, Any]:
        """The schema as strings, lists, booleans and None, for a checkpoint; `from_plain` reads it.

        >>> age, job = Column(name="age", kind="number"), Column(name="job", kind="category", values=("cook", "smith"))
        >>> schema = Schema(columns=(age, job), target="late")
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
        """Read and validate a schema from a checkpoint.

        Raises:
            TableError: `plain` is not what `as_plain` writes.
        """
        try:
            columns = tuple(_column_from_plain(entry) for entry in plain["columns"])
            first, second = map(str, plain["classes"])
            names = [column.name for column in columns]
            if len(set(names)) < len(names):
                raise ValueError("a name occurs twice")
            return cls(
                columns=columns,
                target=str(plain["target"]),
                classes=(first, second),
                missing=tuple(map(str, plain["missing"])),
                exact=bool(plain["exact"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TableError(
                f"the checkpoint has a damaged description of the columns ({error}): use another checkpoint."
            ) from error


def _column_from_plain(plain: Mapping[str, Any]) -> Column:
    kind, parts, values = plain["kind"], tuple(plain["parts"]), tuple(plain["values"])
    zoned = None if plain.get("zoned") is None else bool(plain["zoned"])
    if (
        kind not in COLUMN_KINDS
        or not set(parts) <= set(TIME_PARTS)
        or not all(isinstance(value, str) for value in values)
    ):
        raise ValueError(f"column {plain['name']!r}")
    return Column(
        name=str(plain["name"]), kind=kind, values=values, missing=bool(plain["missing"]), parts=parts, zoned=zoned
    )


def schema_of_numbers(names: Sequence[str], target: str, classes: tuple[str, str]) -> Schema:
    """The schema of a table that holds numbers only.

    >>> schema_of_numbers(["x"], "y", ("no", "yes")).columns
    (Column(name='x', kind='number', values=(), missing=False, parts=(), zoned=None),)
    """
    columns = tuple(Column(name=name, kind="number") for name in names)
    return Schema(columns=columns, target=target, classes=classes)
