"""Which part each row of a streamed table belongs to, found from the row alone: nothing is kept for each row."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchnn.tables.files import RawTable
from torchnn.tables.kinds import as_text
from torchnn.tables.parquet import Piece
from torchnn.tables.splitting import Splitting, times

TRAIN, VAL, TEST = range(3)
PARTS = ("train", "val", "test")
SPLIT, ORDER, SHUFFLE = range(1, 4)  # streams of random numbers of one seed
WORDS_OF_A_STEP = 4  # that Philox makes at a time
BITS = 16  # of a number that a pass over the split column finds


def generator(seed: int, purpose: int, first: int = 0, second: int = 0, step: int = 0) -> np.random.Generator:
    """A counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    What it gives depends on the arguments alone, not on what was drawn before, and begins at any step of 4 numbers.
    """
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[step, 0, first, second]))


@dataclass(frozen=True)
class Splitter:
    """The rule that divides the rows of a stream.

    Attributes:
        how: the rule as it was asked for; `given` is not used.
        files: part of each file, where there are files of their own, else TRAIN.
        missing: words that stand for a missing value.
        kind: of the split column.
        first_val: the time from which rows validate.
        first_test: the time from which rows are held out.
    """

    how: Splitting
    files: tuple[int, ...]
    missing: tuple[str, ...] = ()
    kind: str = "number"
    first_val: float = 0.0
    first_test: float = 0.0

    @property
    def columns(self) -> list[str]:
        """Columns that it has to see."""
        return [self.how.column] if self.how.column else []

    def parts(self, piece: Piece, raw: RawTable) -> np.ndarray:
        """TRAIN, VAL or TEST of each row of a piece, int8."""
        if self.how.by == "time":
            order = times(raw, self.how.column, self.kind, self.missing)
            return ((order >= self.first_val).astype(np.int8) + (order >= self.first_test)).astype(np.int8)
        if self.files[piece.file] != TRAIN:
            return np.full(piece.num_rows, self.files[piece.file], dtype=np.int8)
        if self.how.by == "group":
            chance = chances_of(as_text(raw.data[self.how.column], self.missing), self.how.seed)
        else:
            step = piece.start // WORDS_OF_A_STEP  # pieces begin at multiples of it
            chance = generator(self.how.seed, SPLIT, piece.group, piece.file, step).random(piece.num_rows)
        part = self._by_chance(chance)
        for given in set(self.files):
            part[part == given] = TRAIN  # it has files of its own
        return part

    def _by_chance(self, chance: np.ndarray) -> np.ndarray:
        """The part of each number in [0, 1)."""
        how = self.how
        first = how.fold / how.folds if how.folds else 0.0
        width = 1 / how.folds if how.folds else how.test_fraction
        share = how.val_fraction if how.folds else how.val_fraction / (1 - how.test_fraction)
        held_out = (chance >= first) & (chance < first + width)
        of_rest = np.where(chance < first, chance, chance - width) / (1 - width)
        return np.where(held_out, TEST, np.where(of_rest < share, VAL, TRAIN)).astype(np.int8)


def chances_of(words: pa.ChunkedArray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each word, the same wherever the word stands."""
    encoded = pc.fill_null(words, "").combine_chunks().dictionary_encode()
    key = seed.to_bytes(8, "little")
    digests = [hashlib.blake2b(str(w).encode(), key=key, digest_size=8).digest() for w in encoded.dictionary]
    numbers = np.frombuffer(b"".join(digests), dtype="<u8") >> 11  # the 53 bits of a float64
    chance: np.ndarray = (numbers * 2.0**-53)[encoded.indices.to_numpy(zero_copy_only=False)]
    return chance


def order_statistics(read: Callable[[], Iterable[np.ndarray]], ranks: list[int]) -> list[float]:
    """The numbers that would stand at some places if all were sorted, found 16 bits at a time in four passes.

    Args:
        read: gives all numbers (float64, finite), in parts, as often as it is called.
        ranks: places, from 0.

    >>> order_statistics(lambda: [np.array([3.0, -1.0]), np.array([2.0])], [0, 2])
    [-1.0, 3.0]
    """
    prefixes, left = [0] * len(ranks), list(ranks)
    for shift in range(64 - BITS, -1, -BITS):
        counts = np.zeros((len(ranks), 2**BITS), dtype=np.int64)
        for keys in map(sortable, read()):
            digits = ((keys >> np.uint64(shift)) & np.uint64(2**BITS - 1)).astype(np.int64)
            for count, prefix in zip(counts, prefixes, strict=True):
                fits = slice(None) if shift == 64 - BITS else keys >> np.uint64(shift + BITS) == np.uint64(prefix)
                count += np.bincount(digits[fits], minlength=2**BITS)
        for i, count in enumerate(counts):
            upto = count.cumsum()
            digit = int(np.searchsorted(upto, left[i], side="right"))
            left[i] -= int(upto[digit] - count[digit])
            prefixes[i] = (prefixes[i] << BITS) | digit
    return [unsorted(prefix) for prefix in prefixes]


SIGN = np.uint64(1 << 63)


def sortable(numbers: np.ndarray) -> np.ndarray:
    """Integers in the order of float64 numbers: the sign bit turned, of negative numbers all bits."""
    bits = (numbers + 0.0).view(np.uint64)  # −0 becomes 0
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def unsorted(key: int) -> float:
    """The number that `sortable` made an integer of."""
    bits = np.uint64(key)
    return float((bits ^ SIGN if bits & SIGN else ~bits).view(np.float64))


def in_parts(parts: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rows of each part by class, (3, 2)."""
    counts = np.bincount(parts.astype(np.int64) * 2 + (target >= 0.5), minlength=6)
    return counts.reshape(3, 2)


def thresholds(
    read: Callable[[], Iterator[np.ndarray]], num_rows: int, val_fraction: float, test_fraction: float
) -> tuple[float, float]:
    """The first time that validates and the first that is held out, as `split_by_time` would choose them."""
    last = num_rows - 1
    ranks = [min(last, round(num_rows * (1 - out))) for out in (test_fraction + val_fraction, test_fraction)]
    first_val, first_test = order_statistics(read, ranks)
    return first_val, first_test
