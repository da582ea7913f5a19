"""Every operation with torch's equivalent and inputs, for the tests of all operations."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

import torchnn.functional as F
from tests import reference
from tests.cases import leaf
from tests.checks import Op


class Case(NamedTuple):
    """`is_product`: which gradients need a matrix product; `textbook`: an equivalent whose second order is exact."""

    name: str
    op: Op
    theirs: Op
    inputs: Callable[[], Sequence[Tensor]]
    is_product: tuple[bool, ...]
    textbook: Op | None = None


def probability(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64).mul(0.9).add(0.05).requires_grad_()


def dense_inputs(bias_shape: tuple[int, ...] = (4,)) -> list[Tensor]:
    return [leaf(5, 3), leaf(4, 3), leaf(*bias_shape)]


DENSE = [
    Case("dense", F.dense, functional.linear, dense_inputs, (True, True, False)),
    Case("dense without bias", F.dense, functional.linear, lambda: dense_inputs()[:2], (True, True)),
    Case("dense, shared bias", F.dense, functional.linear, lambda: dense_inputs((1,)), (True, True, False)),
    Case("dense, scalar bias", F.dense, functional.linear, lambda: dense_inputs(()), (True, True, False)),
    *(
        Case(
            f"dense_activation {name}",
            partial(F.dense_activation, activation=name),
            partial(reference.dense_activation, activation=name),
            dense_inputs,
            (True, True, False),
        )
        for name in reference.ACTIVATIONS
    ),
]

ACTIVATIONS = [
    Case("sigmoid", F.sigmoid, torch.sigmoid, lambda: [leaf(5, 4)], (False,)),
    Case("tanh", F.tanh, torch.tanh, lambda: [leaf(5, 4)], (False,)),
    Case("relu", F.relu, torch.relu, lambda: [leaf(5, 4)], (False,)),
]


# An element weight by row and a positive-class weight by column.
WEIGHTS = torch.linspace(0.5, 1.5, 5, dtype=torch.double).unsqueeze(1), torch.linspace(0.5, 3, 4, dtype=torch.double)


def loss_cases(
    name: str, op: Op, theirs: Op, inputs: Callable[[], list[Tensor]], textbook: Op | None = None
) -> list[Case]:
    reductions = ("mean", "sum", "none")
    return [
        Case(
            f"{name} {r}",
            partial(op, reduction=r),
            partial(theirs, reduction=r),
            inputs,
            (False, False),
            partial(textbook or theirs, reduction=r),
        )
        for r in reductions
    ]


def weighted(op: Op) -> Op:
    """`op` with a weight by row."""
    return lambda a, y, **options: op(a, y, WEIGHTS[0].to(a.device), **options)


def weighted_by_class(op: Op) -> Op:
    """`op` with a weight by row and one by class."""
    return lambda a, y, **options: op(a, y, WEIGHTS[0].to(a.device), pos_weight=WEIGHTS[1].to(a.device), **options)


def two_probabilities() -> list[Tensor]:
    return [probability(5, 4), probability(5, 4)]


def textbook(a: Tensor, y: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """−w [ y log a + (1 − y) log(1 − a) ]: torch's own second order of the clamped loss is off by up to 1e−10."""
    loss = -(y * a.log() + (1 - y) * (1 - a).log()) * (1 if weight is None else weight)
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


_logits = F.binary_cross_entropy_with_logits, functional.binary_cross_entropy_with_logits
_probabilities = F.binary_cross_entropy, functional.binary_cross_entropy

LOSSES = [
    *loss_cases("logits", *_logits, lambda: [leaf(5, 4), probability(5, 4)]),
    *loss_cases(
        "logits, weights",
        weighted_by_class(_logits[0]),
        weighted_by_class(_logits[1]),
        lambda: [leaf(5, 4), probability(5, 4)],
    ),
    *loss_cases("probabilities", *_probabilities, two_probabilities, textbook),
    *loss_cases(
        "probabilities, weight",
        weighted(_probabilities[0]),
        weighted(_probabilities[1]),
        two_probabilities,
        weighted(textbook),
    ),
    *loss_cases("mse", F.mse_loss, functional.mse_loss, lambda: [leaf(5, 4), leaf(5, 4)]),
]

CASES = [*DENSE, *ACTIVATIONS, *LOSSES]
