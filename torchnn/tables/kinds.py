"""The kinds of columns: found from their types or words, and the values of a column read as its kind."""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchnn.tables.errors import TableError, category_flag, first_line, list_flag, quote, suggest_column
from torchnn.tables.raw import RawTable
from torchnn.tables.schema import COLUMN_KINDS
from torchnn.tables.text import MISSING

PLAIN_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
WHOLE_NUMBER = r"^([+-]?\d+)\.0$"
# Numbers as only people read them: with a comma, gaps between thousands, another minus, a currency or a percent sign.
GAP = r"[ .,'’_\x{00A0}\x{2009}\x{202F}]"
HUMAN_NUMBER = rf"^[+−-]?[$€£¥]? ?(\d{{1,3}}({GAP}\d{{3}})+|\d+)([.,]\d+)? ?[%€]?$"
ISO_TIME = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}(:\d{2}(:\d{2}([.]\d{1,9})?)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$"
SLASHED_DATE = r"^(\d{1,2}[/.]\d{1,2}[/.](\d{4}|\d{2})|\d{4}[/.]\d{1,2}[/.]\d{1,2})([ T].*)?$"
ENDS_WITH_ZONE = r"[T ].*(Z|[+-]\d{2}(:?\d{2})?)$"
ZONE_PHRASE = {True: "with a zone", False: "without a zone"}
MOST_SHARE = 0.9  # of the distinct values: if more have the form of a number or a time, the others are mistakes
FEWEST_DISTINCT = 10  # distinct values; if there are fewer, one that differs in form may well be a category
LARGEST_NUMBER = 1e100  # the square of a larger number overflows float64
MICROSECONDS_PER_SECOND = 1e6  # durations become seconds
TRUE_WORDS, FALSE_WORDS = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


def kind_of_type(kind: pa.DataType) -> str:
    """The kind of values of an Arrow type, "" for types that a network cannot use.

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


def kinds_of(raw: RawTable, names: list[str], given: Mapping[str, str], missing: tuple[str, ...]) -> dict[str, str]:
    """The kind of each column, "" for a type that a network cannot use.

    Args:
        raw: the table.
        names: the columns.
        given: the kinds of --data.types, by column.
        missing: additional words that stand for a missing value.

    Raises:
        TableError: `given` has an unknown column or kind, or most values of a text column are numbers or times.
    """
    for name, kind in given.items():
        if name not in raw.data.column_names:
            raise TableError(
                f"--data.types has a column {quote(name)}, which {raw.name} does not have: "
                f"{suggest_column(name, raw.data.column_names)}"
            )
        if kind not in COLUMN_KINDS:
            raise TableError(f"--data.types.{name} is {kind!r}: use one of {', '.join(COLUMN_KINDS)}.")
    return {name: given.get(name) or _kind_of_column(raw, name, missing) for name in names}


def _kind_of_column(raw: RawTable, name: str, missing: tuple[str, ...]) -> str:
    by_type = kind_of_type(raw.data.schema.field(name).type)
    if by_type == "category" and raw.from_text:
        return _kind_of_words(raw, name, missing)
    return by_type


def _kind_of_words(raw: RawTable, name: str, missing: tuple[str, ...]) -> str:
    """Category, unless the words are numbers, times or booleans; refused if most of them are numbers or times."""
    words = as_text(raw.data[name], missing)
    distinct = pc.drop_null(pc.unique(words))
    if len(distinct) == 0:
        return "number"
    if pc.all(pc.is_in(pc.utf8_lower(distinct), pa.array(["true", "false"]))).as_py():
        return "boolean"
    plain = pc.match_substring_regex(distinct, PLAIN_NUMBER)
    if pc.all(plain).as_py():
        return "number"
    if _are_mostly(pc.or_(plain, pc.match_substring_regex(distinct, HUMAN_NUMBER))):
        raise _not_a_plain_number(raw, name, words, distinct.filter(pc.invert(plain))[0].as_py())
    dated = pc.match_substring_regex(distinct, ISO_TIME)
    if _are_mostly(dated):
        others = distinct.filter(pc.invert(dated))
        wrong = others[0].as_py() if len(others) else times_of_words(distinct)[1]
        if wrong is None:
            return "time"
        raise TableError(
            f"{raw.where(row_of(words, wrong))}, column {quote(name)}: {quote(wrong)} is not a time in the format of "
            f"the other values: fix it, {_other_meanings(name, wrong)}."
        )
    return "category"


def _are_mostly(fitting: pa.Array) -> bool:
    """Whether all distinct values have a form, or so many of them do that the others must be mistakes."""
    share = pc.mean(pc.cast(fitting, pa.float64())).as_py()
    return bool(share == 1 or (share >= MOST_SHARE and len(fitting) > FEWEST_DISTINCT))


def _not_a_plain_number(raw: RawTable, name: str, words: pa.ChunkedArray, value: str) -> TableError:
    fix = "fix it"
    if pc.match_substring_regex(pa.scalar(value), HUMAN_NUMBER).as_py():
        fix = "write numbers as 1234.5"
        if value.count(",") == 1:
            fix += ", or set --data.decimal , if the comma is the decimal mark"
    return TableError(
        f"{raw.where(row_of(words, value))}, column {quote(name)}: {quote(value)} is not a number: {fix}, "
        f"{_other_meanings(name, value)}."
    )


def _other_meanings(name: str, value: str) -> str:
    """The flags for a value that is right as it is."""
    return (
        f"or set {list_flag('missing', value)} if it stands for a missing value, or set {category_flag(name)} to use "
        "the column as words"
    )


def looks_like_dates(values: pa.Array) -> bool:
    """Whether all words are dates in a form that leaves the order of day and month open.

    >>> looks_like_dates(pa.array(["31/12/2013", None])), looks_like_dates(pa.array(["a"]))
    (True, False)
    """
    values = pc.drop_null(values)
    return len(values) > 0 and pc.all(pc.match_substring_regex(values, SLASHED_DATE)).as_py()


def as_text(column: Any, missing: tuple[str, ...], absent: tuple[str, ...] = MISSING) -> pa.ChunkedArray:
    """A column as words without outer blanks, null where a word of `absent` or `missing` stands for a missing value.

    A whole number is the same word whether or not its type, or the program that wrote it, gives it a fraction: 1.0
    becomes 1.
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
            words = pc.replace_substring_regex(words, WHOLE_NUMBER, r"\1")
    return pc.if_else(pc.is_in(words, pa.array([*absent, *missing], pa.string())), pa.scalar(None, pa.string()), words)


def row_of(column: Any, value: Any) -> int:
    """The first row that holds a value."""
    return int(pc.index(column, pa.scalar(value, column.type)).as_py())


def values_of(raw: RawTable, name: str, kind: str, missing: tuple[str, ...]) -> Any:
    """The values of a column as its kind: Arrow strings for a category, else float64 with NaN for missing.

    A time becomes microseconds since 1970 (in UTC if it has a zone), a time of day microseconds since midnight, and a
    duration seconds.

    Raises:
        TableError: a value is not of this kind, or is not finite; the message names its row.
    """
    column = raw.data[name]
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    found = kind_of_type(column.type)
    # Arrow would convert these into each other silently.
    unrelated = found == "" or {kind, found} == {"number", "time"} or {kind, found} == {"boolean", "time"}
    if unrelated and not pa.types.is_null(column.type):
        raise TableError(
            f"{raw.name}, column {quote(name)} holds {column.type}, which cannot be read as a {kind}: convert the "
            f"column to a {kind}."
        )
    read = {"time": _times, "boolean": _booleans, "number": _numbers}
    try:
        return as_text(column, missing) if kind == "category" else read[kind](raw, name, column, missing)
    except pa.ArrowException as error:
        raise TableError(
            f"{raw.name}, column {quote(name)} cannot be read as a {kind} ({first_line(error)}): fix its values."
        ) from error


def _numbers(raw: RawTable, name: str, column: Any, missing: tuple[str, ...]) -> np.ndarray:
    if kind_of_type(column.type) == "category":
        words = as_text(column, missing)
        bad = pc.invert(pc.match_substring_regex(words, PLAIN_NUMBER))
        if pc.any(bad).as_py():
            value = words.filter(bad)[0].as_py()
            where = raw.where(row_of(words, value))
            raise TableError(f"{where}, column {quote(name)}: {quote(value)} is not a number: fix it.")
        numbers = _floats(words)
    elif pa.types.is_duration(column.type):
        micros = _floats(pc.cast(_in_micros(column, pa.duration("us")), pa.int64()))
        numbers = micros / MICROSECONDS_PER_SECOND
    else:
        numbers = _mask(_floats(column), _numbers_among(missing, column.type))
    # The extremes without NaN answer the question without an array of booleans.
    if max(np.fmax.reduce(numbers, initial=-np.inf), -np.fmin.reduce(numbers, initial=np.inf)) > LARGEST_NUMBER:
        row = int(np.argmax(np.abs(numbers) > LARGEST_NUMBER))
        value = column[row].as_py()
        shown = f"{value} (or a number beyond 1.8e308)" if raw.from_text and np.isinf(numbers[row]) else value
        raise TableError(
            f"{raw.where(row)}, column {quote(name)}: {shown} is not a finite number below {LARGEST_NUMBER:g}: fix "
            f"it or leave it empty, or train without the column: {list_flag('exclude', name)}."
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


def _mask(values: np.ndarray, absent: list[float]) -> np.ndarray:
    """Values with NaN in place of those that stand for a missing value."""
    return np.where(np.isin(values, absent), np.nan, values) if absent else values


def _booleans(raw: RawTable, name: str, column: Any, missing: tuple[str, ...]) -> np.ndarray:
    if kind_of_type(column.type) == "number":
        numbers = _numbers(raw, name, column, missing)
        bad_rows = np.flatnonzero((numbers != 0) & (numbers != 1) & ~np.isnan(numbers))
        if len(bad_rows):
            raise _not_a_boolean(raw, name, int(bad_rows[0]), column[int(bad_rows[0])].as_py())
        return numbers
    if kind_of_type(column.type) == "category":
        words = pc.utf8_lower(as_text(column, missing))
        truth = pc.is_in(words, pa.array(TRUE_WORDS))
        bad = pc.and_(pc.invert(pc.or_(truth, pc.is_in(words, pa.array(FALSE_WORDS)))), pc.is_valid(words))
        if pc.any(bad).as_py():
            row = row_of(bad, True)
            raise _not_a_boolean(raw, name, row, column[row].as_py())
        column = pc.if_else(pc.is_valid(words), truth, pa.scalar(None, pa.bool_()))
    return _floats(pc.cast(column, pa.int8()))


def _not_a_boolean(raw: RawTable, name: str, row: int, value: object) -> TableError:
    return TableError(
        f"{raw.where(row)}, column {quote(name)}: {quote(value)} is neither true nor false: fix it, or train with "
        f"{category_flag(name)} to use the column as words."
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
                f"{raw.where(row_of(words, wrong))}, column {quote(name)}: {quote(wrong)} is not a time in the "
                "format of the other values: write all times as 2020-01-31 12:00:00, or set --data.time_format to "
                "their format, such as %d/%m/%Y."
            )
        return micros
    zone = kind.tz if pa.types.is_timestamp(kind) else None
    micros = _floats(pc.cast(_in_micros(column, pa.timestamp("us", zone)), pa.int64()))
    return _mask(micros, _times_among(missing))


def has_zone(column: Any, missing: tuple[str, ...]) -> bool | None:
    """Whether the times of a column have a zone; None if the column holds no times.

    >>> has_zone(pa.array(["2020-01-31T12:00Z", None]), ()), has_zone(pa.array([None], pa.timestamp("us")), ())
    (True, False)
    """
    if pa.types.is_timestamp(column.type):
        return column.type.tz is not None
    if (kind := kind_of_type(column.type)) != "category":
        return False if kind == "time" else None
    words = as_text(column, missing)
    return pc.any(pc.match_substring_regex(words, ENDS_WITH_ZONE)).as_py()  # type: ignore[no-any-return]


def _in_micros(column: Any, kind: pa.DataType) -> Any:
    """Times in microseconds; finer times are truncated, and an overflow is an error."""
    return pc.cast(column, options=pc.CastOptions(kind, allow_time_truncate=True))


def times_of_words(words: Any) -> tuple[np.ndarray, str | None]:
    """Parse ISO 8601 times, all with a zone or all without one.

    Returns:
        Microseconds since 1970, NaN for null; and the first word that is not such a time, or None.

    >>> times_of_words(pa.array(["1970-01-02", None])), times_of_words(pa.array(["1970-01-02", "soon"]))[1]
    ((array([8.64e+10,      nan]), None), 'soon')
    """
    zoned = pc.any(pc.match_substring_regex(words, ENDS_WITH_ZONE)).as_py()
    kind = pa.timestamp("us", "UTC" if zoned else None)
    start, count = 0, len(words)
    try:
        return _floats(pc.cast(pc.cast(words, kind), pa.int64())), None
    except pa.ArrowException:
        while count > 1:  # bisect: keep the first half if it fails, else the second
            half = count // 2
            try:
                pc.cast(words.slice(start, half), kind)
                start, count = start + half, count - half
            except pa.ArrowException:
                count = half
        return np.empty(0), words[start].as_py()
