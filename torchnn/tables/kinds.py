"""What kind of values a column holds, and its values as that kind."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchnn.tables.columns import KINDS
from torchnn.tables.faults import TableError, close_to
from torchnn.tables.files import RawTable
from torchnn.tables.text import MISSING

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
WRITTEN_NUMBER = r"^[+-]?\d{1,3}([  .,'’_]?\d{3})*([.,]\d+)?$"  # with a comma, or gaps between thousands
SLASHED_DATE = r"^\d{1,4}[/.]\d{1,2}[/.]\d{1,4}([ T].*)?$"
MOSTLY = 0.9  # of the values that differ: above this, the other ones are mistakes and not categories
LARGEST = 1e100  # beyond it a square is no float64 any more


def kinds_of(raw: RawTable, names: list[str], given: Mapping[str, str], missing: tuple[str, ...]) -> dict[str, str]:
    """The kind of each column, "" for one of a type that no network takes.

    Args:
        raw: the table.
        names: its columns to look at.
        given: kinds that are prescribed, by column.
        missing: words that stand for a missing value.

    Raises:
        TableError: an unknown column or kind in `given`; numbers that are not written as numbers.
    """
    for name, kind in given.items():
        if name not in raw.data.column_names:
            raise TableError(
                f"--data.types names {name!r}, which {raw.name} has not: {close_to(name, raw.data.column_names)}"
            )
        if kind not in KINDS:
            raise TableError(f"--data.types.{name} is {kind!r}: choose one of {', '.join(KINDS)}.")
    return {name: given.get(name) or _kind(raw, name, missing) for name in names}


def _kind(raw: RawTable, name: str, missing: tuple[str, ...]) -> str:
    by_type = kind_of_type(raw.data.schema.field(name).type)
    if by_type == "category" and raw.from_text:
        return _kind_of_text(raw, name, missing)
    return by_type


def kind_of_type(kind: pa.DataType) -> str:
    """The kind of values of an Arrow type, "" for types that no network takes.

    >>> kind_of_type(pa.int8()), kind_of_type(pa.date32()), kind_of_type(pa.list_(pa.int8()))
    ('number', 'time', '')
    """
    types = pa.types
    if types.is_dictionary(kind):
        return kind_of_type(kind.value_type)
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_duration(kind):
        return "number"
    if types.is_null(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "category"
    return "time" if types.is_temporal(kind) else ""


def _kind_of_text(raw: RawTable, name: str, missing: tuple[str, ...]) -> str:
    """Category, unless the words are numbers; refused if they nearly are."""
    words = as_text(raw.data[name], missing)
    distinct = pc.drop_null(pc.unique(words))
    if len(distinct) == 0:
        return "number"
    plain = pc.match_substring_regex(distinct, NUMBER)
    if pc.all(plain).as_py():
        return "number"
    written = pc.match_substring_regex(distinct, WRITTEN_NUMBER)
    numeric = pc.or_(plain, written)
    share = pc.mean(pc.cast(numeric, pa.float64())).as_py()
    wrong = distinct.filter(pc.invert(plain))
    if share == 1 or (share >= MOSTLY and len(distinct) > 10):
        value = wrong[0].as_py()
        mend = "correct it"
        if pc.match_substring_regex(wrong[0], WRITTEN_NUMBER).as_py():
            mend = "write 1234.5"
            if "," in value and value.count(",") == 1:
                mend += ", or give --data.decimal ,"
        raise TableError(
            f"{raw.where(row_of(words, value))}, column {name!r}: {value!r} is no number: {mend}, or give "
            f"--data.missing \"['{value}']\" if it stands for a missing value, or --data.types.{name} category."
        )
    return "category"


def looks_like_dates(values: pa.Array) -> bool:
    """Whether words are dates in a form that names no order of day and month.

    >>> looks_like_dates(pa.array(["31/12/2013", None])), looks_like_dates(pa.array(["a"]))
    (True, False)
    """
    values = pc.drop_null(values)
    return len(values) > 0 and pc.all(pc.match_substring_regex(values, SLASHED_DATE)).as_py()


def as_text(column: Any, missing: tuple[str, ...]) -> pa.ChunkedArray:
    """A column as words without outer blanks, null where a word stands for a missing value."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_boolean(column.type):
        words = pc.if_else(column, "true", "false")
    else:
        words = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
    absent = pc.is_in(words, pa.array([*MISSING, *missing], pa.string()))
    return pc.if_else(absent, pa.scalar(None, pa.string()), words)


def row_of(column: Any, value: Any) -> int:
    """The first row that holds a value."""
    return int(pc.index(column, pa.scalar(value, column.type)).as_py())


def values_of(raw: RawTable, name: str, kind: str, missing: tuple[str, ...]) -> Any:
    """A column as its kind: words (Arrow strings) of a category, else float64 with NaN for missing.

    A time becomes microseconds since 1970 (UTC where it has a zone), a time of day those since midnight.

    Raises:
        TableError: a value that is not of this kind, or not finite; with its row.
    """
    column = raw.data[name]
    if kind == "category":
        return as_text(column, missing)
    if kind == "time":
        return _times(raw, name, column)
    if kind == "boolean":
        return _booleans(raw, name, column, missing)
    return _numbers(raw, name, column, missing)


def _numbers(raw: RawTable, name: str, column: Any, missing: tuple[str, ...]) -> np.ndarray:
    if kind_of_type(column.type) == "category":
        words = as_text(column, missing)
        bad = pc.invert(pc.match_substring_regex(words, NUMBER))
        if pc.any(bad).as_py():
            value = words.filter(bad)[0].as_py()
            raise TableError(f"{raw.where(row_of(words, value))}, column {name!r}: {value!r} is no number: correct it.")
        column = words
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_temporal(column.type):
        column = pc.cast(column, pa.int64(), safe=False)
    numbers = _floats(column)
    # The extremes, NaN left out, tell without an array of booleans for each question.
    if max(np.fmax.reduce(numbers, initial=-np.inf), -np.fmin.reduce(numbers, initial=np.inf)) > LARGEST:
        row = int(np.argmax(np.abs(numbers) > LARGEST))
        raise TableError(
            f"{raw.where(row)}, column {name!r}: {column[row].as_py()} is no finite number below {LARGEST:g}: "
            f"correct it, leave it empty, or give --data.exclude \"['{name}']\"."
        )
    return numbers


def _floats(column: Any) -> np.ndarray:
    """Float64 with NaN for null."""
    floats: np.ndarray = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return floats


def _booleans(raw: RawTable, name: str, column: Any, missing: tuple[str, ...]) -> np.ndarray:
    if kind_of_type(column.type) == "category":
        words = pc.utf8_lower(as_text(column, missing))
        truth = pc.is_in(words, pa.array(["true", "t", "yes", "y", "1"]))
        known = pc.or_(truth, pc.is_in(words, pa.array(["false", "f", "no", "n", "0"])))
        bad = pc.and_(pc.invert(known), pc.is_valid(words))
        if pc.any(bad).as_py():
            value = words.filter(bad)[0].as_py()
            where = raw.where(row_of(words, value))
            raise TableError(f"{where}, column {name!r}: {value!r} is neither true nor false: correct it.")
        column = pc.if_else(pc.is_valid(words), truth, pa.scalar(None, pa.bool_()))
    return _floats(pc.cast(pc.cast(column, pa.bool_()), pa.int8()))


def _times(raw: RawTable, name: str, column: Any) -> np.ndarray:
    kind = column.type
    try:
        if pa.types.is_time(kind):
            micros = pc.cast(pc.cast(column, pa.time64("us")), pa.int64())
        else:
            if kind_of_type(kind) == "category":
                column = pc.utf8_trim_whitespace(column)
            zoned = pa.types.is_timestamp(kind) and kind.tz is not None
            micros = pc.cast(pc.cast(column, pa.timestamp("us", "UTC" if zoned else None), safe=False), pa.int64())
    except pa.ArrowException as error:
        raise TableError(
            f"{raw.name}, column {name!r} holds no times ({str(error).splitlines()[0]}): give --data.time_format, "
            "such as %d/%m/%Y."
        ) from error
    return _floats(micros)
