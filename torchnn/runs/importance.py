"""Permutation importance: what a model loses when a column is shuffled."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from torchnn.model.decisions import as_probability

REPEATS = 5
MOST_COLUMNS = 200  # shuffled; a wider table is measured once a column
SEED = 0  # the same shuffles in every test


class Importance(NamedTuple):
    """What shuffling a column costs.

    Attributes:
        column: its name.
        mean: area under the ROC lost, over the shuffles.
        sd: its standard deviation over the shuffles.
    """

    column: str
    mean: float
    sd: float


def permutation_importance(model: Any, features: Tensor, label: Tensor) -> list[Importance]:
    """The area under the ROC that each column is worth, the most important first.

    Breiman 2001, "Random forests". All numbers of a column are shuffled together. Columns that say the same stand in
    for each other, so that each of them alone may seem to be worth nothing.

    Args:
        model: a `BinaryClassifier`.
        features: raw features, (rows, slots).
        label: 0 or 1, (rows,).
    """
    columns = slots_by_column(model, features.shape[1])
    repeats = REPEATS if len(columns) <= MOST_COLUMNS else 1
    generator = torch.Generator().manual_seed(SEED)

    def auroc(rows: Tensor) -> float:
        with torch.no_grad():
            return float(binary_auroc(as_probability(model(rows)).flatten(), label))

    whole = auroc(features)
    found = []
    for name, slots in columns.items():
        lost = []
        for _ in range(repeats):
            order = torch.randperm(len(features), generator=generator).to(features.device)
            shuffled = features.clone()
            shuffled[:, slots] = features[order][:, slots]
            lost.append(whole - auroc(shuffled))
        losses = torch.tensor(lost, dtype=torch.float64)
        found.append(Importance(name, float(losses.mean()), float(losses.std(correction=0))))
    return sorted(found, key=lambda one: -one.mean)


def slots_by_column(model: Any, num_slots: int) -> dict[str, list[int]]:
    """Positions in the raw matrix of each column."""
    if model.schema is None:
        return {f"column {slot}": [slot] for slot in range(num_slots)}
    columns: dict[str, list[int]] = {}
    for slot, column in enumerate(model.schema.slot_columns):
        columns.setdefault(column.name, []).append(slot)
    return columns
