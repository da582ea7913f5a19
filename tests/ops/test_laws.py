"""The laws of a hand-written backward, for every operation."""

import pytest

from tests import checks
from tests.ops.table import CASES, DENSE, LOSSES, WEIGHTS, Case

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every_case
def test_value_and_gradients_equal_autograd(case: Case) -> None:
    checks.check_value_and_gradients(case.op, case.twin, case.inputs())


@every_case
def test_any_stride_of_inputs_and_incoming_gradient(case: Case) -> None:
    checks.check_strides(case.op, case.twin, case.inputs())


@every_case
def test_backward_returns_the_shape_and_dtype_of_each_input(case: Case) -> None:
    checks.check_raw_backward(case.op, case.inputs())


@every_case
def test_nothing_is_mutated(case: Case) -> None:
    checks.check_nothing_is_mutated(case.op, case.inputs())


@every_case
def test_frozen_inputs_cost_nothing(case: Case) -> None:
    checks.check_frozen_inputs_cost_nothing(case.op, case.inputs(), case.is_product)


@every_case
def test_backward_twice_gives_the_same(case: Case) -> None:
    checks.check_backward_twice(case.op, case.inputs())


@every_case
def test_second_order_inside_a_larger_graph(case: Case) -> None:
    checks.check_second_order(case.op, case.textbook or case.twin, case.inputs())


@every_case
def test_forward_mode(case: Case) -> None:
    checks.check_forward_mode(case.op, case.twin, case.inputs())


@every_case
def test_vmap_over_each_argument(case: Case) -> None:
    checks.check_vmap(case.op, case.twin, case.inputs())


@every_case
def test_only_inputs_and_outputs_are_saved_and_hooks_see_them(case: Case) -> None:
    checks.check_saved_tensors_are_seen_by_hooks(case.op, case.inputs(), WEIGHTS)


@every_case
def test_autocast_dtypes(case: Case) -> None:
    checks.check_autocast(case.op, case.twin, case.inputs())


@every_case
def test_backward_inside_autocast_keeps_dtypes(case: Case) -> None:
    checks.check_backward_inside_autocast_keeps_dtypes(case.op, case.inputs())


@pytest.mark.parametrize("case", [*DENSE[:1], *DENSE[-4:], *LOSSES[::3]], ids=lambda case: case.name)
def test_compiles_into_one_graph(case: Case) -> None:
    checks.check_compiles(case.op, case.inputs())
