"""The command: its arguments and the run."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from experiments.common.datasets import DATASETS, Dataset
from experiments.common.errors import UnavailableError

from . import peers
from .judge import Score, score, splits_of
from .ours import ENTRY_POINTS
from .peers import BOOSTING, LOGISTIC, NETWORKS
from .report import show, summary, write

DESCRIPTION = (
    "Train torchnn with its defaults on twelve public sets, and compare it with scikit-learn on the same rows."
)
RESULTS = Path(__file__).parent / "results"
OFFICIAL = "adult-official"
SETS = (*DATASETS, OFFICIAL)
WITH_NETWORKS = ("wdbc", "spambase", "phoneme", "banana", "magic", "adult", OFFICIAL)
THREADS = 1
WIDTH_OF_A_FILE = 200
PROGRESS = SpinnerColumn(), "{task.description}", TimeElapsedColumn()
BAD_ARGUMENT, INTERRUPTED = 2, 130


class OneSentenceParser(argparse.ArgumentParser):
    """Prints an error in one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_ARGUMENT, f"quality: {message}.\n")


def parsed(args: Sequence[str] | None) -> argparse.Namespace:
    parser = OneSentenceParser(prog="python -m experiments.quality", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder for the files; default: results/ of this experiment"
    )
    parser.add_argument("--set", action="append", choices=SETS, help="run this set instead of all; repeatable")
    parser.add_argument("--without-peers", action="store_true", help="run only torchnn and logistic regression")
    options = parser.parse_args(args)
    if (options.set or options.without_peers) and options.out is None:
        parser.error("a part of the results would replace all of them: give --out too")
    options.out = options.out or RESULTS
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out} cannot be created ({error.strerror})")
    return options


def contenders_of(key: str, without_peers: bool) -> list[str]:
    further = [] if without_peers else [*(NETWORKS if key in WITH_NETWORKS else ()), BOOSTING]
    return [*ENTRY_POINTS, LOGISTIC, *further]


def load(key: str) -> Dataset:
    return DATASETS["adult" if key == OFFICIAL else key]()


def run(options: argparse.Namespace, progress: Progress) -> list[Score]:
    keys = options.set or SETS
    sets = {key: load(key) for key in keys}  # raises for a missing set before anything is computed
    scores = []
    task = progress.add_task("", total=None)
    for key, dataset in sets.items():
        name = f"{dataset.name}, official split" if key == OFFICIAL else dataset.name
        for split, (train, test) in enumerate(splits_of(dataset, official=key == OFFICIAL)):
            for contender in contenders_of(key, options.without_peers):
                progress.update(task, description=f"{name}, split {split}: {contender}")
                start = time.perf_counter()
                if contender in ENTRY_POINTS:
                    probability = ENTRY_POINTS[contender](dataset, train, test, seed=split)
                else:
                    probability = peers.probabilities(contender, dataset, train, test, seed=split)
                seconds = time.perf_counter() - start
                scores.append(score(name, split, contender, dataset.labels[test], probability, seconds))
        progress.console.print(f"{name}: {time_of(scores, name):.0f} s", markup=False)
    return scores


def time_of(scores: Sequence[Score], name: str) -> float:
    return sum(one.seconds for one in scores if one.dataset == name)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = parsed(args)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
    torch.set_num_threads(THREADS)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with threadpool_limits(THREADS), Progress(*PROGRESS, console=console, transient=True) as progress:
            scores = run(options, progress)
    except KeyboardInterrupt:
        sys.stderr.write("quality: interrupted; earlier results are unchanged.\n")
        return INTERRUPTED
    except UnavailableError as error:
        sys.stderr.write(f"quality: {error}\n")
        return BAD_ARGUMENT
    rows = summary(scores)
    show(console, rows)
    console.print(f"wrote {', '.join(write(options.out, scores, rows))} in {options.out}", markup=False)
    return 0
