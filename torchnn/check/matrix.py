"""All reports in one table of Markdown: a line for each property, a column for each subject."""

from collections.abc import Sequence

from torchnn.check.findings import PROPERTIES
from torchnn.check.report import FAIL, NOT_APPLICABLE, PASS, Report

MARKS = {PASS: "✓", FAIL: "**FAIL**", NOT_APPLICABLE: "–"}


def markdown(reports: Sequence[Report]) -> str:
    """✓ for PASS, – for N-A, and below it the reason of each –, once. What is not judged is left out."""
    found = [{row.property: MARKS[row.status] for row in report.rows} for report in reports]
    names = [name for name, prop in PROPERTIES.items() if prop.is_judged and any(name in one for one in found)]
    lines = [
        f"| property | {' | '.join(report.subject for report in reports)} |",
        f"|---|{'---|' * len(reports)}",
        *(f"| {name} | {' | '.join(one.get(name, '') for one in found)} |" for name in names),
    ]
    reasons: dict[str, list[str]] = {}  # of what is no PASS
    for report in reports:
        for row in report.rows:
            if row.property in names and row.status != PASS:
                reasons.setdefault(f"{row.property}: {row.message}", []).append(report.subject)
    notes = [f"- {reason} ({', '.join(subjects)})" for reason, subjects in reasons.items()]
    return "\n".join([*lines, "", *notes]) + "\n"
