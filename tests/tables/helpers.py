"""Small tables in files, and functions to read them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from torchnn.data.module import TabularDataModule
from torchnn.tables import TableError

ROWS = 40


def lines(value: Callable[[int], Any], head: str = "x,c,y", rows: int = ROWS) -> list[str]:
    """A header and rows."""
    return [head, *(str(value(row)) for row in range(rows))]


def good(row: int) -> str:
    """A row of a table without any problem: a number, a category, and a target."""
    return f"{row * row % 17 + 0.5},{('red', 'blue', 'green')[row % 3]},{row * 7 % 10 // 5}"


def with_column(value: Callable[[int], Any], **others: Any) -> str:
    """The good table as CSV with other values in column c."""
    return text(lines(lambda row: good(row).replace(good(row).split(",")[1], str(value(row))), **others))


def with_target(value: Callable[[int], Any]) -> str:
    """The good table as CSV with other values in column y."""
    return text(lines(lambda row: f"{good(row).rsplit(',', 1)[0]},{value(row)}"))


def text(rows: Sequence[str], end: str = "\n") -> str:
    return end.join(rows) + end


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Any, **options: Any) -> TabularDataModule:
    return TabularDataModule(path=path if not isinstance(path, Path) else str(path), **{"target": "y"} | options)


def refusal(path: Any, **options: Any) -> str:
    """The message that refuses a table, which must be one sentence on one line."""
    with pytest.raises(ValueError, match=r".") as caught:
        read(path, **options)
    assert type(caught.value) in (TableError, ValueError)
    return one_sentence(str(caught.value))


def one_sentence(sentence: str) -> str:
    assert "\n" not in sentence
    assert sentence.endswith((".", "?")), sentence
    return sentence


def by_sentence(value: object) -> str:
    """Name a test case after its expected sentence instead of its contents."""
    return value[:50] if isinstance(value, str) and value.count("\n") == 0 and len(value) < 200 else "case"
