"""Turns raw columns into a matrix of numbers for the peers; torchnn reads the table itself."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CYCLES = ((pc.day_of_year, 366), (pc.day_of_week, 7), (pc.hour, 24))


@dataclass(frozen=True)
class Encoded:
    """A table as numbers.

    Attributes:
        values: float32, shape (rows, columns); missing numbers are the mean of the training rows.
        is_indicator: of each column, whether it is 0 or 1: a category, or the flag of a missing value.
    """

    values: np.ndarray
    is_indicator: np.ndarray


def encode(table: pa.Table, train_rows: np.ndarray) -> Encoded:
    """Categories one-hot with a slot for missing and unknown, numbers imputed with a flag, times by place in a cycle.

    Args:
        table: numbers, strings and timestamps.
        train_rows: the rows that means and categories are taken from.
    """
    parts: list[tuple[np.ndarray, bool]] = []
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_timestamp(column.type):
            for part, length in CYCLES:
                angle = part(column).to_numpy(zero_copy_only=False) * (2 * np.pi / length)
                parts += [(np.sin(angle)[:, None], False), (np.cos(angle)[:, None], False)]
        elif pa.types.is_string(column.type):
            known = pc.unique(column.take(train_rows)).drop_null().sort()
            codes = pc.fill_null(pc.index_in(column, known), len(known)).to_numpy(zero_copy_only=False)
            parts.append((codes[:, None] == np.arange(len(known) + 1), True))
        else:
            numbers = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
            missing = np.isnan(numbers)
            parts.append((np.where(missing, np.nanmean(numbers[train_rows]), numbers)[:, None], False))
            if missing.any():
                parts.append((missing[:, None], True))
    values = np.concatenate([values.astype(np.float32) for values, _ in parts], axis=1)
    return Encoded(values, np.concatenate([np.full(values.shape[1], flag) for values, flag in parts]))
