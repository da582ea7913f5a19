"""What training rows show of each column, batch by batch, and the schema that follows; what is of no use is dropped."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from torchnn.tables.columns import TIME_PARTS, Column, Schema
from torchnn.tables.encode import time_parts
from torchnn.tables.faults import TableError, listed, short
from torchnn.tables.kinds import looks_like_dates

ID_ROWS = 20  # in fewer rows, values that all differ say nothing
ID_GAPS = 4  # whole numbers that never repeat are ids if they fill a range no wider than so many times their number
ID_ROWS_WITH_GAPS = 50  # random numbers from such a range do not repeat once in 500 times
EXACT = 2.0**53  # whole numbers below are float64's
SURELY = 0.9  # of the numbers that are expected to differ
ID_NAME = re.compile(r"(^|[_\W])(id|ID|Id)$|[a-z]I[dD]$")
ID_SHARE = 0.9  # of a category's rows: with more distinct values than these, no value can be learnt from
OFTEN = 2  # rows that a category has to occur in; the rest train the unknown slot
FLOAT32_ENOUGH = 1e-3  # of a standard deviation: the rounding error of float32 that a column may suffer


@dataclass
class Profile:
    """What the training rows of one column have shown so far."""

    name: str
    kind: str
    rows: int = 0
    missing: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    low: Any = None  # of numbers, or of each part of a time
    high: Any = None
    mean: float = 0.0
    squares: float = 0.0  # sum of squared deviations from the mean
    whole: bool = True
    repeats: bool = False
    dated: bool = True
    zoned: bool | None = None  # of times

    def update(self, values: Any) -> None:
        """Look at some rows: words of a category, else float64 with NaN for missing."""
        self.rows += len(values)
        if self.kind == "category":
            self.missing += values.null_count
            for count in pc.value_counts(pc.drop_null(values)):
                self.counts[count["values"].as_py()] += count["counts"].as_py()
            self.dated = self.dated and looks_like_dates(pc.unique(values))
            return
        known = values[~np.isnan(values)]
        self.missing += len(values) - len(known)
        if len(known) == 0:
            return
        parts = time_parts(known) if self.kind == "time" else known[:, None]
        low, high = parts.min(axis=0), parts.max(axis=0)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        if self.kind == "number":
            self._add_moments(known)

    def _add_moments(self, known: np.ndarray) -> None:
        """Chan, Golub and LeVeque 1979: mean and squared deviations of two parts together."""
        before, added = self.rows - self.missing - len(known), len(known)
        mean = float(known.mean())
        shift = mean - self.mean
        self.squares += float(((known - mean) ** 2).sum()) + shift**2 * before * added / (before + added)
        self.mean += shift * added / (before + added)
        self.whole = self.whole and bool((known == np.floor(known)).all())
        self.repeats = self.repeats or not self.whole or len(np.unique(known)) < fewest_that_differ(known)

    @property
    def known(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing

    @property
    def useless(self) -> str:
        """Why nothing can be learnt from this column, "" if something can."""
        if self.known == 0:
            return "has no value in any row"
        if self.kind == "category":
            return self._useless_category()
        if self.missing == 0 and bool((self.low == self.high).all()):
            return "is the same in all rows"
        if self.kind == "number" and self._numbers_rows():
            return "is a whole number that never repeats, so looks like an id"
        return ""

    def _useless_category(self) -> str:
        if len(self.counts) == 1 and self.missing == 0:
            return "is the same in all rows"
        if self.known >= ID_ROWS and len(self.counts) > ID_SHARE * self.known:
            if self.dated:
                return "looks like dates (--data.time_format reads them), different in nearly all rows"
            return "is different in nearly all rows, so looks like an id or free text"
        if self.counts.most_common(1)[0][1] < OFTEN and self.missing == 0:
            return "has no value that occurs twice"
        return ""

    def _numbers_rows(self) -> bool:
        """Whether these are whole numbers that never repeat and have few gaps, or the name of an id."""
        if not self.whole or self.repeats or self.known < ID_ROWS:
            return False
        width = self.high[0] - self.low[0] + 1
        dense = width <= ID_GAPS * self.known and self.known >= ID_ROWS_WITH_GAPS
        return bool(width == self.known or dense or ID_NAME.search(self.name))

    def column(self) -> Column:
        """The column that a model takes."""
        missing = self.missing > 0
        if self.kind == "category":
            often = sorted(value for value, count in self.counts.items() if count >= OFTEN)
            return Column(self.name, "category", tuple(often), missing)
        if self.kind == "time":
            varies = [self.low is None or low != high for low, high in zip(self.low, self.high, strict=True)]
            return Column(
                self.name,
                "time",
                (),
                missing,
                tuple(p for p, v in zip(TIME_PARTS, varies, strict=True) if v),
                self.zoned,
            )
        return Column(self.name, "boolean" if self.kind == "boolean" else "number", (), missing)

    @property
    def needs_float64(self) -> bool:
        """Whether float32 would round away what distinguishes the values."""
        if self.kind != "number" or self.known == 0 or self.squares == 0:
            return False
        largest = max(abs(self.low[0]), abs(self.high[0]))
        deviation = (self.squares / self.known) ** 0.5
        return bool(largest * 2.0**-24 > FLOAT32_ENOUGH * deviation or largest > 1e37)


def fewest_that_differ(numbers: np.ndarray) -> float:
    """How many different float64 numbers there are at least if no two of the whole numbers behind them were equal.

    Beyond 2^53 float64 makes neighbours equal: of n numbers that fall at random on s that it has, about
    s (1 − exp(−n/s)) differ.

    >>> fewest_that_differ(np.arange(5.0)), round(fewest_that_differ(2.0**60 + np.arange(1000.0)), 1)
    (5, 4.5)
    """
    count, largest = len(numbers), float(np.abs(numbers).max())
    if largest < EXACT:
        return count
    places = float(np.ptp(numbers)) / float(np.spacing(largest)) + 1
    return float(SURELY * places * -np.expm1(-count / places))


def schema_of(
    profiles: Mapping[str, Profile],
    keep: tuple[str, ...],
    max_categories: int,
    target: str,
    classes: tuple[str, str],
    missing: tuple[str, ...],
    source: str,
    remark: Callable[[str], None],
) -> Schema:
    """The columns that a model takes.

    Args:
        profiles: what training rows have shown of each column.
        keep: columns that are kept even if they look useless.
        max_categories: the most values of a category.
        target: name of the target column.
        classes: names of the classes.
        missing: further words that stand for a missing value.
        source: what to call the table.
        remark: is told, in one sentence each, which columns are dropped.

    Raises:
        TableError: a category with too many values, or no column left.
    """
    check_categories(profiles, keep, max_categories, source)
    taken = []
    for profile in profiles.values():
        name = short(profile.name)
        if profile.useless and profile.name not in keep:
            remark(f"column {name} {profile.useless}: dropped; {listed('keep', profile.name)} keeps it.")
            continue
        if profile.kind == "category" and profile.dated and profile.counts:
            remark(
                f"column {name} looks like dates, but is a category: --data.time_format, such as %d/%m/%Y, reads it."
            )
        taken.append(profile)
    if not taken:
        raise TableError(f"{source} has no column left to learn from: give a table with columns that vary.")
    columns = tuple(profile.column() for profile in taken)
    return Schema(columns, target, classes, missing, exact=any(profile.needs_float64 for profile in taken))


def check_categories(profiles: Mapping[str, Profile], keep: tuple[str, ...], max_categories: int, source: str) -> None:
    """Refuse a category with too many values, unless it is dropped.

    Raises:
        TableError: naming the column.
    """
    for profile in profiles.values():
        if len(profile.counts) > max_categories and (profile.name in keep or not profile.useless):
            raise TableError(
                f"{source}, column {short(profile.name)} has {len(profile.counts):,} categories, more than "
                f"--data.max_categories {max_categories:,}: raise it, or give {listed('exclude', profile.name)}."
            )
