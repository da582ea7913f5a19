"""What a run measures on validation and held-out rows, for any number of batches and processes."""

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryCalibrationError,
    BinaryF1Score,
)
from torchmetrics.utilities import dim_zero_cat

WIDEST = torch.float32 if torch.backends.mps.is_available() else torch.float64  # the widest that every device here has


class Accuracy(BinaryAccuracy):
    """torchmetrics' own, which also takes a batch without rows: with several processes, one may have none in a step."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        if len(preds):
            super().update(preds, target)


class F1Score(BinaryF1Score):
    """As `Accuracy`."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        if len(preds):
            super().update(preds, target)


def evaluation_metrics(stage: str) -> MetricCollection:
    """Metrics of probabilities and classes, with names that begin with the stage.

    `set_threshold` sets their threshold at the start of each epoch.
    """
    metrics = {
        "accuracy": Accuracy(),
        "auroc": BinaryAUROC(),
        "average_precision": BinaryAveragePrecision(),
        "f1": F1Score(),
        "calibration_error": BinaryCalibrationError(),
    }
    return MetricCollection(metrics, prefix=f"{stage}_")  # type: ignore[arg-type]


def set_threshold(metrics: MetricCollection, threshold: float) -> None:
    """Make a probability from `threshold` count as class 1."""
    for metric in metrics.values():
        if isinstance(metric, Accuracy | F1Score):
            metric.threshold = threshold


class MeanLoss(MeanMetric):
    """The weighted mean of a loss over all rows of an epoch, summed in float64.

    It replaces the update of `MeanMetric`, which multiplies by the weights that are already in the loss, and which
    either removes NaN, so that nobody would see that a run has diverged, or ignores the weights.

    >>> mean = MeanLoss()
    >>> mean.update(torch.tensor(1.0), weight=torch.ones(3, 1))
    >>> mean.update(torch.tensor(5.0), weight=torch.ones(1, 1))
    >>> mean.compute()
    tensor(2., dtype=torch.float64)
    """

    mean_value: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.set_dtype(WIDEST)

    def update(self, loss: Tensor, weight: Tensor) -> None:  # type: ignore[override]
        """Add a batch.

        Args:
            loss: sum of the weighted losses divided by the number of rows, as `reduction="mean"` gives it; any number
                for a batch without rows.
            weight: of each row.
        """
        self.mean_value += loss.detach().to(WIDEST) * weight.numel()
        self.weight += weight.sum()


class EveryRow(Metric):
    """Values, target and weight of every row of an epoch, from all processes.

    torchmetrics' `CatMetric` would round the values to its own dtype, which is bfloat16 in a run with precision
    bf16-true.
    """

    values: list[Tensor]
    target: list[Tensor]
    weight: list[Tensor]
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("values", "target", "weight"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, values: Tensor, target: Tensor, weight: Tensor) -> None:
        for rows, more in ((self.values, values), (self.target, target), (self.weight, weight)):
            rows.append(more.detach().flatten())

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Values, target and weight, each (rows,), float64, on the CPU."""
        values, target, weight = (dim_zero_cat(rows).cpu().double() for rows in (self.values, self.target, self.weight))
        return values, target, weight
