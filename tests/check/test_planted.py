"""Every planted error fails in its own rows and no others; correct code fails nowhere."""

import pytest

from tests.check.controls import STYLES, TORCH, Control
from tests.check.planted import PLANTED, Planted
from torchnn.check import Report, check_backward
from torchnn.check.findings import PROPERTIES
from torchnn.check.report import NOT_APPLICABLE

QUICK = {prop.name for prop in PROPERTIES.values() if not prop.is_slow}
CONTROLS = [*STYLES, *TORCH]


def test_there_are_at_least_30_planted_errors() -> None:
    assert len(PLANTED) >= 30


def test_every_judged_property_has_a_planted_error() -> None:
    caught = {name for planted in PLANTED for name in planted.failing}
    assert {p.name for p in PROPERTIES.values() if p.is_judged} == caught


@pytest.mark.parametrize("planted", PLANTED, ids=lambda one: one.name)
def test_a_planted_error_fails_in_its_own_rows_and_in_no_other_quick_row(planted: Planted) -> None:
    only = QUICK | planted.failing
    report = check_backward(planted.target, planted.reference, planted.make_inputs, only=only)
    assert set(report.failures) == planted.failing, str(report)
    for name in planted.failing:
        row = report[name]
        assert all((row.message, row.cause, row.fix))


@pytest.mark.slow
@pytest.mark.parametrize("planted", [one for one in PLANTED if one.failing - QUICK], ids=lambda one: one.name)
def test_a_planted_error_of_a_slow_row_fails_in_no_other_row_at_all(planted: Planted) -> None:
    report = check_backward(planted.target, planted.reference, planted.make_inputs)
    assert set(report.failures) == planted.failing, str(report)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda one: one.name)
def test_correct_code_fails_in_no_quick_row(control: Control) -> None:
    report = check_backward(control.target, control.reference, control.make_inputs, only=QUICK | control.not_applicable)
    assert not report.failures, str(report)
    assert not_applicable(report) == control.not_applicable, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS, ids=lambda one: one.name)
def test_correct_code_fails_in_no_row(control: Control) -> None:
    report = check_backward(control.target, control.reference, control.make_inputs)
    assert not report.failures, str(report)
    assert not_applicable(report) == control.not_applicable, str(report)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda one: one.name)
def test_correct_code_fails_nowhere_against_central_differences(control: Control) -> None:
    report = check_backward(control.target, None, control.make_inputs, quick=True)
    assert not report.failures, str(report)
    assert not_applicable(report) == (control.not_applicable & QUICK) | {"value"}, str(report)


def not_applicable(report: Report) -> set[str]:
    """The properties that do not apply, each with a reason."""
    rows = [row for row in report.rows if row.status == NOT_APPLICABLE and PROPERTIES[row.property].is_judged]
    assert all(row.message for row in rows)
    return {row.property for row in rows}
