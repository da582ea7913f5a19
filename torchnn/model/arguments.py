"""Checks of the classifier's arguments, which run before any data are read."""

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
            raise ValueError(f"hidden_sizes[{position}] is {size}: a hidden layer needs at least 1 neuron.")
    positive = {"lr": lr, "pos_weight": 1.0 if pos_weight == "auto" else pos_weight, "cost_ratio": cost_ratio}
    for name, value in positive.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: give a finite number above 0.")
    if weight_decay != "auto" and not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"weight_decay is {weight_decay}: give auto or a finite number that is 0 or more.")
    if not isinstance(threshold, str) and not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}: give a number between 0 and 1.")
    if not 0 < min_recall <= 1:
        raise ValueError(f"min_recall is {min_recall}: give a number above 0 and at most 1.")


def check_loss(loss: str, last_activation: str, pos_weight: float | Literal["auto"], calibrate: bool) -> None:
    """Raise ValueError unless the loss is known and fits the output's activation and the positive-class weight."""
    if loss == "binary_cross_entropy" and last_activation != "sigmoid":
        raise ValueError(
            f"output_activation is {last_activation}: binary_cross_entropy needs the probabilities of sigmoid; the mse "
            "loss takes any output."
        )
    check_loss_name(loss, None if pos_weight == 1 else 1.0 if pos_weight == "auto" else pos_weight)
    if calibrate and last_activation != "sigmoid":
        raise ValueError(
            f"calibrate needs logits, which a {last_activation} output does not have: set output_activation to sigmoid."
        )
