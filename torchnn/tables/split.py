"""Split rows into training, validation and test rows: of a table in memory by position, of a stream row by row."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from sklearn.model_selection import (
    GroupShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)
from torch import Tensor

from torchnn.tables.errors import TableError, quote
from torchnn.tables.kinds import as_text, kinds_of, values_of
from torchnn.tables.parquet import Piece
from torchnn.tables.raw import RawTable
from torchnn.tables.roles import Roles

PartRows = dict[str, Tensor]  # the positions of the "train", "val" and "test" rows
SplitRule = Literal["random", "time", "group"]
PARTS = ("train", "val", "test")
TRAIN, VAL, TEST = range(3)
SPLIT_STREAM, ORDER_STREAM, SHUFFLE_STREAM = range(1, 4)  # independent streams of random numbers of one seed
PHILOX_WORDS = 4  # random numbers that Philox makes at a time
DIGIT_BITS = 16  # bits of a number that one pass over the split column finds
SIGN_BIT = np.uint64(1 << 63)


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """How rows are split.

    Attributes:
        by: random with the class proportions, by time, or by group.
        column: the column with the time or the group.
        val_fraction: fraction of the rows for validation.
        test_fraction: fraction of the rows for the test.
        folds: number of folds for cross-validation; 0 for a single split.
        fold: the fold that is the test part, from 0.
        seed: seed of the split.
        file_rows: positions of the rows of "train", "val" and "test" files; empty unless there are such files.
    """

    by: SplitRule = "random"
    column: str = ""
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    folds: int = 0
    fold: int = 0
    seed: int = 0
    file_rows: Mapping[str, Tensor] = field(default_factory=dict)


def split_rows(raw: RawTable, target: Tensor, splitting: Splitting, roles: Roles) -> PartRows:
    """The positions of the rows of each part of a table in memory.

    Args:
        raw: the table.
        target: the target of each row, (rows,).
        splitting: the rule.
        roles: given kinds, and words that stand for a missing value.

    Raises:
        TableError: the split column cannot order rows or has no value in a row, or files have rows of one class only.
        ValueError: a part would have no row of one of the classes.
    """
    if splitting.file_rows:
        return _split_by_file(target, splitting)
    val_fraction, test_fraction, seed = splitting.val_fraction, splitting.test_fraction, splitting.seed
    order, groups = None, None
    if splitting.by == "time":
        kind = kind_of_split_column(raw, splitting.column, roles)
        order = split_times(raw, splitting.column, kind, roles.missing)
    elif splitting.by == "group":
        groups = pc.fill_null(as_text(raw.data[splitting.column], roles.missing), "").to_numpy(zero_copy_only=False)
    if splitting.folds:
        return split_fold(target, groups, splitting.folds, splitting.fold, val_fraction, seed)
    if order is not None:
        return split_by_time(order, target, val_fraction, test_fraction)
    if groups is not None:
        return split_by_group(groups, target, val_fraction, test_fraction, seed)
    return split_by_class(target, val_fraction, test_fraction, seed)


def kind_of_split_column(raw: RawTable, column: str, roles: Roles) -> str:
    """Whether the column that orders the rows holds times or numbers.

    Raises:
        TableError: it holds neither.
    """
    given = {name: kind for name, kind in roles.types.items() if name == column}
    kind = kinds_of(raw, [column], given, roles.missing)[column]
    if kind not in ("time", "number"):
        raise TableError(
            f"{raw.name}, column {quote(column)} cannot order the rows: set --data.split_column to a column of times "
            "or numbers."
        )
    return kind


def split_times(raw: RawTable, column: str, kind: str, missing: tuple[str, ...]) -> np.ndarray:
    """The time of each row, float64.

    Raises:
        TableError: a row has no time.
    """
    order: np.ndarray = values_of(raw, column, kind, missing)
    if np.isnan(order).any():
        row = int(np.argmax(np.isnan(order)))
        raise TableError(
            f"{raw.where(row)}, column {quote(column)} is missing: a split by time needs a time in every row."
        )
    return order


def split_by_class(target: Tensor, val_fraction: float, test_fraction: float, seed: int) -> PartRows:
    """Split randomly, so that each part has the class proportions of `target` (rows,)."""
    rows, labels = np.arange(len(target)), _labels(target)
    share_of_rest = val_fraction / (1 - test_fraction)
    try:
        rest, test = train_test_split(rows, test_size=test_fraction, stratify=labels, random_state=seed)
        train, val = train_test_split(rest, test_size=share_of_rest, stratify=labels[rest], random_state=seed)
    except ValueError as error:
        raise split_too_small(val_fraction, test_fraction, len(rows)) from error
    return _as_part_rows(train, val, test)


def split_by_time(order: np.ndarray, target: Tensor, val_fraction: float, test_fraction: float) -> PartRows:
    """The latest rows are the test part, the rows before them validate, and the earliest train.

    Rows of the same time stay together, so the fractions are met only approximately.

    Args:
        order: the time of each row, any numbers, (rows,).
        target: the target of each row, (rows,).
        val_fraction: fraction of the rows for validation.
        test_fraction: fraction of the rows for the test.

    Raises:
        ValueError: a part would have no row of one of the classes.
    """
    times = np.sort(order)
    first_val, first_test = (times[rank] for rank in _threshold_ranks(len(times), val_fraction, test_fraction))
    train, test = np.flatnonzero(order < first_val), np.flatnonzero(order >= first_test)
    val = np.flatnonzero((order >= first_val) & (order < first_test))
    return _check_classes(train, val, test, target, val_fraction, test_fraction)


def _threshold_ranks(num_rows: int, val_fraction: float, test_fraction: float) -> list[int]:
    """Ranks, among the sorted times, of the first time of the validation part and of the first of the test part."""
    shares_before = 1 - test_fraction - val_fraction, 1 - test_fraction
    return [min(num_rows - 1, round(num_rows * share)) for share in shares_before]


def split_by_group(groups: Any, target: Tensor, val_fraction: float, test_fraction: float, seed: int) -> PartRows:
    """Split groups randomly, so that rows of one group stay together; the fractions are fractions of the groups.

    Raises:
        ValueError: a part would have no row of one of the classes.
    """
    rows = np.arange(len(target))
    try:
        rest, test = next(GroupShuffleSplit(1, test_size=test_fraction, random_state=seed).split(rows, groups=groups))
        share_of_rest = val_fraction / (1 - test_fraction)
        shuffle = GroupShuffleSplit(1, test_size=share_of_rest, random_state=seed)
        train, val = next(shuffle.split(rest, groups=groups[rest]))
    except ValueError as error:
        raise split_too_small(val_fraction, test_fraction, len(rows)) from error
    return _check_classes(rest[train], rest[val], test, target, val_fraction, test_fraction)


def split_fold(target: Tensor, groups: Any, folds: int, fold: int, val_fraction: float, seed: int) -> PartRows:
    """One fold of a cross-validation is the test part; `val_fraction` of the other rows validates.

    Args:
        target: the target of each row, (rows,); every fold gets its class proportions.
        groups: the group of each row, (rows,); rows of one group stay together. None without groups.
        folds: number of folds.
        fold: the fold that is the test part, from 0.
        val_fraction: fraction of the rows outside the test part.
        seed: seed of the shuffle, the same for all folds.

    Raises:
        ValueError: there are fewer rows of a class, or fewer groups, than folds.
    """
    labels = _labels(target)
    if min((labels == 0).sum(), (labels == 1).sum()) < folds:
        raise ValueError(f"folds is {folds}, but one class has fewer rows than that: use fewer folds.")
    if groups is not None and len(np.unique(groups)) < folds:
        raise ValueError(f"folds is {folds}, but there are only {len(np.unique(groups))} groups: use fewer folds.")
    cls = StratifiedKFold if groups is None else StratifiedGroupKFold
    splits = cls(folds, shuffle=True, random_state=seed).split(labels, labels, groups)
    rest, test = list(splits)[fold]
    try:
        if groups is None:
            train, val = train_test_split(rest, test_size=val_fraction, stratify=labels[rest], random_state=seed)
        else:
            shuffle = GroupShuffleSplit(1, test_size=val_fraction, random_state=seed)
            in_train, in_val = next(shuffle.split(rest, groups=groups[rest]))
            train, val = rest[in_train], rest[in_val]
    except ValueError as error:
        raise split_too_small(val_fraction, 1 / folds, len(labels)) from error
    return _check_classes(train, val, test, target, val_fraction, 1 / folds)


def _split_by_file(target: Tensor, splitting: Splitting) -> PartRows:
    """The parts that have files, and the other parts from the rows of the training files."""
    own = splitting.file_rows["train"]
    rows = {name: splitting.file_rows[name] for name in ("val", "test") if name in splitting.file_rows}
    if len(rows) == 2:
        rows = {"train": own, **rows}
    else:
        parts = split_by_class(target[own], splitting.val_fraction, splitting.test_fraction, splitting.seed)
        for name, part in parts.items():
            if name in rows:  # this part has a file of its own, so these rows train
                parts["train"] = torch.cat([parts["train"], part]).sort().values
        rows = {name: rows[name] if name in rows else own[parts[name]] for name in PARTS}
    for name, part in rows.items():
        if len(target[part].round().unique()) < 2:
            raise files_of_one_class(name)
    return rows


def files_of_one_class(part: str) -> TableError:
    """The error for files of a part whose rows all belong to the same class."""
    flag = "path" if part == "train" else f"{part}_path"
    return TableError(f"--data.{flag} has rows of one class only: use files with rows of both classes.")


def _labels(target: Tensor) -> np.ndarray:
    """Classes of hard and soft targets, int64."""
    labels: np.ndarray = (target >= 0.5).long().numpy()
    return labels


def _check_classes(
    train: np.ndarray, val: np.ndarray, test: np.ndarray, target: Tensor, val_fraction: float, test_fraction: float
) -> PartRows:
    labels = _labels(target)
    if any(len(np.unique(labels[part])) < 2 for part in (train, val, test)):
        raise split_too_small(val_fraction, test_fraction, len(target))
    return _as_part_rows(train, val, test)


def split_too_small(val_fraction: float, test_fraction: float, num_rows: int) -> ValueError:
    """The error for a split in which a part lacks a class."""
    return ValueError(
        f"val_fraction {val_fraction} and test_fraction {test_fraction:g} of {num_rows} rows leave a part without "
        "rows of both classes: change the fractions, or use more rows."
    )


def _as_part_rows(train: np.ndarray, val: np.ndarray, test: np.ndarray) -> PartRows:
    return {name: torch.from_numpy(np.sort(part)) for name, part in zip(PARTS, (train, val, test), strict=True)}


def random_stream(seed: int, purpose: int, first: int = 0, second: int = 0, step: int = 0) -> np.random.Generator:
    """A counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Its numbers depend on the arguments only, not on what was drawn before, and can start at any multiple of 4 numbers.

    Args:
        seed: seed of the split or of the order.
        purpose: SPLIT_STREAM, ORDER_STREAM or SHUFFLE_STREAM.
        first: any number that selects a stream.
        second: another one.
        step: multiple of 4 numbers at which to start.
    """
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[step, 0, first, second]))


@dataclass(frozen=True, kw_only=True)
class StreamSplitter:
    """Finds the part of each row of a stream from the row only, so that nothing is stored for each row.

    Attributes:
        splitting: the rule; its `file_rows` are not used.
        part_of_file: VAL or TEST for a file that is such a part, else TRAIN.
        missing: words that stand for a missing value.
        kind: kind of the split column, number or time.
        first_val: the first time that validates.
        first_test: the first time of the test part.
    """

    splitting: Splitting
    part_of_file: tuple[int, ...]
    missing: tuple[str, ...] = ()
    kind: str = "number"
    first_val: float = 0.0
    first_test: float = 0.0

    @property
    def columns(self) -> list[str]:
        """The columns that `parts` needs."""
        return [self.splitting.column] if self.splitting.column else []

    def parts(self, piece: Piece, raw: RawTable) -> np.ndarray:
        """TRAIN, VAL or TEST for each row of a piece, int8."""
        splitting = self.splitting
        if splitting.by == "time":
            order = split_times(raw, splitting.column, self.kind, self.missing)
            return ((order >= self.first_val).astype(np.int8) + (order >= self.first_test)).astype(np.int8)
        if self.part_of_file[piece.file] != TRAIN:
            return np.full(piece.num_rows, self.part_of_file[piece.file], dtype=np.int8)
        if splitting.by == "group":
            uniform = hash_to_unit_interval(as_text(raw.data[splitting.column], self.missing), splitting.seed)
        else:
            step = piece.start // PHILOX_WORDS  # pieces start at multiples of it
            random = random_stream(splitting.seed, SPLIT_STREAM, piece.group, piece.file, step)
            uniform = random.random(piece.num_rows)
        part = self._parts_of(uniform)
        for part_with_files in set(self.part_of_file):
            part[part == part_with_files] = TRAIN
        return part

    def _parts_of(self, uniform: np.ndarray) -> np.ndarray:
        """The part for each number in [0, 1)."""
        splitting = self.splitting
        first = splitting.fold / splitting.folds if splitting.folds else 0.0
        width = 1 / splitting.folds if splitting.folds else splitting.test_fraction
        share = splitting.val_fraction
        if not splitting.folds:
            share /= 1 - splitting.test_fraction
        in_test = (uniform >= first) & (uniform < first + width)
        of_rest = np.where(uniform < first, uniform, uniform - width) / (1 - width)
        return np.where(in_test, TEST, np.where(of_rest < share, VAL, TRAIN)).astype(np.int8)


def hash_to_unit_interval(words: pa.ChunkedArray, seed: int) -> np.ndarray:
    """A pseudo-random number in [0, 1) for each word, which depends on the word and the seed only."""
    encoded = pc.fill_null(words, "").combine_chunks().dictionary_encode()
    key = seed.to_bytes(8, "little")
    digests = [hashlib.blake2b(str(w).encode(), key=key, digest_size=8).digest() for w in encoded.dictionary]
    numbers = np.frombuffer(b"".join(digests), dtype="<u8") >> 11  # the 53 bits of a float64
    uniform: np.ndarray = (numbers * 2.0**-53)[encoded.indices.to_numpy(zero_copy_only=False)]
    return uniform


def count_by_part_and_class(parts: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The number of rows of each part and class, (3, 2)."""
    counts = np.bincount(parts.astype(np.int64) * 2 + (target >= 0.5), minlength=6)
    return counts.reshape(3, 2)


def time_thresholds(
    read: Callable[[], Iterator[np.ndarray]], num_rows: int, val_fraction: float, test_fraction: float
) -> tuple[float, float]:
    """The first times of the validation part and of the test part, the same as in `split_by_time`."""
    first_val, first_test = order_statistics(read, _threshold_ranks(num_rows, val_fraction, test_fraction))
    return first_val, first_test


def order_statistics(read: Callable[[], Iterable[np.ndarray]], ranks: list[int]) -> list[float]:
    """The numbers at some ranks of the sorted numbers, found 16 bits at a time in four passes.

    Args:
        read: gives all numbers (float64, finite) in parts; called once for each pass.
        ranks: positions in the sorted order, from 0.

    >>> order_statistics(lambda: [np.array([3.0, -1.0]), np.array([2.0])], [0, 2])
    [-1.0, 3.0]
    """
    prefixes, left = [0] * len(ranks), list(ranks)
    for shift in range(64 - DIGIT_BITS, -1, -DIGIT_BITS):
        counts = np.zeros((len(ranks), 2**DIGIT_BITS), dtype=np.int64)
        for keys in map(to_sortable, read()):
            digits = ((keys >> np.uint64(shift)) & np.uint64(2**DIGIT_BITS - 1)).astype(np.int64)
            for count, prefix in zip(counts, prefixes, strict=True):
                if shift == 64 - DIGIT_BITS:
                    count += np.bincount(digits, minlength=2**DIGIT_BITS)
                else:
                    fits = keys >> np.uint64(shift + DIGIT_BITS) == np.uint64(prefix)
                    count += np.bincount(digits[fits], minlength=2**DIGIT_BITS)
        for i, count in enumerate(counts):
            upto = count.cumsum()
            digit = int(np.searchsorted(upto, left[i], side="right"))
            left[i] -= int(upto[digit] - count[digit])
            prefixes[i] = (prefixes[i] << DIGIT_BITS) | digit
    return [from_sortable(prefix) for prefix in prefixes]


def to_sortable(numbers: np.ndarray) -> np.ndarray:
    """Integers in the order of float64 numbers: the sign bit is flipped, for negative numbers all bits are."""
    bits = (numbers + 0.0).view(np.uint64)  # −0 becomes 0
    return np.where(bits & SIGN_BIT, ~bits, bits | SIGN_BIT)


def from_sortable(key: int) -> float:
    """The inverse of `to_sortable` for one number."""
    bits = np.uint64(key)
    return float((bits ^ SIGN_BIT if bits & SIGN_BIT else ~bits).view(np.float64))
