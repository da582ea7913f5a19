"""`check_backward` itself: the choice of properties, modules, seeds, wrong usage, and what it leaves unchanged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import torchnn
from tests.check.planted import Square, square
from torchnn.check import Report, WrongUseError, assert_backward, check_backward
from torchnn.check.findings import PROPERTIES
from torchnn.check.operations import OPERATIONS, Operation, normal_inputs
from torchnn.check.report import markdown
from torchnn.check.tolerances import measure_error

pytest_plugins = ["torchnn.check.pytest_plugin"]
Z = normal_inputs((5, 4))
PAGE = (Path(torchnn.__file__).parent.parent / "docs" / "checking-a-backward.md").read_text()


def half(z: Tensor) -> Tensor:
    return Square.apply(z) / 2  # type: ignore[no-any-return, no-untyped-call]


# --- torchnn's own operations -----------------------------------------------------------------------------------------


def check_operation(operation: Operation, quick: bool) -> Report:
    report = check_backward(operation.call, operation.reference, operation.make_inputs, quick=quick)
    report.subject = operation.name
    assert not report.failures, str(report)
    return report


def cells_of(lines: list[str]) -> list[list[str]]:
    """The cells of a Markdown table."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [rows[0], *rows[2:]]


def assert_documented(report: Report) -> dict[str, str]:
    """Assert that the table in the docs agrees with a report; return the documented column of its subject."""
    lines = PAGE.split("<!-- torchnn check -->")[1].split("<!-- end of torchnn check -->")[0].strip().splitlines()
    table = cells_of(lines)
    column = table[0].index(report.subject)
    documented = {row[0]: row[column] for row in table[1:]}
    found = dict(cells_of(markdown([report]).splitlines())[1:])
    assert found.items() <= documented.items()
    for row in report.rows:
        if row.status == "N-A" and PROPERTIES[row.property].is_judged:
            reason = f"- {row.property}: {row.message} ("
            assert any(line.startswith(reason) and report.subject in line for line in lines), reason
    return documented


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_own_operations_pass_every_quick_property_as_documented(operation: Operation) -> None:
    assert_documented(check_operation(operation, quick=True))


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_own_operations_pass_every_property_as_documented(operation: Operation) -> None:
    """If the table in the docs is outdated: put the output of `torchnn check --markdown` between its two comments."""
    report = check_operation(operation, quick=False)
    judged = {name for name, prop in PROPERTIES.items() if prop.is_judged}
    assert assert_documented(report).keys() == judged


def test_a_small_own_operation_passes_the_slow_properties_and_all_state_is_restored() -> None:
    sigmoid = next(operation for operation in OPERATIONS if operation.name == "sigmoid")
    forward = torchnn.ops.activation.SigmoidFunction.forward
    random, dtype, threads = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    with torch.no_grad():
        check_operation(sigmoid, quick=False)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert torch.equal(random, torch.get_rng_state())
    assert (dtype, threads) == (torch.get_default_dtype(), torch.get_num_threads())
    assert torchnn.ops.activation.SigmoidFunction.forward is forward


# --- which properties are checked -------------------------------------------------------------------------------------


def test_the_property_that_prevents_another_from_being_judged_fails_the_check() -> None:
    report = check_backward(half, torch.square, Z, only=["second_order"])
    assert report.failures == ["value"]
    assert report["second_order"].status == "N-A"
    assert report["second_order"].message == "not judged, because value fails"


def test_a_call_that_raises_fails_once() -> None:
    report = check_backward(lambda z: torch.zeros(3) @ z, torch.square, Z)
    assert report.failures == ["runs"]
    assert "RuntimeError" in report["runs"].message


def test_a_call_without_a_graph_fails_once() -> None:
    report = check_backward(lambda z: z.detach() ** 2, torch.square, Z)
    assert report.failures == ["runs"]


def test_skip_and_quick_leave_properties_out() -> None:
    report = check_backward(square, None, Z, quick=True, skip=["gradient"])
    names = [row.property for row in report.rows]
    assert names == [p.name for p in PROPERTIES.values() if not p.is_slow and p.name != "gradient"]


def test_an_error_in_the_second_call_only_is_found_unless_quick() -> None:
    def calls(dtype: Any, device: Any, generator: torch.Generator) -> list[tuple[Tensor, ...]]:
        return [(torch.ones(3, dtype=dtype),), (torch.full((2,), 3.0, dtype=dtype),)]

    slow = [prop.name for prop in PROPERTIES.values() if prop.is_slow]
    report = check_backward(
        lambda z: z * z.detach().clamp(max=2), lambda z: z * z.clamp(max=2).detach(), calls, skip=slow
    )
    assert report.ok, str(report)
    report = check_backward(lambda z: z * z.detach(), lambda z: z * z.clamp(max=2).detach(), calls, only=["gradient"])
    assert report.failures == ["value"]
    assert check_backward(
        lambda z: z * z.detach(), lambda z: z * z.clamp(max=2).detach(), calls, only=["gradient"], quick=True
    ).ok


def test_the_seed_decides_the_inputs_of_all_calls() -> None:
    seen: list[Tensor] = []

    def several(dtype: Any, device: Any, generator: torch.Generator) -> list[tuple[Tensor, ...]]:
        calls: list[tuple[Tensor, ...]] = [(torch.randn(n, 2, dtype=dtype, generator=generator),) for n in (3, 4)]
        seen.append(calls[0][0])
        return calls

    check_backward(square, torch.square, several, only=["value"], seed=5)
    first = seen[0]
    seen.clear()
    check_backward(square, torch.square, several, only=["value"], seed=5)
    assert torch.equal(seen[0], first)
    seen.clear()
    check_backward(square, torch.square, several, only=["value"], seed=6)
    assert not torch.equal(seen[0], first)


# --- targets ----------------------------------------------------------------------------------------------------------


def test_assert_backward_raises_an_error_that_names_the_failing_property() -> None:
    assert assert_backward(square, torch.square, Z, quick=True).ok
    with pytest.raises(AssertionError, match=r"value\s+FAIL"):
        assert_backward(half, torch.square, Z, quick=True)


def test_the_pytest_fixture_checks_a_backward(assert_backward: Any) -> None:
    assert assert_backward(square, torch.square, Z, only=["gradient"]).ok


def test_the_parameters_of_a_module_are_checked_too() -> None:
    ours, theirs = torchnn.DenseSigmoid(3, 4), nn.Linear(3, 4)
    reference = nn.Sequential(theirs, nn.Sigmoid())
    report = check_backward(ours, reference, normal_inputs((5, 3)), quick=True)
    assert report.ok, str(report)
    assert report.subject == "DenseSigmoid"
    with pytest.raises(WrongUseError, match="parameters of different shapes"):
        check_backward(ours, nn.Linear(4, 4), normal_inputs((5, 3)))


def test_a_loss_of_class_numbers_passes() -> None:
    def inputs(dtype: Any, device: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(4, 3, dtype=dtype, generator=generator), torch.tensor([0, 2, 1, 1])

    assert check_backward(functional.cross_entropy, None, inputs, quick=True).ok


# --- wrong usage ------------------------------------------------------------------------------------------------------


def test_unknown_properties_are_refused() -> None:
    with pytest.raises(WrongUseError, match=r"only contains 'nothing', which is not a property: choose from runs, raw"):
        check_backward(square, None, Z, only=["nothing"])
    with pytest.raises(WrongUseError, match=r"skip contains 'gradeint', which is not a property"):
        check_backward(square, None, Z, skip=["gradeint"])


def test_an_empty_choice_of_properties_is_refused() -> None:
    with pytest.raises(WrongUseError, match="nothing would be checked"):
        check_backward(torch.square, None, Z, only=[])


@pytest.mark.parametrize("reference", [square, Square, lambda z: square(z) * 1], ids=["itself", "class", "around it"])
def test_a_reference_that_uses_the_target_is_refused(reference: Any) -> None:
    with pytest.raises(WrongUseError, match="the reference uses the same Function as the target"):
        check_backward(square, reference, Z)


def test_missing_inputs_are_refused() -> None:
    with pytest.raises(WrongUseError, match="make_inputs is missing"):
        check_backward(square)


def test_large_inputs_without_a_reference_are_refused() -> None:
    with pytest.raises(WrongUseError, match="make smaller inputs or give a reference"):
        check_backward(square, None, normal_inputs((100, 50)))


@pytest.mark.parametrize(
    ("make_inputs", "message"),
    [
        (lambda dtype, device, generator: (torch.randn(5, 3),), "create the tensors with its dtype argument"),
        (lambda dtype, device, generator: (torch.empty(5, 3, dtype=dtype, device="meta"),), "a tensor on meta"),
        (lambda dtype, device, generator: (torch.ones(3, dtype=dtype), [torch.ones(3)]), "inside a list or dictionary"),
        (lambda dtype, device, generator: 1 / 0, "make_inputs raises ZeroDivisionError: division by zero"),
    ],
)
def test_unusable_inputs_are_refused(make_inputs: Any, message: str) -> None:
    with pytest.raises(WrongUseError, match=message):
        check_backward(torch.square, None, make_inputs)


# --- tolerances -------------------------------------------------------------------------------------------------------


def test_the_tolerance_is_1e_9_in_float64_and_the_error_of_the_reference_elsewhere() -> None:
    right = torch.randn(5, 4, dtype=torch.double)
    assert measure_error(right * (1 + 1e-10), right).is_allowed
    assert not measure_error(right * (1 + 1e-8), right).is_allowed
    assert measure_error(right.float(), right, error_of_reference=1e-7).is_allowed
    assert not measure_error(right.float() * (1 + 1e-5), right, error_of_reference=1e-7).is_allowed


def test_nan_is_always_wrong_unless_the_reference_is_nan() -> None:
    right = torch.ones(3, dtype=torch.double)
    given = torch.tensor([1, torch.nan, 1], dtype=torch.double)
    assert not measure_error(given, right, error_of_reference=1e30).is_allowed
    assert measure_error(given, given).is_allowed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda t: t.T, "the transpose"),
        (lambda t: -t, "-1 times"),
        (lambda t: t / 5, "0.2 times"),
        (lambda t: 0 * t, "it is zero"),
        (lambda t: t[:2], "its shape is (2, 4) and should be (4, 4)"),
    ],
)
def test_a_wrong_gradient_is_described_by_its_relation_to_the_right_one(wrong: Any, message: str) -> None:
    right = torch.randn(4, 4, dtype=torch.double)
    assert message in measure_error(wrong(right), right).looks_like
