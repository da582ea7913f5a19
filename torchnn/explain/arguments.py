"""Check the arguments of `trace` and convert them to one form."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from torchnn.explain.derivation import BCE, MSE
from torchnn.explain.network import Layer
from torchnn.explain.passes import forward

WITH_LOGITS = "binary_cross_entropy_with_logits"


def checked_settings(
    loss: str,
    layers: list[Layer],
    pos_weight: float | None,
    lr: float,
    steps: int,
    max_differences: int,
    dtype: torch.dtype,
) -> tuple[str, list[Layer]]:
    """The name of the loss formula, and the layers. A loss with logits adds its sigmoid to the last layer."""
    last = layers[-1]
    if loss == WITH_LOGITS:
        if last.activation != "identity":
            raise ValueError(f"{WITH_LOGITS} needs logits, but the network ends with {last.activation}: use {BCE}.")
        loss, layers = BCE, [*layers[:-1], Layer(last.weight, last.bias, "sigmoid")]
    if loss not in (BCE, MSE):
        raise ValueError(f"unknown loss {loss!r}: choose one of {BCE}, {WITH_LOGITS}, {MSE}.")
    if loss == MSE and pos_weight is not None:
        raise ValueError("pos_weight works with binary_cross_entropy only: leave it out for the mse loss.")
    for name, value in (("lr", lr), ("pos_weight", pos_weight)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: give a finite number above 0.")
    if steps < 0:
        raise ValueError(f"steps is {steps}: give 0 or more.")
    if max_differences < 1:
        raise ValueError(f"max_differences is {max_differences}: give 1 or more.")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype is {dtype}: give torch.float64 or torch.float32.")
    for number, layer in enumerate(layers, 1):
        for parameter in (layer.weight, layer.bias):
            if parameter is not None and not bool(torch.isfinite(parameter).all()):
                raise ValueError(f"layer {number} has weights that are infinite or NaN: explain needs finite numbers.")
    for number, (below, layer) in enumerate(pairwise(layers), 2):
        if layer.weight.shape[1] != len(below.weight):
            raise ValueError(
                f"layer {number} takes {layer.weight.shape[1]} inputs, but the layer before it has {len(below.weight)} "
                "neurons: make them equal."
            )
    return loss, layers


def checked_inputs(
    layers: Sequence[Layer], x: Tensor, y: Tensor, loss: str, columns: Sequence[str] | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """x as (m, n[0]), y as (m, n[L]), and the names of the inputs."""
    features, outputs = layers[0].weight.shape[1], len(layers[-1].weight)
    x, y = x.detach().to("cpu", dtype, copy=True), y.detach().to("cpu", dtype, copy=True)
    x = x[None] if x.dim() == 1 else x
    if x.dim() != 2 or x.shape[1] != features or len(x) == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}: give (m, {features}), with at least one example.")
    if y.numel() != len(x) * outputs or (y.dim() == 2 and y.shape != (len(x), outputs)) or y.dim() > 2:
        raise ValueError(f"y has shape {tuple(y.shape)}: give ({len(x)}, {outputs}), one row per example.")
    y = y.reshape(len(x), outputs)
    for name, values in (("x", x), ("y", y)):
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} contains infinite or NaN values: give finite numbers.")
    if loss == BCE and not bool(((y >= 0) & (y <= 1)).all()):
        raise ValueError("y contains targets outside [0, 1]: binary_cross_entropy takes values from 0 to 1.")
    if loss == BCE and layers[-1].activation != "sigmoid":
        check_probabilities(layers, x)
    names = tuple(f"x{number}" for number in range(1, features + 1)) if columns is None else tuple(map(str, columns))
    if len(names) != features:
        raise ValueError(f"there are {len(names)} columns for {features} inputs: give one name per input.")
    return x, y, names


def check_probabilities(layers: Sequence[Layer], x: Tensor) -> None:
    """Binary cross-entropy needs probabilities, also from an output that is not a sigmoid."""
    a = forward(layers, x)[1][-1]
    if not bool(((a >= 0) & (a <= 1)).all()):
        raise ValueError(
            f"the network ends with {layers[-1].activation} and gives {float(a.flatten()[0]):.4g}, which is not a "
            f"probability: end it with a sigmoid, or use loss {WITH_LOGITS} or {MSE}."
        )
