"""`check_backward` itself: reports, choices, modules, and that it leaves the world as it was."""

import json
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
from torchnn.check.judge import judge
from torchnn.check.matrix import markdown
from torchnn.check.operations import OWN, Own, normal

pytest_plugins = ["torchnn.check.pytest_plugin"]
Z = normal((5, 4))


def half(z: Tensor) -> Tensor:
    return Square.apply(z) / 2  # type: ignore[no-any-return, no-untyped-call]


README = (Path(torchnn.__file__).parent.parent / "README.md").read_text()


@pytest.mark.parametrize("own", OWN, ids=lambda own: own.name)
def test_torchnns_own_operations_are_right_and_the_readme_says_so(own: Own) -> None:
    """If the table is old: `torchnn check --markdown`, between its marks in the README."""
    report = check_backward(own.call, own.reference, own.make_inputs)
    assert not report.failures, str(report)
    report.subject = own.name
    lines = README.split("<!-- torchnn check -->")[1].split("<!-- end of torchnn check -->")[0].strip().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    column = table[0].index(own.name)
    shown = {line[0]: line[column] for line in table[1:]}
    given = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown([report]).splitlines()]
    assert shown == {line[0]: line[1] for line in given[2:] if len(line) == 2}
    for row in report.rows:
        if row.status == "N-A" and PROPERTIES[row.property].is_judged:
            assert any(line.startswith(f"- {row.property}: {row.message} (") and own.name in line for line in lines)


def test_a_report_as_text_data_and_page() -> None:
    report = check_backward(half, torch.square, Z, only=["value", "unmutated"])
    assert not report.ok
    assert report.failures == ["value"]
    assert "FAIL" in str(report)
    assert report["unmutated"].status == "PASS"
    assert "0.5 times the right one" in report["value"].message
    assert json.loads(report.to_json()) == report.to_dict()
    page = report._repr_html_()
    assert page.count("<tr") == 3
    assert "<script" not in Report("<script>", report.rows)._repr_html_()


def test_infinite_errors_are_plain_data() -> None:
    report = check_backward(lambda z: z / 0 * z, torch.square, Z, only=["value"])
    assert report["value"].worst_ulp == float("inf")
    assert json.loads(report.to_json())["rows"][0]["worst_ulp"] == "inf"


def test_what_keeps_a_property_from_being_judged_fails_the_check() -> None:
    report = check_backward(half, torch.square, Z, only=["second_order"])
    assert report.failures == ["value"]
    assert report["second_order"].status == "N-A"


def test_a_call_that_raises_fails_once() -> None:
    report = check_backward(lambda z: torch.zeros(3) @ z, torch.square, Z)
    assert report.failures == ["runs"]
    assert "RuntimeError" in report["runs"].message


def test_a_call_without_a_graph_fails_once() -> None:
    report = check_backward(lambda z: z.detach() ** 2, torch.square, Z)
    assert report.failures == ["runs"]


def test_assert_backward_names_what_fails() -> None:
    assert assert_backward(square, torch.square, Z, quick=True).ok
    with pytest.raises(AssertionError, match=r"value[\s\S]*FAIL"):
        assert_backward(half, torch.square, Z, quick=True)


def test_the_fixture_for_test_suites(assert_backward: Any) -> None:
    assert assert_backward(square, torch.square, Z, only=["gradient"]).ok


def test_a_module_and_its_parameters() -> None:
    ours, theirs = torchnn.DenseSigmoid(3, 4), nn.Linear(3, 4)
    reference = nn.Sequential(theirs, nn.Sigmoid())
    report = check_backward(ours, reference, normal((5, 3)), quick=True)
    assert report.ok, str(report)
    assert report.subject == "DenseSigmoid"
    with pytest.raises(WrongUseError, match="parameters of different shapes"):
        check_backward(ours, nn.Linear(4, 4), normal((5, 3)))


def test_several_calls_options_and_a_seed() -> None:
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


def test_only_in_the_second_call() -> None:
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


def test_an_unknown_property() -> None:
    with pytest.raises(WrongUseError, match=r"only names 'nothing', which is no property: choose of runs, raw"):
        check_backward(square, None, Z, only=["nothing"])
    with pytest.raises(WrongUseError, match=r"skip names 'gradeint', which is no property"):
        check_backward(square, None, Z, skip=["gradeint"])


@pytest.mark.parametrize("reference", [square, Square, lambda z: square(z) * 1], ids=["itself", "class", "around it"])
def test_a_reference_that_is_the_target_proves_nothing(reference: Any) -> None:
    with pytest.raises(WrongUseError, match="the reference has the backward that is to be checked"):
        check_backward(square, reference, Z)


def test_no_inputs() -> None:
    with pytest.raises(WrongUseError, match="make_inputs is missing"):
        check_backward(square)


def test_skipped_and_quick() -> None:
    report = check_backward(square, None, Z, quick=True, skip=["gradient"])
    names = [row.property for row in report.rows]
    assert names == [p.name for p in PROPERTIES.values() if not p.is_slow and p.name != "gradient"]


def test_large_inputs_without_a_reference() -> None:
    with pytest.raises(WrongUseError, match="give smaller inputs or a reference"):
        check_backward(square, None, normal((100, 50)))


def test_everything_is_left_as_it_was() -> None:
    before, hooks, forward = torch.get_rng_state(), torch.is_grad_enabled(), Square.forward
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    with torch.no_grad():
        assert check_backward(square, torch.square, Z).ok
        assert not torch.is_grad_enabled()
    assert torch.equal(before, torch.get_rng_state())
    assert (hooks, forward, dtype, threads) == (
        torch.is_grad_enabled(),
        Square.forward,
        torch.get_default_dtype(),
        torch.get_num_threads(),
    )


def test_a_loss_of_classes() -> None:
    def inputs(dtype: Any, device: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(4, 3, dtype=dtype, generator=generator), torch.tensor([0, 2, 1, 1])

    assert check_backward(functional.cross_entropy, None, inputs, quick=True).ok


# --- the judge --------------------------------------------------------------------------------------------------------


def test_what_is_near_enough() -> None:
    right = torch.randn(5, 4, dtype=torch.double)
    assert judge(right * (1 + 1e-10), right).is_allowed
    assert not judge(right * (1 + 1e-8), right).is_allowed
    assert judge(right.float(), right, error_of_reference=1e-7).is_allowed
    assert not judge(right.float() * (1 + 1e-5), right, error_of_reference=1e-7).is_allowed


def test_not_a_number_is_always_wrong() -> None:
    right = torch.ones(3, dtype=torch.double)
    given = torch.tensor([1, torch.nan, 1], dtype=torch.double)
    assert not judge(given, right, error_of_reference=1e30).is_allowed
    assert judge(given, given).is_allowed  # where the reference has none either, nothing is judged


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda t: t.T, "the transpose"),
        (lambda t: -t, "-1 times"),
        (lambda t: t / 5, "0.2 times"),
        (lambda t: 0 * t, "it is zero"),
        (lambda t: t[:2], r"(2, 4) for (4, 4)"),
    ],
)
def test_what_a_wrong_gradient_looks_like(wrong: Any, says: str) -> None:
    right = torch.randn(4, 4, dtype=torch.double)
    assert says in judge(wrong(right), right).looks_like


def test_the_page_is_linked_from_the_readme() -> None:
    assert "docs/checking-a-backward.md" in README
