"""Results on disk: tables that name their machine, files that are replaced together, and figures shown in READMEs."""

import csv
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

Row = dict[str, str]
Tables = dict[str, list[Row]]
Writer = Callable[[Path], object]


@dataclass(frozen=True)
class Figure:
    """A figure: the value that an experiment should give, and the value that it gave.

    Attributes:
        what: the quantity, with its unit.
        expected: the published or derived value, with its source in one word.
        obtained: the value computed from the tables.
    """

    what: str
    expected: str
    obtained: str


def machine(device: torch.device | None = None) -> str:
    """The name of the processor and its number of cores, or the name of the GPU if that is used."""
    if device is not None and device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores"


def write_together(folder: Path, files: Mapping[str, Writer]) -> list[str]:
    """Write all files or, after an error or interruption, none of them; returns their names."""
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:
        for name, writer in files.items():
            writer(Path(unfinished, name))
        for name in files:
            os.replace(Path(unfinished, name), folder / name)
    return list(files)


def csv_writer(rows: Sequence[Mapping[str, object]], header: str | None = None) -> Writer:
    """A function that writes rows as CSV, with `header` as a comment in the first line if it is given."""

    def to(path: Path) -> None:
        with path.open("w", newline="") as file:
            if header is not None:
                file.write(f"# {header}\n")
            writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    return to


def read_table(path: Path) -> tuple[str, list[Row]]:
    """Read a table written by `csv_writer`: the comment in its first line, and its rows."""
    header, *lines = path.read_text().splitlines()
    return header.removeprefix("# "), list(csv.DictReader(lines))


def as_read(rows: Iterable[Mapping[str, object]]) -> list[Row]:
    """Rows as `read_table` would return them, so that figures and plots show exactly what the file contains."""
    return [{name: str(value) for name, value in row.items()} for row in rows]


def numbers(rows: Iterable[Row], column: str) -> list[float]:
    """A column as numbers."""
    return [float(row[column]) for row in rows]


def where(rows: Iterable[Row], **wanted: object) -> list[Row]:
    """The rows whose columns have the wanted values."""
    return [row for row in rows if all(row[name] == str(value) for name, value in wanted.items())]


def table_of_figures(figures: Sequence[Figure]) -> str:
    """A Markdown table for the README of an experiment."""
    rows = [f"| {figure.what} | {figure.expected} | {figure.obtained} |" for figure in figures]
    return "\n".join(["| figure | should be | is |", "|---|---|---|", *rows])


def quoted(text: str, name: str) -> str:
    """The text of a README between the comments `<!-- name -->` and `<!-- end of name -->`."""
    found = block(name).search(text)
    assert found, f"no block {name!r}"
    return found[2].strip()


def with_block(text: str, name: str, content: str) -> str:
    """The README with new text between these comments; unchanged if it does not have them."""
    return block(name).sub(lambda found: found[1] + content + found[3], text)


def block(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->)(.*?)(<!-- end of {name} -->)", flags=re.DOTALL)
