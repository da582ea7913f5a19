"""Encode typed columns as one matrix: a number as it is, a category as its code, a time as its parts."""

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from torchnn.tables.schema import TIME_PARTS, Column, Schema

MICROSECONDS_PER_DAY = 86_400_000_000
DAYS_BEFORE_2000 = (datetime.date(2000, 1, 1) - datetime.date(1970, 1, 1)).days
DAYS_PER_YEAR = 365.2425  # of the Gregorian calendar
THURSDAY = 3  # the weekday of 1 January 1970, counted from Monday


def encode(values: Mapping[str, Any], schema: Schema) -> Tensor:
    """The matrix of raw numbers.

    Args:
        values: the values of each column of the schema: Arrow strings for a category, else float64 with NaN for
            missing.
        schema: the columns, their categories and parts.

    Shapes: (rows, len(schema.slots)); float32, or float64 if the schema is exact. NaN stands for missing. A category
    is its code, 0 if it did not occur in training.

    >>> colour = Column(name="colour", kind="category", values=("blue", "red"))
    >>> encode({"colour": pa.array(["red", "pink", None])}, Schema(columns=(colour,))).flatten()
    tensor([2., 0., nan])
    """
    num_rows = len(next(iter(values.values()))) if values else 0
    matrix = np.empty((num_rows, len(schema.slots)), dtype=np.float64 if schema.exact else np.float32)
    slot = 0
    for column in schema.columns:
        width = len(column.slots)
        matrix[:, slot : slot + width] = _encode_column(values[column.name], column)
        slot += width
    return torch.from_numpy(matrix)


def _encode_column(values: Any, column: Column) -> np.ndarray:
    """The slots of one column, float64 (rows, slots)."""
    if column.kind == "time":
        kept = [TIME_PARTS.index(part) for part in column.parts]
        return time_parts(values)[:, kept]
    numbers: np.ndarray = category_codes(values, column.values) if column.kind == "category" else values
    return numbers[:, None]


def category_codes(words: Any, known: tuple[str, ...]) -> np.ndarray:
    """Float64 codes of words: 1, 2, … in the order of `known`, 0 for any other, NaN for null."""
    positions = pc.fill_null(pc.index_in(words, pa.array(known, pa.string())), -1)
    numbers = pc.cast(pc.add(positions, 1), pa.float64())
    filled: np.ndarray = pc.if_else(pc.is_valid(words), numbers, float("nan")).to_numpy(zero_copy_only=False)
    return filled


def time_parts(micros: np.ndarray) -> np.ndarray:
    """Microseconds since 1970 as days since 2000 and the cycles of day, week and year, (rows, len(TIME_PARTS)).

    Days are counted from 2000, so that float32 holds them to the minute.

    >>> time_parts(np.array([0.0]))[0, 0]
    np.float64(-10957.0)
    """
    days = micros / MICROSECONDS_PER_DAY
    date = np.floor(days)  # the season does not change with the time of day
    turns = (days % 1, ((date + THURSDAY) % 7) / 7, (date % DAYS_PER_YEAR) / DAYS_PER_YEAR)
    cycles = [wave(2 * np.pi * turn) for turn in turns for wave in (np.sin, np.cos)]
    return np.stack([days - DAYS_BEFORE_2000, *cycles], axis=-1)
