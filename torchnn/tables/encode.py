"""Typed columns to one matrix of raw numbers: a number as it is, a category as its code, a time as its parts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from torchnn.tables.columns import EPOCH, TIME_PARTS, Column, Schema

MICROSECONDS_OF_A_DAY = 86_400_000_000
DAYS_FROM_1970 = (EPOCH - EPOCH.replace(year=1970)).days
DAYS_OF_A_YEAR = 365.2425  # of the Gregorian calendar
THURSDAY = 3  # 1 January 1970, counted from Monday


def encode(values: Mapping[str, Any], schema: Schema) -> Tensor:
    """The matrix of raw numbers.

    Args:
        values: of each column of the schema: Arrow strings of a category, else float64 with NaN for missing.
        schema: the columns, their categories and parts.

    Shapes: (rows, len(schema.slots)); float32, or float64 if the schema is exact. NaN stands for missing; a category
    is its code, 0 for one that training has not seen.

    >>> colour = Column("colour", "category", ("blue", "red"))
    >>> encode({"colour": pa.array(["red", "pink", None])}, Schema((colour,))).flatten()
    tensor([2., 0., nan])
    """
    num_rows = len(next(iter(values.values()))) if values else 0
    matrix = np.empty((num_rows, len(schema.slots)), dtype=np.float64 if schema.exact else np.float32)
    slot = 0
    for column in schema.columns:
        width = len(column.slots)
        matrix[:, slot : slot + width] = _numbers(values[column.name], column)
        slot += width
    return torch.from_numpy(matrix)


def _numbers(values: Any, column: Column) -> np.ndarray:
    """The slots of one column, float64 (rows, slots)."""
    if column.kind == "time":
        kept = [TIME_PARTS.index(part) for part in column.parts]
        return time_parts(values)[:, kept]
    numbers: np.ndarray = codes(values, column.values) if column.kind == "category" else values
    return numbers[:, None]


def codes(words: Any, known: tuple[str, ...]) -> np.ndarray:
    """Float64 codes of words: 1, 2, … in the order of `known`, 0 for any other, NaN for null."""
    positions = pc.fill_null(pc.index_in(words, pa.array(known, pa.string())), -1)
    numbers = pc.cast(pc.add(positions, 1), pa.float64())
    filled: np.ndarray = pc.if_else(pc.is_valid(words), numbers, float("nan")).to_numpy(zero_copy_only=False)
    return filled


def time_parts(micros: np.ndarray) -> np.ndarray:
    """Microseconds since 1970 as days since 2000 and the cycles of day, week and year: (rows, len(TIME_PARTS)).

    >>> time_parts(np.array([0.0]))[0, 0]
    np.float64(-10957.0)
    """
    days = micros / MICROSECONDS_OF_A_DAY
    date = np.floor(days)  # a time of day has no season
    turns = (days % 1, ((date + THURSDAY) % 7) / 7, (date % DAYS_OF_A_YEAR) / DAYS_OF_A_YEAR)
    cycles = [wave(2 * np.pi * turn) for turn in turns for wave in (np.sin, np.cos)]
    return np.stack([days - DAYS_FROM_1970, *cycles], axis=-1)
