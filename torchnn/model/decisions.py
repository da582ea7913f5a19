"""From outputs to decisions: probabilities, and the temperature and the threshold that validation chooses."""

import math
from typing import Literal

import torch
from torch import Tensor

ThresholdRule = Literal["f1", "cost", "recall"]
LARGEST_TEMPERATURE = 1e3  # with a temperature outside [1/1000, 1000] every probability would be 0, 1 or one half
ABOVE_ALL = 1 + torch.finfo(torch.float32).eps  # a threshold that no probability reaches
ROUNDING = 1e-9  # relative error allowed when two sums of weights are compared


def as_probability(output: Tensor) -> Tensor:
    """The output in [0, 1], in float32 or wider; only an output trained on squared error can leave [0, 1]."""
    return output.to(torch.promote_types(output.dtype, torch.float32)).clamp(0, 1)


def logit(probability: Tensor) -> Tensor:
    """The logit of a probability, float64 and finite: 0 and 1 are moved inwards by their rounding error."""
    tiny = torch.finfo(probability.dtype).eps / 2
    return probability.double().logit(eps=tiny)


def best_temperature(logits: Tensor, target: Tensor, weight: Tensor) -> float:
    """The temperature T in [1/1000, 1000] with the smallest cross-entropy of σ(logits/T).

    Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks". The loss is convex in 1/T, so
    its derivative has at most one root. It has none where the logits separate the classes: a smaller T always fits
    these rows better, and would make every mistake on other rows a certain one. The temperature is then 1.

    Args:
        logits: (rows,).
        target: 0 to 1, (rows,).
        weight: of each row, (rows,).

    >>> z, target = torch.tensor([-4.0, 4.0]).double(), torch.tensor([0.25, 0.75]).double()
    >>> round(best_temperature(z, target, torch.ones(2).double()), 4), round(4 / math.log(3), 4)
    (3.641, 3.641)
    """
    from scipy.optimize import brentq  # slow to import, and few runs need it

    def derivative(log_slope: float) -> float:
        """Derivative of the loss with respect to 1/T at 1/T = exp(log_slope)."""
        return float((weight * (torch.sigmoid(math.exp(log_slope) * logits) - target) * logits).sum())

    limit = math.log(LARGEST_TEMPERATURE)
    if not derivative(limit) > 0:  # also where logits are NaN, which ends the run soon afterwards
        return 1.0
    if derivative(-limit) >= 0:
        return LARGEST_TEMPERATURE
    return math.exp(-brentq(derivative, -limit, limit, xtol=1e-9))


def best_threshold(
    rule: ThresholdRule, probability: Tensor, target: Tensor, weight: Tensor, cost_ratio: float, min_recall: float
) -> float:
    """The probability from which a row should be called class 1.

    It separates the same rows in float32, in which models return probabilities and checkpoints keep the threshold.

    Args:
        rule: f1 for the highest F1, cost for the lowest cost of mistakes, recall for the highest threshold that finds
            at least `min_recall` of class 1.
        probability: of class 1, (rows,).
        target: 0 to 1, (rows,).
        weight: of each row, (rows,).
        cost_ratio: cost of missing a row of class 1, as a multiple of the cost of a false alarm.
        min_recall: fraction of class 1.

    >>> p, y = torch.tensor([0.1, 0.3, 0.4, 0.8]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    >>> round(best_threshold("recall", p, y, torch.ones(4), 1.0, 0.9), 3)
    0.2
    """
    ordered, order = probability.float().sort(descending=True)
    hits = (weight * target)[order].cumsum(0)
    alarms = (weight * (1 - target))[order].cumsum(0)
    positives = hits[-1]
    if rule == "f1":
        merit = 2 * hits / (hits + alarms + positives)
    elif rule == "cost":
        merit = -(cost_ratio * (positives - hits) + alarms)
    else:
        enough = hits >= min_recall * positives * (1 - ROUNDING)
        merit = torch.where(enough, -torch.arange(len(hits), dtype=hits.dtype), -torch.inf)
    # A threshold cannot separate rows of the same probability, so only the last of them is a candidate.
    last_of_its_value = torch.cat([ordered[1:] != ordered[:-1], torch.ones(1, dtype=torch.bool)])
    merit = torch.where(last_of_its_value, merit, -torch.inf)
    if rule == "cost" and float(merit.max()) <= float(-cost_ratio * positives):
        return 1.0 if float(ordered[0]) < 1 else ABOVE_ALL  # it costs least to call no row class 1
    best = int(merit.argmax())
    below = ordered[best + 1] if best + 1 < len(ordered) else torch.zeros_like(ordered[0])
    middle = (ordered[best] + below) / 2
    return float(middle if middle > below else ordered[best])
