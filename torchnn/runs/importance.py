"""Permutation importance: how much worse a model is when a column is shuffled."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from torchnn.model.decisions import as_probability

REPEATS = 5
MOST_COLUMNS = 200  # that are shuffled REPEATS times; each column of a wider table is shuffled once
SEED = 0  # the same shuffles in every test


class Importance(NamedTuple):
    """The effect of shuffling a column.

    Attributes:
        column: its name.
        mean: loss of area under the ROC, averaged over the shuffles.
        sd: standard deviation of that loss over the shuffles.
    """

    column: str
    mean: float
    sd: float


def permutation_importance(model: Any, features: Tensor, label: Tensor) -> list[Importance]:
    """The area under the ROC that is lost when each column is shuffled, the most important column first.

    Breiman 2001, "Random forests". All slots of a column are shuffled together. Correlated columns can replace each
    other, so each of them may seem unimportant.

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
