"""The kinds of values that Arrow's types hold, and the values of a column as a kind."""

import contextlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchnn.tables.faults import TableError, first_line, listed, short, typed
from torchnn.tables.files import RawTable
from torchnn.tables.text import MISSING

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
WHOLE = r"^([+-]?\d+)\.0$"
SLASHED_DATE = r"^(\d{1,2}[/.]\d{1,2}[/.](\d{4}|\d{2})|\d{4}[/.]\d{1,2}[/.]\d{1,2})([ T].*)?$"
ZONED = r"[T ].*(Z|[+-]\d{2}(:?\d{2})?)$"
ZONE = {True: "with a zone", False: "without a zone"}
LARGEST = 1e100  # beyond it a square is no float64 any more
SECONDS = 1e6  # microseconds in a second, the unit of a duration
TRUE, FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


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
    return "time" if types.is_temporal(kind) and not types.is_interval(kind) else ""


def looks_like_dates(values: pa.Array) -> bool:
    """Whether words are dates in a form that leaves the order of day and month open.

    >>> looks_like_dates(pa.array(["31/12/2013", None])), looks_like_dates(pa.array(["a"]))
    (True, False)
    """
    values = pc.drop_null(values)
    return len(values) > 0 and pc.all(pc.match_substring_regex(values, SLASHED_DATE)).as_py()


def as_text(column: Any, missing: tuple[str, ...], absent: tuple[str, ...] = MISSING) -> pa.ChunkedArray:
    """A column as words without outer blanks, null where one of `absent` or `missing` stands for a missing value.

    A whole number is the same word whether its type, or who wrote it, has given it a fraction: 1 for 1.0.
    """
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_boolean(column.type):
        words = pc.if_else(column, "true", "false")
    else:
        if pa.types.is_floating(column.type):
            column = pc.cast(column, pa.float64())
        words = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
        if pc.any(pc.ends_with(words, ".0")).as_py():
            words = pc.replace_substring_regex(words, WHOLE, r"\1")
    return pc.if_else(pc.is_in(words, pa.array([*absent, *missing], pa.string())), pa.scalar(None, pa.string()), words)


def row_of(column: Any, value: Any) -> int:
    """The first row that holds a value."""
    return int(pc.index(column, pa.scalar(value, column.type)).as_py())


def values_of(raw: RawTable, name: str, kind: str, missing: tuple[str, ...]) -> Any:
    """A column as its kind: words (Arrow strings) of a category, else float64 with NaN for missing.

    A time becomes microseconds since 1970 (UTC where it has a zone), a time of day those since midnight; a duration
    becomes seconds.

    Raises:
        TableError: a value that is not of this kind, or not finite; with its row.
    """
    column = raw.data[name]
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    found = kind_of_type(column.type)
    # What Arrow would turn into the other without a word.
    unrelated = found == "" or {kind, found} == {"number", "time"} or {kind, found} == {"boolean", "time"}
    if unrelated and not pa.types.is_null(column.type):
        raise TableError(
            f"{raw.name}, column {short(name)} holds {column.type} where a {kind} belongs: give a column that does, "
            f"or {listed('exclude', name)}."
        )
    read = {"time": _times, "boolean": _booleans, "number": _numbers}
    try:
        return as_text(column, missing) if kind == "category" else read[kind](raw, name, column, missing)
    except pa.ArrowException as error:
        raise TableError(
            f"{raw.name}, column {short(name)} cannot be read as {kind} ({first_line(error)}): correct it."
        ) from error


def _numbers(raw: RawTable, name: str, column: Any, missing: tuple[str, ...]) -> np.ndarray:
    if kind_of_type(column.type) == "category":
        words = as_text(column, missing)
        bad = pc.invert(pc.match_substring_regex(words, NUMBER))
        if pc.any(bad).as_py():
            value = words.filter(bad)[0].as_py()
            where = raw.where(row_of(words, value))
            raise TableError(f"{where}, column {short(name)}: {short(value)} is no number: correct it.")
        numbers = _floats(words)
    elif pa.types.is_duration(column.type):
        numbers = _floats(pc.cast(_in_micros(column, pa.duration("us")), pa.int64())) / SECONDS
    else:
        numbers = _without(_floats(column), _numbers_among(missing, column.type))
    # The extremes, NaN left out, tell without an array of booleans for each question.
    if max(np.fmax.reduce(numbers, initial=-np.inf), -np.fmin.reduce(numbers, initial=np.inf)) > LARGEST:
        row = int(np.argmax(np.abs(numbers) > LARGEST))
        value = column[row].as_py()
        shown = f"{value} (or a number beyond 1.8e308)" if raw.from_text and np.isinf(numbers[row]) else value
        raise TableError(
            f"{raw.where(row)}, column {short(name)}: {shown} is not a finite number below {LARGEST:g}: "
            f"correct it, leave it empty, or give {listed('exclude', name)}."
        )
    return numbers


def _floats(column: Any) -> np.ndarray:
    """Float64 with NaN for null."""
    floats: np.ndarray = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return floats


def _numbers_among(words: tuple[str, ...], kind: pa.DataType) -> list[float]:
    """The numbers among words, as a column of this type holds them."""
    numbers = []
    for word in words:
        with contextlib.suppress(ValueError):
            numbers.append(float(word))
    return [float(np.float32(number)) for number in numbers] if kind == pa.float32() else numbers


def _times_among(words: tuple[str, ...]) -> list[float]:
    """The times among words, in microseconds since 1970."""
    return [micros for word in words for micros in times_of_words(pa.array([word]))[0]]


def _without(values: np.ndarray, absent: list[float]) -> np.ndarray:
    """Values with NaN for those that stand for a missing one."""
    return np.where(np.isin(values, absent), np.nan, values) if absent else values


def _booleans(raw: RawTable, name: str, column: Any, missing: tuple[str, ...]) -> np.ndarray:
    if kind_of_type(column.type) == "number":
        numbers = _numbers(raw, name, column, missing)
        bad_rows = np.flatnonzero((numbers != 0) & (numbers != 1) & ~np.isnan(numbers))
        if len(bad_rows):
            raise _no_boolean(raw, name, int(bad_rows[0]), column[int(bad_rows[0])].as_py())
        return numbers
    if kind_of_type(column.type) == "category":
        words = pc.utf8_lower(as_text(column, missing))
        truth = pc.is_in(words, pa.array(TRUE))
        bad = pc.and_(pc.invert(pc.or_(truth, pc.is_in(words, pa.array(FALSE)))), pc.is_valid(words))
        if pc.any(bad).as_py():
            row = row_of(bad, True)
            raise _no_boolean(raw, name, row, column[row].as_py())
        column = pc.if_else(pc.is_valid(words), truth, pa.scalar(None, pa.bool_()))
    return _floats(pc.cast(column, pa.int8()))


def _no_boolean(raw: RawTable, name: str, row: int, value: object) -> TableError:
    return TableError(
        f"{raw.where(row)}, column {short(name)}: {short(value)} is neither true nor false: correct it, or give "
        f"{typed(name)}."
    )


def _times(raw: RawTable, name: str, column: Any, missing: tuple[str, ...]) -> np.ndarray:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_time(kind):
        return _floats(pc.cast(_in_micros(column, pa.time64("us")), pa.int64()))
    if kind_of_type(kind) == "category":
        words = as_text(column, missing)
        micros, wrong = times_of_words(words)
        if wrong is not None:
            raise TableError(
                f"{raw.where(row_of(words, wrong))}, column {short(name)}: {short(wrong)} is no time like the others: "
                "write all as 2020-01-31 12:00:00, or give the --data.time_format of all, such as %d/%m/%Y."
            )
        return micros
    zone = kind.tz if pa.types.is_timestamp(kind) else None
    micros = _floats(pc.cast(_in_micros(column, pa.timestamp("us", zone)), pa.int64()))
    return _without(micros, _times_among(missing))


def has_zone(column: Any, missing: tuple[str, ...]) -> bool | None:
    """Whether the times of a column have a zone; None if it holds none.

    >>> has_zone(pa.array(["2020-01-31T12:00Z", None]), ()), has_zone(pa.array([None], pa.timestamp("us")), ())
    (True, False)
    """
    if pa.types.is_timestamp(column.type):
        return column.type.tz is not None
    if (kind := kind_of_type(column.type)) != "category":
        return False if kind == "time" else None
    words = as_text(column, missing)
    return pc.any(pc.match_substring_regex(words, ZONED)).as_py()  # type: ignore[no-any-return]


def _in_micros(column: Any, kind: pa.DataType) -> Any:
    """A time in microseconds; finer ones are cut off, and what overflows is an error."""
    return pc.cast(column, options=pc.CastOptions(kind, allow_time_truncate=True))


def times_of_words(words: Any) -> tuple[np.ndarray, str | None]:
    """Microseconds since 1970 of times in ISO 8601, NaN for null; and the first word that is none, if there is one.

    Either all or none of them have a zone.

    >>> times_of_words(pa.array(["1970-01-02", None])), times_of_words(pa.array(["1970-01-02", "soon"]))[1]
    ((array([8.64e+10,      nan]), None), 'soon')
    """
    zoned = pc.any(pc.match_substring_regex(words, ZONED)).as_py()
    kind = pa.timestamp("us", "UTC" if zoned else None)
    start, count = 0, len(words)
    try:
        return _floats(pc.cast(pc.cast(words, kind), pa.int64())), None
    except pa.ArrowException:
        while count > 1:  # the first of a half that fails, until one word is left
            half = count // 2
            try:
                pc.cast(words.slice(start, half), kind)
                start, count = start + half, count - half
            except pa.ArrowException:
                count = half
        return np.empty(0), words[start].as_py()
