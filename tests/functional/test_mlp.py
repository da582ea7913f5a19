"""`mlp` and `mlp_loss` against the textbook network, differentiated by autograd."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import torchnn.functional as F
from tests import checks, reference
from tests.cases import leaf
from tests.checks import Op

SIZES = [3, 5, 4, 2]
HIDDEN = ["tanh", "relu"]
TARGET = torch.linspace(0, 1, 12, dtype=torch.double).reshape(6, 2)
NEED_OTHER_TARGETS = ["shapes", "per_sample_gradients", "fake_tensors"]  # the target is fixed: six rows, on the CPU
BY_ROW = torch.linspace(0.5, 2, 6, dtype=torch.double).unsqueeze(1)
BY_CLASS = torch.tensor([0.5, 3.0], dtype=torch.double)


def inputs() -> list[Tensor]:
    """x, W[1] … W[3], b[1] … b[3]; b[3] is one number for all neurons."""
    return [leaf(6, SIZES[0]), *(leaf(m, n) for n, m in pairwise(SIZES)), *(leaf(m) for m in SIZES[1:-1]), leaf(1)]


def ours(*tensors: Tensor, last: str) -> Tensor:
    return F.mlp(tensors[0], tensors[1:4], tensors[4:7], [*HIDDEN, last])


def textbook(*tensors: Tensor, last: str) -> Tensor:
    a = tensors[0]
    for weight, bias, name in zip(tensors[1:4], tensors[4:7], [*HIDDEN, last], strict=True):
        a = reference.dense_activation(a, weight, bias, name)
    return a


def loss_of_ours(*tensors: Tensor, last: str, loss: str, reduction: str) -> Tensor:
    options = {"weight": BY_ROW, "reduction": reduction, "pos_weight": None if loss == "mse" else BY_CLASS}
    return F.mlp_loss(tensors[0], TARGET, tensors[1:4], tensors[4:7], [*HIDDEN, last], loss, **options)[0]  # type: ignore[arg-type]


def loss_of_textbook(*tensors: Tensor, last: str, loss: str, reduction: str) -> Tensor:
    y, w, p = TARGET, BY_ROW, BY_CLASS
    if loss == "mse":
        value = w * (textbook(*tensors, last=last) - y) ** 2
    else:
        a = textbook(*tensors, last=last)
        value = -w * (p * y * a.log() + (1 - y) * (1 - a).log())
    return value.mean() if reduction == "mean" else value.sum() if reduction == "sum" else value


CASES: dict[str, tuple[Op, Op]] = {
    "mlp, identity": (partial(ours, last="identity"), partial(textbook, last="identity")),
    "mlp, sigmoid": (partial(ours, last="sigmoid"), partial(textbook, last="sigmoid")),
    **{
        f"{loss} after {last}, {reduction}": (
            partial(loss_of_ours, last=last, loss=loss, reduction=reduction),
            partial(loss_of_textbook, last=last, loss=loss, reduction=reduction),
        )
        for loss, last in (("binary_cross_entropy", "sigmoid"), ("mse", "identity"), ("mse", "sigmoid"))
        for reduction in ("mean", "sum", "none")
    },
}
every_case = pytest.mark.parametrize(("op", "theirs"), CASES.values(), ids=list(CASES))


@every_case
def test_a_network_has_every_property_of_the_checker(op: Op, theirs: Op) -> None:
    tensors = inputs()
    before_relu = torch.tanh(functional.linear(tensors[0], tensors[1], tensors[4]))
    assert functional.linear(before_relu, tensors[2], tensors[5]).abs().min() > 1e-6, "too near the kink to compare"
    checks.check_value_and_gradients(op, theirs, tensors)
    checks.check_laws(op, theirs, tensors, skip=NEED_OTHER_TARGETS)


@pytest.mark.parametrize(("op", "theirs"), list(CASES.values())[1:8:3], ids=list(CASES)[1:8:3])
def test_a_network_compiles_into_one_graph(op: Op, theirs: Op) -> None:
    checks.check_laws(op, theirs, inputs(), quick=False, only=["compiled"])


def test_the_output_returned_with_the_loss_is_the_output_of_the_network() -> None:
    x, *rest = inputs()
    for last in ("sigmoid", "tanh"):
        _, output = F.mlp_loss(x, TARGET, rest[:3], rest[3:], [*HIDDEN, last], "mse")
        torch.testing.assert_close(output, ours(x, *rest, last=last))


def test_a_probability_outside_its_range_is_refused_with_and_without_a_class_weight() -> None:
    x, weight = torch.full((1, 1), 0.5), torch.ones(1, 1)
    for p in (None, torch.ones(1)):
        with pytest.raises(RuntimeError, match="between 0 and 1"):
            F.mlp_loss(x, torch.full((1, 1), 3.0), [weight], None, "identity", pos_weight=p)
        with pytest.raises(RuntimeError, match="between 0 and 1"):
            F.mlp_loss(x * 4, torch.ones(1, 1), [weight], None, "identity", pos_weight=p)


@pytest.mark.parametrize(
    ("weights", "biases", "activations", "loss", "message"),
    [
        ([], None, "sigmoid", "mse", "at least one layer"),
        ([torch.ones(1, 3)], [None, None], "sigmoid", "mse", "1 weights, 2 biases and 1 activations"),
        ([torch.ones(1, 3)], None, ["relu", "relu"], "mse", "1 weights, 1 biases and 2 activations"),
        ([torch.ones(1, 3)], None, "softmax", "mse", "activation is 'softmax'"),
        ([torch.ones(1, 3)], None, "sigmoid", "hinge", "unknown loss 'hinge': choose one of binary_cross_entropy, mse"),
    ],
)
def test_arguments_that_do_not_fit_together_raise_a_value_error_that_says_why(
    weights: list[Tensor], biases: list[None] | None, activations: str | list[str], loss: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        F.mlp_loss(torch.ones(2, 3), torch.ones(2, 1), weights, biases, activations, loss)
