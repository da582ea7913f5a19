"""Every reference to the derivation names a section that exists, and every Function documents itself in six lines."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from torch.autograd import Function

import torchnn
import torchnn.ops

PACKAGE = Path(torchnn.__file__).parent
REFERENCE = re.compile(r"derivation(?:\.md)?, sections? ([^;)\n.]*)")
SECTIONS = set(re.findall(r"^## (\d+)\. ", (PACKAGE.parent / "docs" / "derivation.md").read_text(), re.MULTILINE))
LINES = ("Forward", "Backward", "Saved", "Shapes", "Raises", "Reference")


def unknown_sections(text: str) -> list[str]:
    sections = [re.sub(r"steps? [\d, and to]+", "", cited) for cited in REFERENCE.findall(text)]
    return [number for cited in sections for number in re.findall(r"\d+", cited) if number not in SECTIONS]


def functions() -> list[type[Function]]:
    """The Functions of `torchnn.ops`, without the variants that are made for the compiler."""
    found = {}
    for info in pkgutil.walk_packages(torchnn.ops.__path__, "torchnn.ops."):
        for name, value in vars(importlib.import_module(info.name)).items():
            if isinstance(value, type) and issubclass(value, Function) and value.__module__ == info.name:
                found[name] = value
    return list(found.values())


def test_every_reference_to_the_derivation_names_a_section_that_exists() -> None:
    assert sorted(map(int, SECTIONS)) == list(range(1, len(SECTIONS) + 1))
    texts = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    assert len([path for path, text in texts.items() if REFERENCE.search(text)]) > 5
    assert not {path: wrong for path, text in texts.items() if (wrong := unknown_sections(text))}


def test_a_section_that_does_not_exist_is_found() -> None:
    assert unknown_sections("Reference: derivation, section 4, step 2; derivation, sections 5 and 99") == ["99"]
    assert unknown_sections("Reference: derivation, sections 3, 77 and 4, steps 20 to 30") == ["77"]


@pytest.mark.parametrize("function", functions(), ids=lambda function: function.__name__)
def test_every_function_documents_itself_in_six_lines(function: type[Function]) -> None:
    text = function.__doc__ or ""
    assert re.findall(r"^ +([A-Z]\w+): +\S", text, re.MULTILINE) == list(LINES)
    assert REFERENCE.search(text.split("Reference:")[1])
