"""Reports as text, data and HTML, and that `torchnn.check` needs nothing but torch, numpy and jinja2."""

import json
import subprocess
import sys

import pytest
import torch

from tests.check.test_check import Z, half
from torchnn.check import Report, Row, check_backward
from torchnn.check.report import WIDTH, html_page
from torchnn.cli import check as command


@pytest.fixture(scope="module")
def report() -> Report:
    return check_backward(half, torch.square, Z, only=["value", "unmutated", "second_order"])


def assert_has_all_facts(text: str, report: Report) -> None:
    """Assert that the text contains every word of every row."""
    for row in report.rows:
        for cell in (*row.cells(), *row.notes()):
            assert set(cell.split()) <= set(text.split()), cell
    assert report.subject in text
    assert report.verdict in text


def test_a_report_knows_its_failures(report: Report) -> None:
    assert not report.ok
    assert report.failures == ["value"]
    assert report["unmutated"].status == "PASS"
    assert "0.5 times the right one" in report["value"].message


def test_a_report_as_text_has_all_facts_in_120_columns(report: Report) -> None:
    text = str(report)
    assert_has_all_facts(text, report)
    assert max(map(len, text.splitlines())) <= WIDTH
    notes = text.splitlines()[2].index("notes")
    row = next(line for line in text.splitlines() if line.startswith("value"))
    assert row[notes - 1 : notes + 9] == " the value"
    assert "Likely cause: The forward computes another function" in text
    assert "Fix: Compare the formula" in text


def test_a_report_as_json(report: Report) -> None:
    data = json.loads(report.to_json())
    assert data == report.to_dict()
    assert set(data["rows"][0]) == {"property", "status", "worst_ulp", "worst_relative", "message", "cause", "fix"}


def test_infinite_errors_become_strings_in_json() -> None:
    report = Report("f", [Row(property="value", status="FAIL", worst_ulp=float("inf"))])
    assert json.loads(report.to_json())["rows"][0]["worst_ulp"] == "inf"


def test_a_report_as_html_has_a_row_for_each_property_and_escapes_text(report: Report) -> None:
    html = report._repr_html_()
    assert html.count("<tr") == 1 + len(report.rows)
    assert html.count("<table") == 1
    assert "<script" not in Report("<script>", [Row(property="value", status="FAIL", message="<b>")])._repr_html_()
    whole = html_page([report, report])
    assert whole.startswith("<!doctype html>")
    assert whole.count(html.strip()) == 2


@pytest.mark.parametrize("with_rich", [True, False])
def test_the_command_prints_the_same_facts_without_rich(
    with_rich: bool, report: Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not with_rich:
        monkeypatch.setitem(sys.modules, "rich", None)  # importing it raises ImportError
    monkeypatch.setattr(command, "run", lambda options: [report])
    with pytest.raises(SystemExit) as stopped:
        command.main(["torch:square", "--shapes", "(3,)"])
    assert stopped.value.code == 1
    assert_has_all_facts(capsys.readouterr().out, report)


def test_importing_it_and_its_help_load_no_heavy_modules_and_a_check_without_rich_works() -> None:
    script = """
import sys
HEAVY = {"rich", "lightning", "lightning.pytorch", "torchmetrics", "torch._dynamo", "torch.onnx", "scipy", "sklearn"}
import torchnn.check
print(sorted(HEAVY & set(sys.modules)))
from torchnn.cli import main
try:
    main(["check", "--help"])
except SystemExit as end:
    print(end.code, sorted(HEAVY & set(sys.modules)))
sys.modules["rich"] = None
try:
    main(["check", "torch:square", "--shapes", "(3,)", "--only", "gradient"])
except SystemExit as end:
    print(end.code, sorted(name for name in HEAVY & set(sys.modules) if sys.modules[name]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "[]"
    assert "0 []" in lines
    assert lines[-1] == "0 []"
    assert any(line.startswith("gradient") and "PASS" in line for line in lines)
