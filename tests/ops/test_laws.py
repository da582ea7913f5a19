"""The laws of a hand-written backward, for every operation."""

import pytest
from torch import Tensor

from tests import checks
from tests.check.planted import apply
from tests.check.planted.autograd import FrozenInputsComputed
from tests.check.planted.formulas import ErrorOf1e4
from tests.ops.table import CASES, DENSE, Case, dense_inputs

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every_case
def test_value_and_gradients_equal_autograd_to_the_last_digits(case: Case) -> None:
    checks.check_value_and_gradients(case.op, case.theirs, case.inputs())


@every_case
def test_frozen_inputs_cost_nothing(case: Case) -> None:
    checks.check_frozen_inputs_cost_nothing(case.op, case.inputs(), case.is_product)


@every_case
def test_every_property_of_the_checker(case: Case) -> None:
    checks.check_laws(case.op, case.theirs, case.inputs())
    if case.textbook:
        checks.check_laws(case.op, case.textbook, case.inputs(), only=["second_order", "second_order_in_graph"])


@pytest.mark.parametrize("case", DENSE[-4:], ids=lambda case: case.name)
def test_a_dense_layer_with_activation_compiles_into_one_graph(case: Case) -> None:
    """The other operations have an equivalent in torch, and `conformance/test_compile` compiles them."""
    checks.check_laws(case.op, case.theirs, case.inputs(), quick=False, only=["compiled"])


def test_planted_errors_are_caught() -> None:
    def layer(*tensors: Tensor) -> Tensor:
        return DENSE[-3].theirs(*tensors)

    with pytest.raises(AssertionError, match="gradient"):
        checks.check_value_and_gradients(apply(ErrorOf1e4), layer, dense_inputs())
    with pytest.raises(AssertionError, match="products where"):
        checks.check_frozen_inputs_cost_nothing(apply(FrozenInputsComputed), dense_inputs(), (True, True, False))
    with pytest.raises(AssertionError, match="FAIL"):
        checks.check_laws(apply(ErrorOf1e4), layer, dense_inputs())
