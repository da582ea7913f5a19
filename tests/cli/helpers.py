"""What a run left behind, what it printed, and how it was refused."""

import csv
from pathlib import Path

import pytest

from torchnn.cli import main

SHORT = ["--trainer.max_epochs", "2"]


def run_of(version: int, root: str = ".") -> Path:
    return Path(root) / "lightning_logs" / f"version_{version}"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def printed_metrics(output: str) -> dict[str, float]:
    pairs = [line.split() for line in output.splitlines()]
    return {name: float(value) for name, value in pairs if name != "run"}


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence for a wrong command: status 2, one line, no traceback."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    streams = capsys.readouterr()
    assert stop.value.code == 2
    assert streams.err.count("\n") == 1, streams.err
    assert "Traceback" not in streams.err
    assert streams.out == ""
    return streams.err
