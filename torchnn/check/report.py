"""The result of a check: one row for each property, as text, JSON, Markdown, or an HTML page."""

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchnn.check.findings import PROPERTIES

if TYPE_CHECKING:
    from jinja2 import Template

PASS, FAIL, NOT_APPLICABLE = "PASS", "FAIL", "N-A"
STATUSES = PASS, FAIL, NOT_APPLICABLE
MARKDOWN = {PASS: "✓", FAIL: "**FAIL**", NOT_APPLICABLE: "–"}
HEADINGS = ("property", "status", "ulp", "relative", "notes")
WIDTH = 120


@dataclass(frozen=True, kw_only=True)
class Row:
    """The result for one property.

    Attributes:
        property: its name, as `only` and `skip` take it.
        status: "PASS", "FAIL", or "N-A" where the property does not apply or is not judged; the message says why.
        worst_ulp: the largest difference, in units in the last place of the largest element; None if nothing was
            compared.
        worst_relative: the largest norm of a difference, divided by the norm of the expected tensor.
        message: for a failure, what is wrong and the smallest inputs that show it.
        cause: for a failure, its likely cause.
        fix: for a failure, what to change.
    """

    property: str
    status: str
    worst_ulp: float | None = None
    worst_relative: float | None = None
    message: str = ""
    cause: str = ""
    fix: str = ""

    def notes(self) -> list[str]:
        """The message, the likely cause and the fix, a line each."""
        lines = (self.message, f"Likely cause: {self.cause}", f"Fix: {self.fix}")
        return [line for line, text in zip(lines, (self.message, self.cause, self.fix), strict=True) if text]

    def cells(self) -> tuple[str, str, str, str]:
        """The other columns of the table: property, status, ulp and relative error."""
        return self.property, self.status, format_error(self.worst_ulp), format_error(self.worst_relative)


@dataclass
class Report:
    """The result of a check.

    Attributes:
        subject: name of what was checked.
        rows: one for each property, in the order in which they were checked.
        seed: repeats the same inputs.
        seconds: how long the check took.
    """

    subject: str
    rows: list[Row] = field(default_factory=list)
    seed: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether no property fails."""
        return not self.failures

    @property
    def failures(self) -> list[str]:
        """The names of the failing properties."""
        return [row.property for row in self.rows if row.status == FAIL]

    def __getitem__(self, name: str) -> Row:
        """The row of a property."""
        return {row.property: row for row in self.rows}[name]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data. Infinity becomes the string "inf", because JSON has no number for it."""
        rows = [{name: _plain(value) for name, value in vars(row).items()} for row in self.rows]
        return {"subject": self.subject, "ok": self.ok, "failures": self.failures, "seed": self.seed, "rows": rows}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @property
    def verdict(self) -> str:
        """The number of rows with each status, and the duration."""
        counts = {status: sum(row.status == status for row in self.rows) for status in STATUSES}
        return ", ".join(f"{count} {status}" for status, count in counts.items()) + f", {self.seconds:.1f} s"

    def __str__(self) -> str:
        cells = [HEADINGS[:-1], *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        notes = [[HEADINGS[-1]], *(row.notes() for row in self.rows)]
        lines = [line for c, n in zip(cells, notes, strict=True) for line in _text_lines(c, widths, n)]
        return "\n".join([self.subject, "", *lines, "", self.verdict]) + "\n"

    def _repr_html_(self) -> str:
        """The table that a notebook shows."""
        return str(getattr(_template().module, "table")(self))  # noqa: B009


def format_error(value: float | None) -> str:
    """The size of an error, to three digits."""
    return "" if value is None else f"{value:.3g}"


def markdown(reports: Sequence[Report]) -> str:
    """All reports in one table, with a line for each judged property and a column for each subject.

    ✓ stands for PASS and – for N-A; the reasons for – and the messages of failures follow below the table.
    """
    marks = [{row.property: MARKDOWN[row.status] for row in report.rows} for report in reports]
    names = [name for name, prop in PROPERTIES.items() if prop.is_judged and any(name in column for column in marks)]
    lines = [
        f"| property | {' | '.join(report.subject for report in reports)} |",
        f"|---|{'---|' * len(reports)}",
        *(f"| {name} | {' | '.join(column.get(name, '') for column in marks)} |" for name in names),
    ]
    reasons: dict[str, list[str]] = {}
    for report in reports:
        for row in report.rows:
            if row.property in names and row.status != PASS:
                reasons.setdefault(f"{row.property}: {row.message}", []).append(report.subject)
    notes = [f"- {reason} ({', '.join(subjects)})" for reason, subjects in reasons.items()]
    return "\n".join([*lines, "", *notes]) + "\n"


def html_page(reports: Sequence[Report]) -> str:
    """A self-contained HTML page."""
    return _template().render(reports=reports)


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    return environment.get_template("report.html")


def _text_lines(cells: Sequence[str], widths: Sequence[int], notes: Sequence[str]) -> Iterator[str]:
    """One row of the table; notes that are too long continue in their column on the next lines."""
    name, status, *numbers = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    columns = [name, status, *(cell.strip().rjust(width) for cell, width in zip(numbers, widths[2:], strict=True))]
    start = "  ".join(columns)
    left = max(WIDTH - len(start) - 2, 20)
    wrapped = [line for note in notes for line in textwrap.wrap(note, left, break_long_words=False)]
    for line in wrapped or [""]:
        yield f"{start}  {line}".rstrip()
        start = " " * len(start)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
