"""Every example of the page on checking a backward fails in the property under whose heading it stands."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import torchnn
from torchnn.check import check_backward
from torchnn.check.findings import PROPERTIES
from torchnn.check.operations import normal

PAGE = (Path(torchnn.__file__).parent.parent / "docs" / "checking-a-backward.md").read_text()
LESSONS = dict(re.findall(r"^### (.+?)\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL))
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
WITHOUT_EXAMPLE = {"time_taken, peak_memory"}
REFERENCES: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "Square": (torch.square, [(5, 4)]),
    "Scale": (torch.mul, [(5, 3), (3,)]),
}


def right_ones() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(CODE.findall(PAGE.split("## What has to be right")[1])[0], names)
    return names


def test_every_property_has_a_lesson() -> None:
    taught = {name for heading in LESSONS for name in heading.split(", ")}
    assert taught == PROPERTIES.keys() - {"runs"}
    assert {name for name, text in LESSONS.items() if not CODE.search(text)} == WITHOUT_EXAMPLE
    assert all("**Mend:**" in text for name, text in LESSONS.items() if name not in WITHOUT_EXAMPLE)


@pytest.mark.parametrize("name", sorted(LESSONS.keys() - WITHOUT_EXAMPLE))
def test_the_example_fails_in_the_row_that_it_is_for(name: str) -> None:
    names = right_ones()
    exec(CODE.findall(LESSONS[name])[0], names)
    wrong = names["Wrong"]
    reference, shapes = REFERENCES[
        "Scale" if issubclass(type(wrong), type) and "Scale" in str(wrong.__mro__) else "Square"
    ]
    reference, shapes = names.get("reference", reference), names.get("inputs", shapes)
    report = check_backward(wrong, reference, normal(*shapes), only=[name])
    assert report.failures == [name], str(report)


@pytest.mark.parametrize("name", REFERENCES)
def test_the_right_ones_are_right(name: str) -> None:
    reference, shapes = REFERENCES[name]
    assert not check_backward(right_ones()[name], reference, normal(*shapes)).failures


def test_the_code_for_a_test_suite_runs() -> None:
    names = right_ones()
    exec(CODE.findall(PAGE)[0], names)
    assert names["report"].ok
