"""Negative controls: each planted mistake is caught by the check that is named for it; the correct one passes all."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Function

from tests import checks, reference
from tests.cases import leaf
from tests.checks import Op
from tests.ops import planted
from tests.ops.table import dense_inputs

twin = partial(reference.dense_activation, activation="sigmoid")
Check = Callable[[Op], Any]


def square_inputs() -> list[Tensor]:
    """As many inputs as neurons, which hides a transpose."""
    return [leaf(5, 4), leaf(4, 4), leaf(4)]


CHECKS: dict[str, Check] = {
    "value_and_gradients": lambda op: checks.check_value_and_gradients(op, twin, square_inputs()),
    "strides": lambda op: checks.check_strides(op, twin, dense_inputs()),
    "raw_backward": lambda op: checks.check_raw_backward(op, dense_inputs()),
    "nothing_is_mutated": lambda op: checks.check_nothing_is_mutated(op, dense_inputs()),
    "frozen_inputs_cost_nothing": lambda op: checks.check_frozen_inputs_cost_nothing(
        op, dense_inputs(), (True, True, False)
    ),
    "backward_twice": lambda op: checks.check_backward_twice(op, dense_inputs()),
    "second_order": lambda op: checks.check_second_order(op, twin, dense_inputs()),
    "forward_mode": lambda op: checks.check_forward_mode(op, twin, dense_inputs()),
    "vmap": lambda op: checks.check_vmap(op, twin, dense_inputs()),
    "saved_tensors_are_seen_by_hooks": lambda op: checks.check_saved_tensors_are_seen_by_hooks(op, dense_inputs()),
    "autocast": lambda op: checks.check_autocast(op, twin, dense_inputs()),
    "backward_inside_autocast_keeps_dtypes": lambda op: checks.check_backward_inside_autocast_keeps_dtypes(
        op, dense_inputs()
    ),
    "compiles": lambda op: checks.check_compiles(op, dense_inputs()),
}

# The mistake, the check that catches it, and what it says.
CAUGHT: list[tuple[type[Function], str, type[Exception], str]] = [
    (planted.TransposeForgotten, "value_and_gradients", AssertionError, "gradient"),
    (planted.ErrorOf1e4, "value_and_gradients", AssertionError, "gradient"),
    (planted.FirstElementForAll, "value_and_gradients", AssertionError, "gradient"),
    (planted.StridesIgnored, "strides", AssertionError, "transposed|sliced|cat"),
    (planted.BiasGradientNotSummed, "raw_backward", AssertionError, r"\[5, 4\].* for .*\[4\]"),
    (planted.IncomingGradientChanged, "nothing_is_mutated", AssertionError, "incoming gradient was changed"),
    (planted.FrozenInputsComputed, "frozen_inputs_cost_nothing", AssertionError, "products where"),
    (planted.SecondBackwardDiffers, "backward_twice", AssertionError, "second backward differs"),
    (planted.IntermediateSaved, "second_order", AssertionError, "second order"),
    (planted.IntermediateSaved, "saved_tensors_are_seen_by_hooks", AssertionError, "intermediate was saved"),
    (planted.KeptBesideTheHooks, "saved_tensors_are_seen_by_hooks", AssertionError, "kept beside the hooks"),
    (planted.JvpDropsTheBias, "forward_mode", AssertionError, "jvp"),
    (planted.VmapOverTheWrongAxis, "vmap", AssertionError, "vmap"),
    (planted.BranchOnValues, "vmap", RuntimeError, "vmap"),
    (planted.AutocastIgnored, "autocast", AssertionError, "where the twin gives"),
    (planted.DtypeOfAutocast, "backward_inside_autocast_keeps_dtypes", AssertionError, "gradient torch.bfloat16"),
    (planted.CorrectForwardMode, "compiles", torch._dynamo.exc.Unsupported, "jvp"),
]


@pytest.mark.parametrize(("function", "check", "error", "message"), CAUGHT, ids=lambda v: getattr(v, "__name__", None))
def test_the_planted_mistake_is_caught(
    function: type[Function], check: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        CHECKS[check](planted.applied(function))


@pytest.mark.parametrize("check", CHECKS)
def test_the_correct_one_passes(check: str) -> None:
    function = planted.CorrectForwardMode if check == "forward_mode" else planted.Correct
    if check == "autocast":  # a Function is cast by the door before it, as in the library
        CHECKS[check](lambda *tensors: planted.applied(function)(*map(lowered, tensors)))
    else:
        CHECKS[check](planted.applied(function))


def lowered(t: Tensor) -> Tensor:
    return t.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else t


def test_every_check_has_a_mistake_that_it_catches() -> None:
    names = {name.removeprefix("check_") for name in dir(checks) if name.startswith("check_")}
    assert names == CHECKS.keys() == {check for _, check, _, _ in CAUGHT}
