"""A table as numbers, ready to be served in batches; and the tables that come with scikit-learn."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers and labels of a binary classification problem.

    Attributes:
        features: float32 or float64, shape (rows, slots), not standardised; NaN stands for missing, and a category is
            its code.
        target: float32, shape (rows,), 1 for the positive class; NaN where it is unknown.
        columns: a name for each column of `features`.
        classes: the names of class 0 and class 1.
        weight: float32, shape (rows,), the weight of each row in the loss, with mean 1 over the training rows; None if
            all weights are 1.
        ids: the id of each row in predictions, an Arrow array of shape (rows,); None for its number.
        id_name: name of the ids.
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


def breast_cancer() -> Table:
    """Wisconsin diagnostic breast cancer: 569 rows, 30 columns, 62.7 % positive ("benign"), from scikit-learn."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    return Table(
        features=torch.from_numpy(data.data).float(),
        target=torch.from_numpy(data.target).float(),
        columns=tuple(map(str, data.feature_names)),
        classes=(str(data.target_names[0]), str(data.target_names[1])),
    )


EMBEDDED = {"breast_cancer": breast_cancer}
