"""The target column: two classes, or a probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchnn.tables.faults import TableError, close_to, quoted, short
from torchnn.tables.files import RawTable
from torchnn.tables.kinds import as_text, kind_of_type, row_of
from torchnn.tables.text import MISSING_CLASS

# Pairs of words of which everybody knows the positive one, in lower case.
POSITIVE = ("1", "1.0", "true", "t", "yes", "y", "positive", "pos", "+")
NEGATIVE = ("0", "0.0", "false", "f", "no", "n", "negative", "neg", "-", "−")


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
    """Refuse a target that is no column.

    Raises:
        TableError: it is not there, with the nearest name that is.
    """
    if name not in raw.data.column_names:
        if not name:
            raise TableError(
                f"which column of {raw.name} is the target? Give --data.target, one of its columns: "
                f"{quoted(raw.data.column_names, 12)}."
            )
        several = "; if that is several, give --data.delimiter" if raw.from_text and raw.data.num_columns == 1 else ""
        near = close_to(name, raw.data.column_names)
        raise TableError(
            f"{raw.name} has no column {short(name)} for --data.target: {near.removesuffix('.') if several else near}"
            + (f"{several}." if several else "")
        )


def read_target(
    raw: RawTable, name: str, positive: str | None, missing: tuple[str, ...], classes: tuple[str, str] | None = None
) -> Target:
    """The target of a table.

    Args:
        raw: the table.
        name: the target column.
        positive: the value that is class 1; None for the one that everybody would choose, or the last in order.
        missing: words that stand for a missing value.
        classes: those of a trained model; None to find out.

    Raises:
        TableError: no such column; a missing value; one class, or more than two.
    """
    check_target(raw, name)
    column = raw.data[name]
    if kind_of_type(column.type) in ("time", "") or pa.types.is_duration(column.type):
        raise TableError(f"{raw.name}, target {short(name)} holds {column.type}: give a column with two classes.")
    words = label_words(column, missing)
    if words.null_count:
        row = int(pc.index(pc.is_null(words), True).as_py())
        raise TableError(
            f"{raw.where(row)}, target {short(name)} is missing, as in {words.null_count:,} of {len(words):,} rows: "
            "remove these rows, or fill them in."
        )
    distinct = [value.as_py() for value in pc.unique(words)]
    soft = _soft(raw, name, column, words, distinct) if positive is None else None
    if soft is not None and classes in (None, ("0", "1")):
        return soft
    classes = classes or classes_of(raw, name, distinct, positive)
    unknown = [value for value in distinct if value not in classes]
    if unknown:
        where = raw.where(row_of(words, unknown[0]))
        raise TableError(
            f"{where}, target {short(name)} is {short(unknown[0])}: correct it, the classes of the model are "
            f"{quoted(classes)}."
        )
    values = pc.equal(words, classes[1]).to_numpy(zero_copy_only=False).astype(np.float32)
    return Target(values, classes)


def check_both_classes(source: str, counts: Sequence[int], classes: Sequence[str]) -> None:
    """Refuse rows of one class as a test: there is no AUROC of them, which torchmetrics gives as 0.

    Args:
        source: what to call the rows.
        counts: rows of class 0 and of class 1.
        classes: their names.
    """
    for label, other in ((0, 1), (1, 0)):
        if not counts[other]:
            raise TableError(
                f"{source}: all {counts[label]:,} rows are of class {short(classes[label])}, so that there is nothing "
                "to tell apart: give rows of both classes."
            )


def label_words(column: Any, missing: tuple[str, ...]) -> Any:
    """Labels as words: 1 for 1.0 too, so that the type of a file does not change a class."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_floating(column.type):
        column = pc.cast(column, pa.float64())
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        whole = pc.equal(pc.floor(column), column)
        if pc.all(whole).as_py() and pc.all(pc.less(pc.abs(column), 2**53)).as_py():
            column = pc.cast(column, pa.int64())
    return as_text(column, missing, MISSING_CLASS)


def _soft(raw: RawTable, name: str, column: Any, words: Any, distinct: list[str]) -> Target | None:
    """A target of probabilities: numbers with a fraction, or 0.0 and 1.0."""
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
        raise TableError(
            f"{raw.where(row)}, target {short(name)} is {values[row]:g}: give two classes, "
            "or probabilities from 0 to 1."
        )
    if len(distinct) == 1:
        return None
    return Target(values.astype(np.float32), ("0", "1"), soft=True)


def classes_of(raw: RawTable, name: str, distinct: list[str], positive: str | None) -> tuple[str, str]:
    """Which of the distinct values of a target is class 0, and which class 1."""
    if positive is not None and positive not in distinct:
        same = [value for value in distinct if _same(value, positive)]
        if len(same) == 1:
            return classes_of(raw, name, distinct, same[0])
        raise TableError(
            f"--data.positive {positive} does not occur in target {short(name)} of {raw.name}: choose one of "
            f"{quoted(sorted(distinct))}."
        )
    if len(distinct) == 1:
        raise TableError(
            f"{raw.name}, target {short(name)} is {short(distinct[0])} in all {raw.data.num_rows:,} rows: "
            "give a table with rows of both classes."
        )
    if len(distinct) > 2:
        alike = len({value.casefold() for value in distinct}) == 2
        mend = "write each in one way" if alike else "give a column with two, or numbers from 0 to 1"
        raise TableError(
            f"{raw.name}, target {short(name)} has {len(distinct):,} classes ({quoted(sorted(distinct))}): {mend}."
        )
    if positive is None and len({value.casefold() for value in distinct}) == 1:
        raise TableError(
            f"{raw.name}, target {short(name)} has the classes {quoted(sorted(distinct))}, which differ in case only: "
            "write them in one way, or give --data.positive if they are two."
        )
    if positive is None:
        known = [value for value in distinct if value.lower() in POSITIVE]
        other = [value for value in distinct if value.lower() in NEGATIVE]
        positive = known[0] if len(known) == 1 and len(other) == 1 else max(distinct, key=_order)
    return next(value for value in distinct if value != positive), positive


def _same(value: str, wanted: str) -> bool:
    """Whether two words are the same number, or differ in case or outer blanks only."""
    try:
        return float(value) == float(wanted)
    except ValueError:
        return value.casefold() == wanted.strip().casefold()


def _order(value: str) -> tuple[float, str]:
    """Numbers by size, words by alphabet."""
    try:
        return float(value), value
    except ValueError:
        return float("-inf"), value
