"""Each planted mistake fails in the rows that name it and in no others; what is right fails nowhere."""

import pytest

from tests.check.controls import STYLES, TORCH, Control
from tests.check.planted import PLANTED, Planted
from torchnn.check import Report, check_backward
from torchnn.check.findings import PROPERTIES
from torchnn.check.report import NOT_APPLICABLE


def test_there_are_enough_of_them() -> None:
    assert len(PLANTED) >= 30


@pytest.mark.parametrize("planted", PLANTED, ids=lambda one: one.name)
def test_a_planted_mistake_fails_in_its_rows_and_no_others(planted: Planted) -> None:
    is_slow = any(PROPERTIES[name].is_slow for name in planted.failing)
    report = check_backward(planted.target, planted.reference, planted.make_inputs, quick=not is_slow)
    assert set(report.failures) == planted.failing, str(report)
    for name in planted.failing:
        row = report[name]
        assert all((row.message, row.cause, row.mend))


@pytest.mark.parametrize("control", [*STYLES, *TORCH], ids=lambda one: one.name)
def test_what_is_right_fails_nowhere(control: Control) -> None:
    report = check_backward(control.target, control.reference, control.make_inputs)
    assert not report.failures, str(report)
    assert refused(report) == control.cannot, str(report)


@pytest.mark.parametrize("control", [*STYLES, *TORCH], ids=lambda one: one.name)
def test_what_is_right_fails_nowhere_against_central_differences(control: Control) -> None:
    report = check_backward(control.target, None, control.make_inputs, quick=True)
    assert not report.failures, str(report)
    quick = {name for name in control.cannot if not PROPERTIES[name].is_slow}
    assert refused(report) == quick | {"value"}, str(report)


def refused(report: Report) -> set[str]:
    """What is not applicable, each with its reason."""
    rows = [row for row in report.rows if row.status == NOT_APPLICABLE and PROPERTIES[row.property].is_judged]
    assert all(row.message for row in rows)
    return {row.property for row in rows}


def test_every_property_that_is_judged_has_a_mistake_to_catch() -> None:
    caught = {name for planted in PLANTED for name in planted.failing}
    assert {p.name for p in PROPERTIES.values() if p.is_judged} == caught
