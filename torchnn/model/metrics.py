"""What a run measures on validation and held-out rows, and what it chooses there: threshold and temperature."""

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryCalibrationError,
    BinaryF1Score,
)
from torchmetrics.utilities import dim_zero_cat

ThresholdRule = Literal["f1", "cost", "recall"]
NEWTON_STEPS = 50
ABOVE_ALL = 1 + torch.finfo(torch.float32).eps  # a threshold that no probability reaches
ROUNDING = 1e-9  # of a sum of weights, which may miss a fraction of another sum by so much
WIDEST = torch.float32 if torch.backends.mps.is_available() else torch.float64  # that every device here has
STEEPEST = 1e3  # a temperature beyond 1/1000 or 1000 would answer 0, 1 or one half to every row


class Accuracy(BinaryAccuracy):
    """Torchmetrics' own, for batches without a row too, which a process may have."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        if len(preds):
            super().update(preds, target)


class F1Score(BinaryF1Score):
    """As `Accuracy`."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        if len(preds):
            super().update(preds, target)


def evaluation_metrics(stage: str) -> MetricCollection:
    """Of probabilities and classes; names begin with the stage. Thresholds are set when an epoch begins."""
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


class MeanLoss(Metric):
    """The mean of a loss over rows by their weights, whatever the batches and processes they came in.

    >>> mean = MeanLoss()
    >>> mean.update(torch.tensor(1.0), weight=torch.ones(3, 1))
    >>> mean.update(torch.tensor(5.0), weight=torch.ones(1, 1))
    >>> mean.compute()
    tensor(2., dtype=torch.float64)
    """

    total: Tensor
    weight: Tensor
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, default=torch.tensor(0.0, dtype=WIDEST), dist_reduce_fx="sum")

    def update(self, loss: Tensor, weight: Tensor) -> None:
        """Add a batch.

        Args:
            loss: sum of weighted losses by number of rows, as `reduction="mean"` gives it; of no rows any number.
            weight: of each row.
        """
        self.total += loss.detach().to(WIDEST) * weight.numel()
        self.weight += weight.sum()

    def compute(self) -> Tensor:
        return self.total / self.weight


def as_probability(output: Tensor) -> Tensor:
    """The output as a float32 probability at least; only an output trained on squared error can leave [0, 1]."""
    return output.to(torch.promote_types(output.dtype, torch.float32)).clamp(0, 1)


def logit(probability: Tensor) -> Tensor:
    """The logit of a probability, in float64 and finite: where it is 0 or 1, that of its rounding error."""
    tiny = torch.finfo(probability.dtype).eps / 2
    return probability.double().logit(eps=tiny)


class EveryRow(Metric):
    """Values, target and weight of every row of an epoch; each process contributes its rows."""

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


def best_temperature(logits: Tensor, target: Tensor, weight: Tensor) -> float:
    """The T > 0 with the least cross-entropy of σ(logits/T); 1 where the logits separate the classes.

    Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks". The loss is convex in 1/T:
    safeguarded Newton steps on 1/T. Separated classes have no such T: the smaller the better on these rows, and any
    mistake on others would then be made with certainty.

    >>> import math
    >>> z, target = torch.tensor([-4.0, 4.0]).double(), torch.tensor([0.25, 0.75]).double()
    >>> round(best_temperature(z, target, torch.ones(2).double()), 4), round(4 / math.log(3), 4)
    (3.641, 3.641)
    """
    low, high, slope = 1 / STEEPEST, STEEPEST, 1.0
    steepest = torch.sigmoid(STEEPEST * logits)
    if float((weight * (steepest - target) * logits).sum()) <= 0:
        return 1.0
    for _ in range(NEWTON_STEPS):
        probability = torch.sigmoid(slope * logits)
        gradient = float((weight * (probability - target) * logits).sum())
        curvature = float((weight * probability * (1 - probability) * logits**2).sum())
        low, high = (slope, high) if gradient < 0 else (low, slope)
        step = slope - gradient / curvature if curvature > 0 else low
        following = step if low < step < high else (low * high) ** 0.5
        if abs(following - slope) < 1e-9 * slope:
            break
        slope = following
    return 1 / slope


def best_threshold(
    rule: ThresholdRule, probability: Tensor, target: Tensor, weight: Tensor, cost_ratio: float, min_recall: float
) -> float:
    """The probability from which a row should be called class 1.

    Args:
        rule: f1 for the highest F1, cost for the least cost of mistakes, recall for the highest threshold that finds at
            least `min_recall` of class 1.
        probability: of class 1, (rows,).
        target: 0 to 1, (rows,).
        weight: of each row, (rows,).
        cost_ratio: what a missed row of class 1 costs, as a multiple of a false alarm.
        min_recall: fraction of class 1.

    What it gives tells the same rows apart in float32, as models serve probabilities and checkpoints keep it.

    >>> p, y = torch.tensor([0.1, 0.3, 0.4, 0.8]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    >>> round(best_threshold("recall", p, y, torch.ones(4), 1.0, 0.9), 3)
    0.2
    """
    ordered, order = probability.float().sort(descending=True)
    hits = (weight * target)[order].cumsum(0)
    alarms = (weight * (1 - target))[order].cumsum(0)
    positives = hits[-1]
    # Rows of the same probability are called alike: only the last of them can be where the calling ends.
    last_of_its_value = torch.cat([ordered[1:] != ordered[:-1], torch.ones(1, dtype=torch.bool)])
    if rule == "f1":
        merit = 2 * hits / (hits + alarms + positives)
    elif rule == "cost":
        merit = -(cost_ratio * (positives - hits) + alarms)
    else:
        merit = torch.where(
            hits >= min_recall * positives * (1 - ROUNDING), -torch.arange(len(hits), dtype=hits.dtype), -torch.inf
        )
    merit = torch.where(last_of_its_value, merit, -torch.inf)
    if rule == "cost" and float(merit.max()) <= float(-cost_ratio * positives):
        return 1.0 if float(ordered[0]) < 1 else ABOVE_ALL  # calling no row costs least
    best = int(merit.argmax())
    below = ordered[best + 1] if best + 1 < len(ordered) else torch.zeros_like(ordered[0])
    middle = (ordered[best] + below) / 2
    return float(middle if middle > below else ordered[best])
