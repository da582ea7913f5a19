"""Learn the columns of a table from its training rows: collect statistics, drop useless columns, make the schema."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from torchnn.tables.encode import time_parts
from torchnn.tables.errors import TableError, list_flag, quote
from torchnn.tables.kinds import ZONE_PHRASE, has_zone, kinds_of, looks_like_dates, values_of
from torchnn.tables.raw import RawTable
from torchnn.tables.roles import Roles
from torchnn.tables.schema import TIME_PARTS, Column, Schema

ID_ROWS = 20  # with fewer rows, it says nothing that all values differ
ID_GAPS = 4  # whole numbers that never repeat are ids if their range is at most this many times their number
ID_ROWS_WITH_GAPS = 50  # this many random numbers from such a range are all different only once in 500 times
EXACT_BELOW = 2.0**53  # float64 holds every whole number below
SAFE_SHARE = 0.9  # of the expected number of different values, so that chance does not matter
ID_NAME = re.compile(r"(^|[_\W])(id|ID|Id)$|[a-z]I[dD]$")
ID_SHARE = 0.9  # if more than this share of a category's rows are distinct values, nothing can be learned from them
FEWEST_OCCURRENCES = 2  # of a category's value in the training rows; rarer values train the slot for unknown values
FLOAT32_ENOUGH = 1e-3  # rounding error of float32 that a column may suffer, in standard deviations


@dataclass
class Profile:
    """Statistics of the training rows of one column, updated batch by batch."""

    name: str
    kind: str
    rows: int = 0
    missing: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    low: Any = None  # of the numbers, or of each part of a time
    high: Any = None
    mean: float = 0.0
    squares: float = 0.0  # sum of squared deviations from the mean
    whole: bool = True
    repeats: bool = False
    dated: bool = True
    zoned: bool | None = None  # for times

    def update(self, values: Any) -> None:
        """Add some rows: words of a category, else float64 with NaN for missing."""
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
        """Combine the mean and the squared deviations with those of more values (Chan, Golub and LeVeque 1979)."""
        before, added = self.rows - self.missing - len(known), len(known)
        mean = float(known.mean())
        shift = mean - self.mean
        self.squares += float(((known - mean) ** 2).sum()) + shift**2 * before * added / (before + added)
        self.mean += shift * added / (before + added)
        self.whole = self.whole and bool((known == np.floor(known)).all())
        self.repeats = self.repeats or not self.whole or len(np.unique(known)) < fewest_distinct(known)

    @property
    def known(self) -> int:
        """Number of rows with a value."""
        return self.rows - self.missing

    @property
    def drop_reason(self) -> str:
        """Why nothing can be learned from this column, "" if something can."""
        if self.known == 0:
            return "has no value in any row"
        if self.kind == "category":
            return self._drop_reason_of_category()
        if self.missing == 0 and bool((self.low == self.high).all()):
            return "has the same value in all rows"
        if self.kind == "number" and self._looks_like_id():
            return "holds whole numbers that never repeat and looks like an id"
        return ""

    def _drop_reason_of_category(self) -> str:
        if len(self.counts) == 1 and self.missing == 0:
            return "has the same value in all rows"
        if self.known >= ID_ROWS and len(self.counts) > ID_SHARE * self.known:
            if self.dated:
                return "looks like dates that differ in nearly all rows (set --data.time_format to read them)"
            return "has a different value in nearly all rows and looks like an id or free text"
        if self.counts.most_common(1)[0][1] < FEWEST_OCCURRENCES and self.missing == 0:
            return "has no value that occurs twice"
        return ""

    def _looks_like_id(self) -> bool:
        """Whether these are whole numbers that never repeat and have few gaps, or the name of an id."""
        if not self.whole or self.repeats or self.known < ID_ROWS:
            return False
        width = self.high[0] - self.low[0] + 1
        dense = width <= ID_GAPS * self.known and self.known >= ID_ROWS_WITH_GAPS
        return bool(width == self.known or dense or ID_NAME.search(self.name))

    def column(self) -> Column:
        """The column that a model learns from."""
        missing = self.missing > 0
        if self.kind == "category":
            often = sorted(value for value, count in self.counts.items() if count >= FEWEST_OCCURRENCES)
            return Column(name=self.name, kind="category", values=tuple(often), missing=missing)
        if self.kind == "time":
            varies = [self.low is None or low != high for low, high in zip(self.low, self.high, strict=True)]
            parts = tuple(part for part, used in zip(TIME_PARTS, varies, strict=True) if used)
            return Column(name=self.name, kind="time", missing=missing, parts=parts, zoned=self.zoned)
        return Column(name=self.name, kind="boolean" if self.kind == "boolean" else "number", missing=missing)

    @property
    def needs_float64(self) -> bool:
        """Whether float32 would round away the differences between the values."""
        if self.kind != "number" or self.known == 0 or self.squares == 0:
            return False
        largest = max(abs(self.low[0]), abs(self.high[0]))
        deviation = (self.squares / self.known) ** 0.5
        return bool(largest * 2.0**-24 > FLOAT32_ENOUGH * deviation or largest > 1e37)


def fewest_distinct(numbers: np.ndarray) -> float:
    """The number of distinct values to expect at least after whole numbers that all differ were rounded to float64.

    Beyond 2^53, float64 rounds neighbours to the same value: of n random numbers in a range with s float64 values,
    about s (1 − exp(−n/s)) remain distinct.

    >>> fewest_distinct(np.arange(5.0)), round(fewest_distinct(2.0**60 + np.arange(1000.0)), 1)
    (5, 4.5)
    """
    count, largest = len(numbers), float(np.abs(numbers).max())
    if largest < EXACT_BELOW:
        return count
    places = float(np.ptp(numbers)) / float(np.spacing(largest)) + 1
    return float(SAFE_SHARE * places * -np.expm1(-count / places))


def learn_columns(
    raw: RawTable,
    names: list[str],
    rows: Tensor,
    roles: Roles,
    classes: tuple[str, str],
    note: Callable[[str], None],
) -> tuple[Schema, dict[str, Any]]:
    """Learn the schema from some rows, and read the values of all rows.

    Args:
        raw: the table.
        names: the columns to learn from.
        rows: positions of the training rows.
        roles: given kinds, columns to keep, limits.
        classes: names of class 0 and class 1.
        note: called with a sentence for each column that is dropped.

    Returns:
        The schema, and the values of its columns as `encode` takes them.

    Raises:
        TableError: values do not fit their column, or no column is left.
    """
    profiles = new_profiles(raw, names, roles, note)
    values = {name: values_of(raw, name, profile.kind, roles.missing) for name, profile in profiles.items()}
    for name, profile in profiles.items():
        profile.update(select_rows(values[name], rows))
        record_zone(raw, profile, roles.missing)
    return schema_of(profiles, roles, classes, raw.name, note), values


def new_profiles(raw: RawTable, names: list[str], roles: Roles, note: Callable[[str], None]) -> dict[str, Profile]:
    """An empty profile of each column that a network can use; arguments and errors are those of `learn_columns`."""
    of_others = set(raw.data.column_names) - set(names)  # --data.types may also say how to read the target or the ids
    given = {name: kind for name, kind in roles.types.items() if name not in of_others}
    kinds = kinds_of(raw, names, given, roles.missing)
    for name in names:
        if not kinds[name]:
            kind = raw.data.schema.field(name).type
            note(
                f"column {quote(name)} is dropped because a network cannot use {kind} values; to use it, convert it "
                "to numbers or words."
            )
    return {name: Profile(name=name, kind=kinds[name]) for name in names if kinds[name]}


def record_zone(raw: RawTable, profile: Profile, missing: tuple[str, ...]) -> None:
    """Record in the profile of a time whether it has a zone.

    Raises:
        TableError: some of its rows have a zone, others do not.
    """
    if profile.kind != "time":
        return
    zoned = has_zone(raw.data[profile.name], missing)
    if zoned is None:
        return
    if profile.zoned is not None and profile.zoned != zoned:
        raise TableError(
            f"{raw.name}, column {quote(profile.name)} holds times {ZONE_PHRASE[zoned]}, but other rows of the table "
            f"have times {ZONE_PHRASE[not zoned]}: write all of them in the same way."
        )
    profile.zoned = zoned


def select_rows(values: Any, rows: Tensor) -> Any:
    """Some rows of a column, by their positions."""
    return values[rows.numpy()] if isinstance(values, np.ndarray) else values.take(pa.array(rows.numpy()))


def schema_of(
    profiles: Mapping[str, Profile],
    roles: Roles,
    classes: tuple[str, str],
    source: str,
    note: Callable[[str], None],
) -> Schema:
    """The schema of the columns that a model learns from.

    Args:
        profiles: statistics of the training rows of each column.
        roles: the target, columns to keep, limits.
        classes: names of the classes.
        source: name of the table in a message.
        note: called with a sentence for each column that is dropped.

    Raises:
        TableError: a category has too many values, or no column is left.
    """
    check_categories(profiles, roles, source)
    kept = []
    for profile in profiles.values():
        name = quote(profile.name)
        if profile.drop_reason and profile.name not in roles.keep:
            keep = list_flag("keep", profile.name)
            note(f"column {name} is dropped because it {profile.drop_reason}; to keep it, set {keep}.")
            continue
        if profile.kind == "category" and profile.dated and profile.counts:
            note(
                f"column {name} looks like dates, but is used as a category: to read the dates, set "
                "--data.time_format, such as %d/%m/%Y."
            )
        kept.append(profile)
    if not kept:
        raise TableError(f"{source} has no column left to learn from: use a table with columns that vary.")
    return Schema(
        columns=tuple(profile.column() for profile in kept),
        target=roles.target,
        classes=classes,
        missing=roles.missing,
        exact=any(profile.needs_float64 for profile in kept),
    )


def check_categories(profiles: Mapping[str, Profile], roles: Roles, source: str) -> None:
    """Refuse a category with too many values, unless it is dropped.

    Raises:
        TableError: names the column.
    """
    for profile in profiles.values():
        kept = profile.name in roles.keep or not profile.drop_reason
        if kept and len(profile.counts) > roles.max_categories:
            raise TableError(
                f"{source}, column {quote(profile.name)} has {len(profile.counts):,} categories, more than "
                f"--data.max_categories {roles.max_categories:,}: raise this limit, or leave the column out with "
                f"{list_flag('exclude', profile.name)}."
            )
