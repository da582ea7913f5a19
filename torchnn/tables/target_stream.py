"""The target column, piece by piece: its classes from one look at all of it, then the numbers of each piece."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchnn.tables.faults import TableError, quoted, short
from torchnn.tables.files import RawTable
from torchnn.tables.kinds import kind_of_type
from torchnn.tables.target import check_target, classes_of, label_words

MOST_KEPT = 1000  # distinct values: more are no classes, and only the range of numbers has to be known


@dataclass(frozen=True)
class TargetReader:
    """How the target becomes numbers.

    Attributes:
        name: of the column.
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
            TableError: a missing value, or one that is neither class.
        """
        column = raw.data[self.name]
        values = _numbers(column) if self.soft else self._by_word(raw, column)
        wrong = ~((values >= 0) & (values <= 1))
        if wrong.any():
            row = int(np.argmax(wrong))
            if np.isnan(values[row]):
                raise TableError(
                    f"{raw.where(row)}, target {self.name!r} is missing: remove such rows, or fill them in."
                )
            raise _no_probability(raw, self.name, row, values[row])
        return values.astype(np.float32)

    def _by_word(self, raw: RawTable, column: Any) -> np.ndarray:
        encoded = column.combine_chunks().dictionary_encode()  # a word is looked at once, not in every row
        words = label_words(encoded.dictionary, self.missing)
        numbers = np.array(
            [float("nan") if word is None else float(word == self.classes[1]) for word in words.to_pylist()]
        )
        other = [i for i, word in enumerate(words.to_pylist()) if word is not None and word not in self.classes]
        if other:
            row = int(pc.index(encoded.indices, pa.scalar(other[0], encoded.indices.type)).as_py())
            raise TableError(
                f"{raw.where(row)}, target {short(self.name)} is {short(words[other[0]])}: correct it, the classes of "
                f"the model are {quoted(self.classes)}."
            )
        indices = pc.fill_null(encoded.indices, len(numbers)).to_numpy(zero_copy_only=False)
        values: np.ndarray = np.append(numbers, np.nan)[indices]
        return values


def target_reader(
    whole: RawTable, pieces: Iterable[RawTable], name: str, positive: str | None, missing: tuple[str, ...]
) -> TargetReader:
    """Look at the whole target column, and find its classes as `read_target` finds those of a table in memory.

    Args:
        whole: the columns of the table; its rows are not looked at.
        pieces: all rows of the target.
        name: of the column.
        positive: the value that is class 1; None for the one that everybody would choose.
        missing: words that stand for a missing value.

    Raises:
        TableError: no such column, a missing value, one class, or more than two.
    """
    check_target(whole, name)
    kind = whole.data.schema.field(name).type
    if kind_of_type(kind) in ("time", ""):
        raise TableError(f"{whole.name}, target {name!r} holds {kind}: give a column with two classes.")
    look = _Look()
    for piece in pieces:
        look.at(piece, name, missing)
    if look.missing:
        raise TableError(
            f"{look.first_missing}, target {name!r} is missing, as in {look.missing:,} of {look.rows:,} rows: "
            "remove these rows, or fill them in."
        )
    distinct = list(look.words)
    numeric = pa.types.is_floating(kind) and positive is None and not set(distinct) <= {"0", "1"}
    two_numbers = len(distinct) == 2 and not (look.low >= 0 and look.high <= 1)
    if numeric and not two_numbers and len(distinct) > 1:
        if look.outside is not None:
            raise look.outside
        return TargetReader(name, ("0", "1"), soft=True, missing=missing)
    counted = RawTable(pa.table({name: pa.nulls(look.rows)}), whole.sources)
    return TargetReader(name, classes_of(counted, name, distinct, positive), soft=False, missing=missing)


class _Look:
    """What a pass over the target has shown so far."""

    def __init__(self) -> None:
        self.words: dict[str, None] = {}  # in the order of their first row
        self.rows = self.missing = 0
        self.first_missing = ""
        self.low, self.high = np.inf, -np.inf
        self.outside: TableError | None = None

    def at(self, raw: RawTable, name: str, missing: tuple[str, ...]) -> None:
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
        if len(self.words) <= MOST_KEPT:
            self.words |= dict.fromkeys(pc.drop_null(words).to_pylist())
        if pa.types.is_floating(column.type):
            values = _numbers(column)
            known = values[~np.isnan(values)]
            if len(known):
                self.low, self.high = min(self.low, known.min()), max(self.high, known.max())
            wrong = (values < 0) | (values > 1)
            if self.outside is None and wrong.any():
                row = int(np.argmax(wrong))
                self.outside = _no_probability(raw, name, row, values[row])


def _numbers(column: Any) -> np.ndarray:
    numbers: np.ndarray = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    return numbers


def _no_probability(raw: RawTable, name: str, row: int, value: float) -> TableError:
    return TableError(
        f"{raw.where(row)}, target {name!r} is {value:g}: give two classes, or probabilities from 0 to 1."
    )
