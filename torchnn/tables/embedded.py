"""Tables that come with a package torchnn depends on."""

import torch

from torchnn.tables.table import Table


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
