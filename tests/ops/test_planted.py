"""Negative controls: each planted mistake is caught by the check that is named for it; the correct one passes all."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.autograd import Function

from tests import checks, reference
from tests.ops import planted
from tests.ops.table import dense_inputs

twin = partial(reference.dense_activation, activation="sigmoid")
products = (True, True, False)

CAUGHT_BY: list[tuple[type[Function], Callable[..., Any]]] = [
    (planted.TransposeForgotten, lambda op: checks.check_value_and_gradients(op, twin, dense_inputs())),
    (planted.ErrorOf1e4, lambda op: checks.check_value_and_gradients(op, twin, dense_inputs())),
    (planted.FirstElementForAll, lambda op: checks.check_value_and_gradients(op, twin, dense_inputs())),
    (planted.StridesIgnored, lambda op: checks.check_strides(op, twin, dense_inputs())),
    (planted.BiasGradientNotSummed, lambda op: checks.check_raw_backward(op, dense_inputs())),
    (planted.IncomingGradientChanged, lambda op: checks.check_nothing_is_mutated(op, dense_inputs())),
    (planted.FrozenInputsComputed, lambda op: checks.check_frozen_inputs_cost_nothing(op, dense_inputs(), products)),
    (planted.IntermediateSaved, lambda op: checks.check_second_order(op, twin, dense_inputs())),
    (planted.IntermediateSaved, lambda op: checks.check_saved_tensors_are_seen_by_hooks(op, dense_inputs())),
    (planted.KeptBesideTheHooks, lambda op: checks.check_saved_tensors_are_seen_by_hooks(op, dense_inputs())),
    (planted.JvpDropsTheBias, lambda op: checks.check_forward_mode(op, twin, dense_inputs())),
    (planted.VmapOverTheWrongAxis, lambda op: checks.check_vmap(op, twin, dense_inputs())),
    (planted.BranchOnValues, lambda op: checks.check_vmap(op, twin, dense_inputs())),
    (planted.DtypeOfAutocast, lambda op: checks.check_backward_inside_autocast_keeps_dtypes(op, dense_inputs())),
    (planted.ForwardModeWhileTraced, lambda op: checks.check_compiles(op, dense_inputs())),
]


@pytest.mark.parametrize(("function", "check"), CAUGHT_BY, ids=lambda value: getattr(value, "__name__", ""))
def test_the_planted_mistake_is_caught(function: type[Function], check: Callable[..., Any]) -> None:
    with pytest.raises((AssertionError, RuntimeError, torch._dynamo.exc.Unsupported)):
        check(planted.applied(function))


@pytest.mark.parametrize("check", dict.fromkeys(check for function, check in CAUGHT_BY[:-2]))
def test_the_correct_one_passes(check: Callable[..., Any]) -> None:
    check(planted.applied(planted.Correct))
