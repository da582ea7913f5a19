"""What a check found: one row a property, as a table, as data and as a page."""

import html
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

PASS, FAIL, NOT_APPLICABLE = "PASS", "FAIL", "N-A"
COLOURS = {PASS: "green", FAIL: "bold red", NOT_APPLICABLE: "dim"}
WIDTH = 120


@dataclass(frozen=True)
class Row:
    """What was found of one property.

    Attributes:
        property: its name, as `only` and `skip` take it.
        status: "PASS", "FAIL", or "N-A" where it does not apply or is not judged; the message says why.
        worst_ulp: largest difference met, in units in the last place of the largest element; None where nothing is
            compared.
        worst_relative: largest norm of a difference by the norm of what it should be.
        message: for a failure what is wrong and on which inputs, the smallest that show it.
        cause: for a failure, its likely cause.
        mend: and what to change.
    """

    property: str
    status: str
    worst_ulp: float | None = None
    worst_relative: float | None = None
    message: str = ""
    cause: str = ""
    mend: str = ""


def text_of(row: Row) -> str:
    """What is wrong, its likely cause and the mend."""
    return " ".join(part for part in (row.message, row.cause, row.mend) if part)


@dataclass
class Report:
    """Everything that a check found.

    Attributes:
        subject: name of what was checked.
        rows: one for each property, in the order in which they were checked.
        seed: repeats the same inputs.
        seconds: how long it took.
    """

    subject: str
    rows: list[Row] = field(default_factory=list)
    seed: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing fails."""
        return not self.failures

    @property
    def failures(self) -> list[str]:
        """The names of the failing properties."""
        return [row.property for row in self.rows if row.status == FAIL]

    def __getitem__(self, name: str) -> Row:
        """The row of a property."""
        return {row.property: row for row in self.rows}[name]

    def to_dict(self) -> dict[str, Any]:
        """As plain data: numbers, strings, lists; infinity as the string "inf", which JSON has no number for."""
        rows = [{name: _plain(value) for name, value in vars(row).items()} for row in self.rows]
        return {"subject": self.subject, "ok": self.ok, "failures": self.failures, "seed": self.seed, "rows": rows}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def table(self) -> Table:
        """For `rich`."""
        table = Table(
            box=SIMPLE, title=self.subject, caption=self.verdict, title_justify="left", caption_justify="left"
        )
        table.add_column("property", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("ulp", justify="right", no_wrap=True)
        table.add_column("relative", justify="right", no_wrap=True)
        table.add_column("")
        for row in self.rows:
            colour = COLOURS[row.status]
            numbers = number(row.worst_ulp), number(row.worst_relative)
            table.add_row(row.property, f"[{colour}]{row.status}[/]", *numbers, _escaped(text_of(row)))
        return table

    @property
    def verdict(self) -> str:
        counts = {status: sum(row.status == status for row in self.rows) for status in COLOURS}
        return ", ".join(f"{count} {status}" for status, count in counts.items()) + f", {self.seconds:.1f} s"

    def __str__(self) -> str:
        text = StringIO()
        Console(file=text, width=WIDTH, color_system=None).print(self.table())
        return text.getvalue()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        cells: Callable[[Row], list[str]] = lambda row: [  # noqa: E731
            *(row.property, row.status, number(row.worst_ulp), number(row.worst_relative), text_of(row))
        ]
        head = "".join(f"<th scope=col>{name}</th>" for name in ("property", "", "ulp", "relative", ""))
        body = "".join(
            f"<tr class={row.status.lower()}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells(row))}</tr>"
            for row in self.rows
        )
        caption = f"<caption>{html.escape(self.subject)}: {html.escape(self.verdict)}</caption>"
        return f"<table class=torchnn-check>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


STYLE = """
:root { color-scheme: light dark; font: 1rem/1.45 system-ui, sans-serif }
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin: 0 0 2rem }
caption { text-align: left; font-weight: 600; padding: .5rem 0 }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #8884 }
td:nth-child(3), td:nth-child(4) { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td:nth-child(2) { font-weight: 600; white-space: nowrap }
tr.pass td:nth-child(2) { color: light-dark(#176b2c, #6cc985) }
tr.fail td:nth-child(2) { color: light-dark(#b00020, #ff8a95) }
"""


def page(reports: list[Report]) -> str:
    """One page of its own for a browser."""
    tables = "".join(report._repr_html_() for report in reports)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>torchnn check</title><style>{STYLE}</style><h1>torchnn check</h1>{tables}</html>\n"
    )


def number(value: float | None) -> str:
    """A size of an error, to three digits."""
    if value is None:
        return ""
    return f"{value:.3g}"


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
