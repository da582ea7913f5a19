"""A table as numbers: what loaders serve in batches."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Table:
    """Numbers and labels of a binary classification problem.

    Attributes:
        features: float32 or float64, shape (rows, slots), raw: not standardised; NaN is missing, a category is
            its code.
        target: float32, shape (rows,), 1 for the positive class; NaN where it is not known.
        columns: a name for each column of `features`.
        classes: the names of class 0 and class 1.
        weight: float32, shape (rows,), of each row in the loss, with mean 1 over the training rows; None for 1.
        ids: what names a row in predictions, an Arrow array of (rows,); None for its number.
        id_name: what to call them.
    """

    features: Tensor
    target: Tensor
    columns: tuple[str, ...]
    classes: tuple[str, str]
    weight: Tensor | None = None
    ids: Any = None
    id_name: str = "row"

    def __len__(self) -> int:
        return len(self.target)
