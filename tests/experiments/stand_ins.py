"""Small random data sets with the columns of those from packages that the tests do not require."""

from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from experiments.common.datasets import Dataset

NUM_FLIGHTS = 300


def of_numbers(name: str, rows: int, columns: int, classes: tuple[str, str]) -> Dataset:
    """Uniform numbers between 0 and 1; the class is whether the first one is large."""
    numbers = np.random.default_rng(0).random((rows, columns))
    labels = np.where(numbers[:, 0] > 0.5, classes[1], classes[0])
    table = pa.table({**{f"x{i}": column for i, column in enumerate(numbers.T)}, "Class": labels})
    return Dataset(name, table, "Class", classes[1])


def flights() -> Dataset:
    """A number with missing values, a category and a time."""
    generator = np.random.default_rng(0)
    wind = generator.normal(size=NUM_FLIGHTS)
    columns = {
        "wind": pa.array([None if i % 50 == 7 else value for i, value in enumerate(wind)]),
        "carrier": pa.array(generator.choice(["AA", "UA", "DL"], NUM_FLIGHTS)),
        "time_hour": pa.array([datetime(2013, 1, 1) + timedelta(hours=7 * i) for i in range(NUM_FLIGHTS)]),
        "late": pa.array(wind + generator.normal(size=NUM_FLIGHTS) > 0),
    }
    return Dataset("flights", pa.table(columns), "late", True)


STAND_INS: dict[str, Callable[[], Dataset]] = {
    "sonar": lambda: of_numbers("Sonar", 208, 60, ("R", "M")),
    "ionosphere": lambda: of_numbers("Ionosphere", 351, 34, ("bad", "good")),
    "flights": flights,
}
