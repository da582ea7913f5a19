"""Tables: what the data module trains on, wherever it came from."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Table:
    """Numbers and labels of a binary classification problem.

    Attributes:
        features: float32, shape (rows, columns), raw: nothing is standardised here.
        target: float32, shape (rows,), 1 for the positive class.
        columns: a name for each column of `features`.
        classes: the names of class 0 and class 1.
    """

    features: Tensor
    target: Tensor
    columns: tuple[str, ...]
    classes: tuple[str, str]

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
