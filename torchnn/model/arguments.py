"""The arguments of the classifier, checked before any data are read."""

import math
from collections.abc import Sequence
from typing import Literal

from torchnn.functional.network import check_loss_name
from torchnn.model.decisions import ThresholdRule


def check_numbers(
    hidden_sizes: Sequence[int],
    lr: float,
    weight_decay: float | Literal["auto"],
    pos_weight: float | Literal["auto"],
    threshold: float | ThresholdRule,
    cost_ratio: float,
    min_recall: float,
) -> None:
    """Raise ValueError naming the first argument that is out of range."""
    for position, size in enumerate(hidden_sizes):
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"hidden_sizes[{position}] is {size}: a hidden layer has 1 neuron or more.")
    weighting = 1.0 if pos_weight == "auto" else pos_weight
    for name, value in (("lr", lr), ("pos_weight", weighting), ("cost_ratio", cost_ratio)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: it is a finite number above 0.")
    if weight_decay != "auto" and not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"weight_decay is {weight_decay}: it is a finite number, 0 or more, or auto.")
    if not isinstance(threshold, str) and not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}: it lies between 0 and 1.")
    if not 0 < min_recall <= 1:
        raise ValueError(f"min_recall is {min_recall}: it is above 0 and at most 1.")


def check_loss(loss: str, last_activation: str, pos_weight: float | Literal["auto"], calibrate: bool) -> None:
    """Raise ValueError unless the loss is known and fits the output's activation and the positive-class weight."""
    if loss == "binary_cross_entropy" and last_activation != "sigmoid":
        raise ValueError(
            f"output_activation is {last_activation}: binary_cross_entropy needs a probability, so sigmoid; "
            "the mse loss takes any."
        )
    check_loss_name(loss, None if pos_weight == 1 else 1.0 if pos_weight == "auto" else pos_weight)
    if calibrate and last_activation != "sigmoid":
        raise ValueError(
            f"calibrate divides the logits, which {last_activation} has not: set output_activation to sigmoid."
        )
