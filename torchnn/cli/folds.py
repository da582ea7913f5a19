"""`torchnn fit --data.folds K`: a run for each fold, and the mean and standard deviation of their metrics."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from torchnn.console import is_first_process, note
from torchnn.files import write_whole

FILE = "folds.csv"


class FoldResult(NamedTuple):
    """The result of the run of a fold.

    Attributes:
        metrics: of the held-out rows, by name.
        folder: the run folder; None if there is none.
    """

    metrics: dict[str, float]
    folder: Path | None


def cross_validate(words: Sequence[str], folds: int, run: Callable[[list[str]], FoldResult]) -> None:
    """Run every fold, print mean ± standard deviation of each metric, and write `folds.csv` to the last run folder.

    Args:
        words: the words after `torchnn`.
        folds: the number of folds.
        run: carries out a command and returns its result.
    """
    results = []
    for fold in range(folds):
        results.append(run([*words, "--data.fold", str(fold)]))
        note(f"fold {fold + 1} of {folds} is done")
    if not is_first_process():
        return
    for name in results[0].metrics:
        values = [result.metrics[name] for result in results]
        print(f"{name} {mean(values):.4f} ± {stdev(values):.4f}")
    folder = results[-1].folder
    if folder is not None:
        write(folder / FILE, results)
        print(f"folds {folder / FILE}")


def write(path: Path, results: Sequence[FoldResult]) -> None:
    """Write a row for each fold, with its run folder and its metrics."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["fold", "run", *results[0].metrics])
    for fold, result in enumerate(results):
        writer.writerow([fold, result.folder, *result.metrics.values()])
    write_whole(path, text.getvalue())
