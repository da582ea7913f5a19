"""Every example in docs/checking-a-backward.md fails in the property of its heading, and only there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import torchnn
from torchnn.check import check_backward
from torchnn.check.findings import PROPERTIES
from torchnn.check.operations import normal_inputs

ROOT = Path(torchnn.__file__).parent.parent
PAGE = (ROOT / "docs" / "checking-a-backward.md").read_text()
LESSONS = dict(re.findall(r"^### (.+?)\n(.*?)(?=^### |^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
WITHOUT_EXAMPLE = {"time_taken, peak_memory"}
REFERENCES: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "Square": (torch.square, [(5, 4)]),
    "Scale": (torch.mul, [(5, 3), (3,)]),
}


def correct_functions() -> dict[str, Any]:
    """The two Functions that the examples change."""
    names: dict[str, Any] = {}
    exec(CODE.findall(PAGE.split("## What has to be right")[1])[0], names)
    return names


def test_the_readme_links_to_the_page() -> None:
    assert "docs/checking-a-backward.md" in (ROOT / "README.md").read_text()


def test_every_property_has_a_lesson() -> None:
    taught = {name for heading in LESSONS for name in heading.split(", ")}
    assert taught == PROPERTIES.keys() - {"runs"}
    assert {name for name, text in LESSONS.items() if not CODE.search(text)} == WITHOUT_EXAMPLE
    assert all("**Fix:**" in text for name, text in LESSONS.items() if name not in WITHOUT_EXAMPLE)


@pytest.mark.parametrize("name", sorted(LESSONS.keys() - WITHOUT_EXAMPLE))
def test_the_example_of_a_lesson_fails_in_its_property(name: str) -> None:
    names = correct_functions()
    exec(CODE.findall(LESSONS[name])[0], names)
    wrong = names["Wrong"]
    is_scale = isinstance(wrong, type) and issubclass(wrong, names["Scale"])
    reference, shapes = REFERENCES["Scale" if is_scale else "Square"]
    reference, shapes = names.get("reference", reference), names.get("inputs", shapes)
    report = check_backward(wrong, reference, normal_inputs(*shapes), only=[name])
    assert report.failures == [name], str(report)


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["quick", "full"])
@pytest.mark.parametrize("name", REFERENCES)
def test_the_correct_functions_pass(name: str, quick: bool) -> None:
    reference, shapes = REFERENCES[name]
    report = check_backward(correct_functions()[name], reference, normal_inputs(*shapes), quick=quick)
    assert not report.failures, str(report)


def test_the_code_for_a_test_suite_runs() -> None:
    names = correct_functions()
    exec(CODE.findall(PAGE)[0], names)
    assert names["report"].ok
