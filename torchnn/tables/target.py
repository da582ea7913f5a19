"""Read the target column as two classes or as probabilities, from a table in memory or piece by piece."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchnn.tables.errors import TableError, no_such_column, quote, quote_all
from torchnn.tables.kinds import as_text, kind_of_type, row_of
from torchnn.tables.raw import RawTable
from torchnn.tables.text import MISSING_IN_TARGET

# Words, in lower case, that are class 1 and class 0 by convention.
POSITIVE = ("1", "1.0", "true", "t", "yes", "y", "positive", "pos", "+")
NEGATIVE = ("0", "0.0", "false", "f", "no", "n", "negative", "neg", "-", "−")
MOST_CLASSES_KEPT = 1000  # distinct values of a stream; if there are more, only the range of the numbers matters


@dataclass(frozen=True)
class Target:
    """The target of each row.

    Attributes:
        values: float32 in [0, 1], 1 for the positive class, shape (rows,).
        classes: the names of class 0 and class 1.
        soft: whether there are values between 0 and 1.
    """

    values: np.ndarray
    classes: tuple[str, str]
    soft: bool = False


def check_target(raw: RawTable, name: str) -> None:
    """Refuse a target that is not a column of the table.

    Raises:
        TableError: there is no such column; the message suggests the most similar name.
    """
    if not name:
        raise TableError(
            f"--data.target is missing: name the column of {raw.name} to predict, one of "
            f"{quote_all(raw.data.column_names, 12)}."
        )
    if name not in raw.data.column_names:
        error = no_such_column(raw.name, name, "target", raw.data.column_names)
        if raw.from_text and raw.data.num_columns == 1:
            sentence = str(error).removesuffix(".")
            raise TableError(f"{sentence}; if this is several columns, set --data.delimiter.")
        raise error


def read_target(
    raw: RawTable, name: str, positive: str | None, missing: tuple[str, ...], classes: tuple[str, str] | None = None
) -> Target:
    """The target of a table in memory.

    Args:
        raw: the table.
        name: the target column.
        positive: the value that is class 1; None to choose by convention, or the last value in order.
        missing: words that stand for a missing value.
        classes: the classes of a trained model; None to find them.

    Raises:
        TableError: there is no such column, a value is missing, or there are not exactly two classes.
    """
    check_target(raw, name)
    column = raw.data[name]
    if kind_of_type(column.type) in ("time", "") or pa.types.is_duration(column.type):
        raise _not_a_target_type(raw, name, column.type)
    words = label_words(column, missing)
    if words.null_count:
        row = int(pc.index(pc.is_null(words), True).as_py())
        raise _missing_target(raw.where(row), name, words.null_count, len(words))
    distinct = [value.as_py() for value in pc.unique(words)]
    soft = _probabilities(raw, name, column, words, distinct) if positive is None else None
    if soft is not None and classes in (None, ("0", "1")):
        return soft
    classes = classes or classes_of(raw, name, distinct, positive)
    unknown = [value for value in distinct if value not in classes]
    if unknown:
        raise _unknown_class(raw.where(row_of(words, unknown[0])), name, unknown[0], classes)
    values = pc.equal(words, classes[1]).to_numpy(zero_copy_only=False).astype(np.float32)
    return Target(values, classes)


def _not_a_target_type(raw: RawTable, name: str, kind: pa.DataType) -> TableError:
    return TableError(
        f"{raw.name}, target {quote(name)} holds {kind}: use a column with two classes, or with probabilities from "
        "0 to 1."
    )


def _missing_target(where: str, name: str, num_missing: int, num_rows: int) -> TableError:
    return TableError(
        f"{where}, target {quote(name)} is missing ({num_missing:,} of {num_rows:,} rows have no target): remove "
        "these rows, or fill them in."
    )


def _unknown_class(where: str, name: str, value: Any, classes: Sequence[str]) -> TableError:
    return TableError(
        f"{where}, target {quote(name)} is {quote(value)}, but the classes of the model are {quote_all(classes)}: fix "
        "the value, or remove the row."
    )


def _not_a_probability(where: str, name: str, value: float) -> TableError:
    return TableError(
        f"{where}, target {quote(name)} is {value:g}: use a target with two classes, or with probabilities from 0 to 1."
    )


def check_both_classes(source: str, counts: Sequence[int], classes: Sequence[str]) -> None:
    """Refuse to evaluate rows of one class: AUROC is undefined for them, although torchmetrics returns 0.

    Args:
        source: name of the rows in a message.
        counts: number of rows of class 0 and of class 1.
        classes: the names of the classes.
    """
    for label, other in ((0, 1), (1, 0)):
        if not counts[other]:
            raise TableError(
                f"{source}: all {counts[label]:,} rows belong to class {quote(classes[label])}, so AUROC is "
                "undefined: use rows of both classes."
            )


def label_words(column: Any, missing: tuple[str, ...]) -> Any:
    """Labels as words: 1.0 becomes 1, so that the type in a file does not change a class."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_floating(column.type):
        column = pc.cast(column, pa.float64())
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        whole = pc.equal(pc.floor(column), column)
        if pc.all(whole).as_py() and pc.all(pc.less(pc.abs(column), 2**53)).as_py():
            column = pc.cast(column, pa.int64())
    return as_text(column, missing, MISSING_IN_TARGET)


def _probabilities(raw: RawTable, name: str, column: Any, words: Any, distinct: list[str]) -> Target | None:
    """A target of probabilities: numbers with a fraction, or 0.0 and 1.0; None if these are classes."""
    if kind_of_type(column.type) != "number" or set(distinct) <= {"0", "1"}:
        return None
    values = pc.cast(words, pa.float64()).to_numpy(zero_copy_only=False)
    if (values == np.floor(values)).all():
        return None
    if len(distinct) == 2 and not (values.min() >= 0 and values.max() <= 1):
        return None
    outside = (values < 0) | (values > 1)
    if outside.any():
        row = int(np.argmax(outside))
        raise _not_a_probability(raw.where(row), name, values[row])
    if len(distinct) == 1:
        return None
    return Target(values.astype(np.float32), ("0", "1"), soft=True)


def classes_of(raw: RawTable, name: str, distinct: list[str], positive: str | None) -> tuple[str, str]:
    """Which of the distinct values of a target is class 0, and which is class 1.

    Raises:
        TableError: there are not exactly two classes, or `positive` is neither of them.
    """
    if positive is not None and positive not in distinct:
        same = [value for value in distinct if _is_same_label(value, positive)]
        if len(same) == 1:
            return classes_of(raw, name, distinct, same[0])
        raise TableError(
            f"--data.positive {positive} does not occur in target {quote(name)} of {raw.name}: use one of "
            f"{quote_all(sorted(distinct))}."
        )
    if len(distinct) == 1:
        raise TableError(
            f"{raw.name}, target {quote(name)} is {quote(distinct[0])} in all {raw.data.num_rows:,} rows: use a table "
            "with rows of both classes."
        )
    if len(distinct) > 2:
        fix = "use a column with two classes, or with numbers from 0 to 1"
        if len({value.casefold() for value in distinct}) == 2:
            fix = "write each class in the same way in all rows"
        raise TableError(
            f"{raw.name}, target {quote(name)} has {len(distinct):,} classes ({quote_all(sorted(distinct))}): {fix}."
        )
    if positive is None and len({value.casefold() for value in distinct}) == 1:
        raise TableError(
            f"{raw.name}, target {quote(name)} has the classes {quote_all(sorted(distinct))}, which differ only in "
            "case: write them in the same way if they mean the same, or set --data.positive if they do not."
        )
    if positive is None:
        known = [value for value in distinct if value.lower() in POSITIVE]
        other = [value for value in distinct if value.lower() in NEGATIVE]
        positive = known[0] if len(known) == 1 and len(other) == 1 else max(distinct, key=_label_order)
    return next(value for value in distinct if value != positive), positive


def _is_same_label(value: str, wanted: str) -> bool:
    """Whether two words are the same number, or differ only in case or outer blanks."""
    try:
        return float(value) == float(wanted)
    except ValueError:
        return value.casefold() == wanted.strip().casefold()


def _label_order(value: str) -> tuple[float, str]:
    """A sort key: numbers by size, after words in alphabetical order."""
    try:
        return float(value), value
    except ValueError:
        return float("-inf"), value


@dataclass(frozen=True, kw_only=True)
class TargetReader:
    """Reads the target of each piece of a stream.

    Attributes:
        name: the target column.
        classes: names of class 0 and class 1.
        soft: whether the target holds probabilities.
        missing: words that stand for a missing value.
    """

    name: str
    classes: tuple[str, str]
    soft: bool
    missing: tuple[str, ...] = ()

    def read(self, raw: RawTable) -> np.ndarray:
        """The target of each row, float32 in [0, 1].

        Raises:
            TableError: a value is missing, or is neither class.
        """
        column = raw.data[self.name]
        values = _as_floats(column) if self.soft else self._class_numbers(raw, column)
        wrong = ~((values >= 0) & (values <= 1))
        if wrong.any():
            row = int(np.argmax(wrong))
            if np.isnan(values[row]):
                raise TableError(
                    f"{raw.where(row)}, target {quote(self.name)} is missing: remove such rows, or fill them in."
                )
            raise _not_a_probability(raw.where(row), self.name, values[row])
        return values.astype(np.float32)

    def _class_numbers(self, raw: RawTable, column: Any) -> np.ndarray:
        encoded = column.combine_chunks().dictionary_encode()  # so that each distinct word is compared only once
        words = label_words(encoded.dictionary, self.missing)
        numbers = np.array(
            [float("nan") if word is None else float(word == self.classes[1]) for word in words.to_pylist()]
        )
        other = [i for i, word in enumerate(words.to_pylist()) if word is not None and word not in self.classes]
        if other:
            row = int(pc.index(encoded.indices, pa.scalar(other[0], encoded.indices.type)).as_py())
            raise _unknown_class(raw.where(row), self.name, words[other[0]], self.classes)
        indices = pc.fill_null(encoded.indices, len(numbers)).to_numpy(zero_copy_only=False)
        values: np.ndarray = np.append(numbers, np.nan)[indices]
        return values


def target_reader(
    whole: RawTable, pieces: Iterable[RawTable], name: str, positive: str | None, missing: tuple[str, ...]
) -> TargetReader:
    """Look through the whole target column, and find the same classes as `read_target` does in memory.

    Args:
        whole: the columns of the table, without rows.
        pieces: all rows of the target.
        name: the target column.
        positive: the value that is class 1; None to choose by convention.
        missing: words that stand for a missing value.

    Raises:
        TableError: there is no such column, a value is missing, or there are not exactly two classes.
    """
    check_target(whole, name)
    kind = whole.data.schema.field(name).type
    if kind_of_type(kind) in ("time", ""):
        raise _not_a_target_type(whole, name, kind)
    summary = _TargetSummary()
    for piece in pieces:
        summary.add(piece, name, missing)
    if summary.missing:
        raise _missing_target(summary.first_missing, name, summary.missing, summary.rows)
    distinct = list(summary.words)
    numeric = pa.types.is_floating(kind) and positive is None and not set(distinct) <= {"0", "1"}
    two_numbers = len(distinct) == 2 and not (summary.low >= 0 and summary.high <= 1)
    if numeric and not two_numbers and len(distinct) > 1:
        if summary.outside is not None:
            raise summary.outside
        return TargetReader(name=name, classes=("0", "1"), soft=True, missing=missing)
    counted = RawTable(data=pa.table({name: pa.nulls(summary.rows)}), sources=whole.sources)
    classes = classes_of(counted, name, distinct, positive)
    return TargetReader(name=name, classes=classes, soft=False, missing=missing)


class _TargetSummary:
    """What the pieces of the target have shown so far."""

    def __init__(self) -> None:
        self.words: dict[str, None] = {}  # in the order of their first rows
        self.rows = self.missing = 0
        self.first_missing = ""
        self.low, self.high = np.inf, -np.inf
        self.outside: TableError | None = None

    def add(self, raw: RawTable, name: str, missing: tuple[str, ...]) -> None:
        column = raw.data[name]
        counts = pc.value_counts(column.combine_chunks())
        words = label_words(counts.field("values"), missing)
        if words.null_count:
            absent = pc.is_null(words)
            self.missing += int(pc.sum(pc.if_else(absent, counts.field("counts"), 0)).as_py())
            if not self.first_missing:
                row = int(pc.index(pc.is_null(label_words(column, missing)), True).as_py())
                self.first_missing = raw.where(row)
        self.rows += len(column)
        if len(self.words) <= MOST_CLASSES_KEPT:
            self.words |= dict.fromkeys(pc.drop_null(words).to_pylist())
        if pa.types.is_floating(column.type):
            values = _as_floats(column)
            known = values[~np.isnan(values)]
            if len(known):
                self.low, self.high = min(self.low, known.min()), max(self.high, known.max())
            wrong = (values < 0) | (values > 1)
            if self.outside is None and wrong.any():
                row = int(np.argmax(wrong))
                self.outside = _not_a_probability(raw.where(row), name, values[row])


def _as_floats(column: Any) -> np.ndarray:
    numbers: np.ndarray = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    return numbers
