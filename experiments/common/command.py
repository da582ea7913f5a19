"""The command of an experiment: its arguments, its progress, its files."""

import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn
from rich.table import Table

from torchnn.cli.train import TrainingParser
from torchnn.console import one_sentence, options

from .errors import BAD_ARGUMENT, INTERRUPTED, UnavailableError
from .plots import save
from .results import (
    Figure,
    Tables,
    as_read,
    csv_writer,
    machine,
    read_table,
    table_of_figures,
    with_block,
    write_together,
)

FOLDER = Path(__file__).parent.parent
WIDTH_OF_A_FILE = 120
PROGRESS = SpinnerColumn(), "{task.description}", TimeElapsedColumn()
SAME_RESULTS = {"accelerator", "devices"}  # arguments of the Trainer that do not change what is measured
# Every experiment sets these itself.
NOT_OFFERED = {"callbacks", "plugins", "profiler", "logger", "fast_dev_run"}
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
HARMLESS = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*but have no `val_dataloader`.*",
    ".*isinstance.treespec, LeafSpec.*",
)


@dataclass(frozen=True)
class Run:
    """The Trainer arguments and the progress display of one run of an experiment.

    Attributes:
        trainer_args: arguments of the Trainer that the user gave; they override those of the experiment.
        show_progress: shows one line of progress.
    """

    trainer_args: Mapping[str, Any]
    show_progress: Callable[[str], None]

    def trainer(self, **own: Any) -> pl.Trainer:
        """A quiet Trainer with the arguments of the experiment and of the user."""
        return pl.Trainer(**{**QUIET, **own, **self.trainer_args})

    @property
    def device(self) -> torch.device:
        """The device of the Trainer, for computations without a Trainer."""
        return self.trainer().strategy.root_device


@dataclass(frozen=True)
class Experiment:
    """A question, how it is measured, and how its results are shown.

    Attributes:
        name: name of the folder in `experiments` and of the command.
        question: one sentence.
        measure: takes a `Run` and keyword arguments with defaults, which become arguments of the command; returns
            tables.
        figures: computes the figures from the tables, the most important one first.
        draw: plots the tables; returns plots by file name.
        threads: threads of torch on the CPU. 1 is the fastest for small networks, and a fixed number makes sums
            reproducible on machines of the same kind.
    """

    name: str
    question: str
    measure: Callable[..., dict[str, list[dict[str, object]]]]
    figures: Callable[[Tables], list[Figure]]
    draw: Callable[[Tables], dict[str, Any]]
    threads: int = 1

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def main(self, args: Sequence[str] | None = None) -> int:
        """Run the command and return its exit status."""
        return main(self, args)

    def committed(self) -> Tables:
        """The tables that are committed in `results`."""
        return {path.stem: read_table(path)[1] for path in sorted(self.results.glob("*.csv"))}


class Parser(TrainingParser):
    """The parser of the torchnn command, which reports errors in the name of the experiment."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        self.refuse(one_sentence(message, options(self)))

    def refuse(self, sentence: str) -> NoReturn:
        sys.stderr.write(f"{self.prog.split('.')[-1]}: {' '.join(sentence.split())}\n")
        sys.exit(BAD_ARGUMENT)


def make_parser(experiment: Experiment) -> Parser:
    parser = Parser(prog=f"python -m experiments.{experiment.name}", description=experiment.question)
    parser.add_argument(
        "--out", type=str, default=None, help="folder for the files; default: results/ next to the code"
    )
    parser.add_function_arguments(experiment.measure, skip={"run"})
    parser.add_class_arguments(pl.Trainer, "trainer", skip=NOT_OFFERED, instantiate=False)
    return parser


@dataclass(frozen=True)
class Request:
    """The parsed arguments of a command."""

    settings: dict[str, Any]
    trainer_args: dict[str, Any]
    folder: Path


def parsed(experiment: Experiment, args: Sequence[str] | None) -> Request:
    """Parse and check the arguments; wrong ones end the program with one sentence."""
    parser = make_parser(experiment)
    settings = parser.parse_args(None if args is None else list(args)).as_dict()
    given, out, defaults = settings.pop("trainer"), settings.pop("out"), parser.get_defaults().as_dict()
    trainer_args = {name: value for name, value in given.items() if value != defaults["trainer"][name]}
    for name, value in settings.items():
        if isinstance(value, int) and value < 1:
            parser.refuse(f"--{name} is {value}, but must be a whole number of at least 1.")
    changed = {name for name, value in settings.items() if value != defaults[name]}
    if out is None and (changed or trainer_args.keys() - SAME_RESULTS):
        parser.refuse("settings other than the defaults would replace the committed results: give --out too.")
    try:
        pl.Trainer(**{**QUIET, **trainer_args})
    except (ImportError, MisconfigurationException, TypeError, ValueError) as error:
        parser.refuse(f"the --trainer arguments do not fit together or do not fit this machine ({error}).")
    folder = Path(out) if out else experiment.results
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.refuse(f"--out {folder} cannot be created ({error.strerror}).")
    if not os.access(folder, os.W_OK):
        parser.refuse(f"--out {folder} is not writable.")
    return Request(settings, trainer_args, folder)


def measured(experiment: Experiment, request: Request, console: Console) -> tuple[Tables, str]:
    """Measure: the tables, and the comment above them that names machine, version and duration."""
    start = time.perf_counter()
    with Progress(*PROGRESS, console=console, transient=True) as bar, warnings.catch_warnings():
        for message in HARMLESS:
            warnings.filterwarnings("ignore", message=message)
        task = bar.add_task(experiment.name, total=None)
        run = Run(request.trainer_args, lambda text: bar.update(task, description=f"{experiment.name}: {text}"))
        tables = {name: as_read(rows) for name, rows in experiment.measure(run, **request.settings).items()}
        where = f"{machine(run.device)}; torch {torch.__version__}; threads {torch.get_num_threads()}"
    return tables, f"{where}; {math.ceil(time.perf_counter() - start)} s"


def main(experiment: Experiment, args: Sequence[str] | None = None) -> int:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    request = parsed(experiment, args)
    console = Console(markup=False, width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(experiment.threads)
        tables, comment = measured(experiment, request, console)
        figures, pictures = experiment.figures(tables), experiment.draw(tables)
        names = write_together(
            request.folder,
            {f"{name}.csv": csv_writer(rows, comment) for name, rows in tables.items()}
            | {name: partial(save, picture) for name, picture in pictures.items()},
        )
        if request.folder == experiment.results:
            update_pages(experiment, figures)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns a KeyboardInterrupt into a SystemExit
        sys.stderr.write(f"{experiment.name}: interrupted; earlier results are unchanged.\n")
        return INTERRUPTED
    except UnavailableError as why:
        sys.stderr.write(f"{experiment.name}: {why}\n")
        return BAD_ARGUMENT
    finally:
        torch.set_num_threads(threads)
    show(console, experiment, figures)
    console.print(f"wrote {', '.join(names)} in {request.folder} ({comment})")
    return 0


def show(console: Console, experiment: Experiment, figures: Sequence[Figure]) -> None:
    table = Table("figure", "should be", "is", title=experiment.question, box=SIMPLE)
    for figure in figures:
        table.add_row(figure.what, figure.expected, figure.obtained)
    console.print(table)


def update_pages(experiment: Experiment, figures: Sequence[Figure]) -> None:
    """Write the figures into the README of the experiment, and the first figure into the list of all experiments."""
    for path, name, content in (
        (experiment.folder / "README.md", "figures", f"\n\n{table_of_figures(figures)}\n\n"),
        (FOLDER / "README.md", experiment.name, in_the_list(figures[0])),
    ):
        text = with_block(path.read_text(), name, content)
        if text != path.read_text():
            write_together(path.parent, {path.name: partial(Path.write_text, data=text)})


def in_the_list(figure: Figure) -> str:
    """The last two cells of a row of the list of all experiments."""
    return f"{figure.what}: {figure.expected} | {figure.obtained}"
