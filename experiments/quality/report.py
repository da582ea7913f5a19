"""Reports the scores of a run: a table in the terminal, files and a picture."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from experiments.common.results import Writer, csv_writer, machine, write_together

from .judge import METRICS, Score, difference, reaches_logistic, reaches_network
from .ours import ENTRY_POINTS
from .peers import BOOSTING, LOGISTIC, NETWORK

Row = dict[str, object]
OURS = "torchnn"  # in the names of columns; stands for the entry point of the row


def summary(scores: Iterable[Score]) -> list[Row]:
    """A row for each set and entry point: means of every contender, differences, bars."""
    by_set: dict[str, list[Score]] = {}
    for one in scores:
        by_set.setdefault(one.dataset, []).append(one)
    return [_summary_of(name, entry, found) for name, found in by_set.items() for entry in ENTRY_POINTS]


def _summary_of(name: str, entry: str, scores: Sequence[Score]) -> Row:
    contenders = list(dict.fromkeys(one.contender for one in scores))

    def mean(contender: str, metric: str) -> float:
        return fmean(getattr(one, metric) for one in scores if one.contender == contender)

    row: Row = {"set": name, "entry point": entry}
    networks = [contender for contender in contenders if contender.startswith(NETWORK)]
    best = max(networks, key=lambda contender: mean(contender, "auroc"), default=None)
    for label, contender in ((OURS, entry), (LOGISTIC, LOGISTIC), (NETWORK, best), (BOOSTING, BOOSTING)):
        for metric in METRICS:
            row[f"{label} {metric}"] = f"{mean(contender, metric):.4f}" if contender in contenders else ""
    for label, contender, reaches in (("logistic", LOGISTIC, reaches_logistic), ("network", best, reaches_network)):
        found = difference(scores, entry, contender) if contender in contenders else None
        row[f"minus {label}"] = f"{found.mean:+.4f}" if found else ""
        row[f"standard error {label}"] = f"{found.standard_error:.4f}" if found else ""
        row[f"bar {label}"] = "" if found is None else "reached" if reaches(found) else "MISSED"
    row["best network"] = best or ""
    row["seconds of a fit"] = f"{mean(entry, 'seconds'):.1f}"
    return row


def show(console: Console, rows: Sequence[Row]) -> None:
    table = Table(title="AUROC (accuracy, log-loss), means over the splits", box=SIMPLE, padding=(0, 1, 0, 0))
    peers = (LOGISTIC, "best MLPClassifier", BOOSTING)
    for name in ("set", "entry point", OURS, *peers, "minus logistic", "minus network", "s"):
        table.add_column(name, justify="left" if name in ("set", "entry point") else "right")
    for row in rows:
        cells = [_three(row, name) for name in (OURS, LOGISTIC, NETWORK, BOOSTING)]
        differences = [
            f"{row[f'minus {n}']} ± {row[f'standard error {n}']} {row[f'bar {n}']}" if row[f"minus {n}"] else "–"
            for n in ("logistic", "network")
        ]
        table.add_row(str(row["set"]), str(row["entry point"]), *cells, *differences, str(row["seconds of a fit"]))
    console.print(table)
    missed = [name_of(row) for row in rows if "MISSED" in (row["bar logistic"], row["bar network"])]
    console.print(f"bars missed: {', '.join(missed) or 'none'}", markup=False)


def name_of(row: Row) -> str:
    return f"{row['set']} by {row['entry point']}"


def _three(row: Row, name: str) -> str:
    if not row[f"{name} auroc"]:
        return "–"
    return f"{row[f'{name} auroc']} ({row[f'{name} accuracy']}, {row[f'{name} log_loss']})"


def write(folder: Path, scores: Sequence[Score], rows: Sequence[Row]) -> list[str]:
    """Write the files of a run, all together, and return their names."""
    where = {"machine": machine(), "torch": str(torch.__version__), "threads": torch.get_num_threads()}
    folds: list[dict[str, object]] = [{**_rounded(one), **where} for one in scores]
    files: dict[str, Writer] = {
        "splits.csv": csv_writer(folds),
        "summary.csv": csv_writer([{**row, **where} for row in rows]),
        "differences.png": lambda path: draw(path, rows),
    }
    return write_together(folder, files)


def _rounded(one: Score) -> Row:
    return {name: f"{value:.5f}" if isinstance(value, float) else value for name, value in asdict(one).items()}


def draw(path: Path, rows: Sequence[Row]) -> None:
    """AUROC of torchnn minus that of the peers, a row for each set and entry point, with one standard error."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.3 * len(rows) + 1.2), dpi=150, layout="constrained")
    axes: Any = figure.subplots()
    for label, marker in (("logistic", "o"), ("network", "s")):
        found = [
            (y, float(str(row[f"minus {label}"])), float(str(row[f"standard error {label}"])))
            for y, row in enumerate(rows)
            if row[f"minus {label}"]
        ]
        if found:
            y, mean, error = zip(*found, strict=True)
            name = LOGISTIC if label == "logistic" else f"best {NETWORK}"
            axes.errorbar(mean, y, xerr=error, fmt=marker, capsize=2, label=f"minus {name}")
    axes.axvline(0, color="grey", linestyle=":")
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_yticks(range(len(rows)), [name_of(row) for row in rows], fontsize=8)
    axes.set_xlabel("AUROC of torchnn minus the peer's")
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    figure.savefig(path)
