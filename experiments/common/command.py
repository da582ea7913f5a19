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

from torchnn.cli.parser import TrainingParser
from torchnn.console import one_sentence, options

from .plots import save
from .results import (
    Figure,
    Tables,
    as_read,
    csv_writer,
    machine,
    read_table,
    table_of_figures,
    with_quote,
    write_together,
)
from .unavailable import UnavailableError

FOLDER = Path(__file__).parent.parent
BAD_ARGUMENT, INTERRUPTED = 2, 130
WIDTH_OF_A_FILE = 120
PROGRESS = SpinnerColumn(), "{task.description}", TimeElapsedColumn()
SAME_RESULTS = {"accelerator", "devices"}
# Every experiment makes its own of these.
NOT_ASKED = {"callbacks", "plugins", "profiler", "logger", "fast_dev_run"}
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
    """What an experiment computes with.

    Attributes:
        trainer_args: arguments of the Trainer that the user gave; they win over the experiment's.
        tell: shows one line of progress.
    """

    trainer_args: Mapping[str, Any]
    tell: Callable[[str], None]

    def trainer(self, **own: Any) -> pl.Trainer:
        """A quiet Trainer with the experiment's own arguments."""
        return pl.Trainer(**{**QUIET, **own, **self.trainer_args})

    @property
    def device(self) -> torch.device:
        """Where the Trainer computes, for what needs no Trainer."""
        return self.trainer().strategy.root_device


@dataclass(frozen=True)
class Experiment:
    """A question with its data.

    Attributes:
        name: of the folder below `experiments`, and of the command.
        question: one sentence.
        measure: takes a `Run` and keyword arguments with defaults, which become those of the command; returns tables.
        figures: the figures that tables give, the first one the most telling.
        draw: pictures of tables, by file name.
        threads: of torch on the CPU; 1 is the fastest for small networks, and any fixed number lets sums come out the
            same on every machine of a kind.
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
        """The tables in `results`."""
        return {path.stem: read_table(path)[1] for path in sorted(self.results.glob("*.csv"))}


class Parser(TrainingParser):
    """The parser of the torchnn command, which answers in the name of the experiment."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        self.refuse(one_sentence(message, options(self)))

    def refuse(self, sentence: str) -> NoReturn:
        sys.stderr.write(f"{self.prog.split('.')[-1]}: {' '.join(sentence.split())}\n")
        sys.exit(BAD_ARGUMENT)


def make_parser(experiment: Experiment) -> Parser:
    parser = Parser(prog=f"python -m experiments.{experiment.name}", description=experiment.question)
    parser.add_argument("--out", type=str, default=None, help="folder of the files; default: results/ beside the code")
    parser.add_function_arguments(experiment.measure, skip={"run"})
    parser.add_class_arguments(pl.Trainer, "trainer", skip=NOT_ASKED, instantiate=False)
    return parser


@dataclass(frozen=True)
class Request:
    """What the arguments of a command ask for."""

    settings: dict[str, Any]
    trainer_args: dict[str, Any]
    folder: Path


def parsed(experiment: Experiment, args: Sequence[str] | None) -> Request:
    """The arguments, if they fit together; wrong ones end the program with one sentence."""
    parser = make_parser(experiment)
    settings = parser.parse_args(None if args is None else list(args)).as_dict()
    given, out, defaults = settings.pop("trainer"), settings.pop("out"), parser.get_defaults().as_dict()
    trainer_args = {name: value for name, value in given.items() if value != defaults["trainer"][name]}
    for name, value in settings.items():
        if isinstance(value, int) and value < 1:
            parser.refuse(f"--{name} is {value}: it is a whole number, 1 or more.")
    changed = {name for name, value in settings.items() if value != defaults[name]}
    if out is None and (changed or trainer_args.keys() - SAME_RESULTS):
        parser.refuse("other settings than the default ones would replace the results: give --out too.")
    try:
        pl.Trainer(**{**QUIET, **trainer_args})
    except (ImportError, MisconfigurationException, TypeError, ValueError) as error:
        parser.refuse(f"the --trainer arguments do not fit together or this machine ({error}).")
    folder = Path(out) if out else experiment.results
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.refuse(f"--out {folder} cannot be a folder ({error.strerror}).")
    if not os.access(folder, os.W_OK):
        parser.refuse(f"--out {folder} cannot be written to.")
    return Request(settings, trainer_args, folder)


def measured(experiment: Experiment, request: Request, console: Console) -> tuple[Tables, str]:
    """The tables, and the comment above them."""
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
            quote(experiment, figures)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        sys.stderr.write(f"{experiment.name}: interrupted, earlier results are untouched.\n")
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


def quote(experiment: Experiment, figures: Sequence[Figure]) -> None:
    """Put the figures into the README of the experiment, and the first of them into the list of all experiments."""
    for path, name, its_quote in (
        (experiment.folder / "README.md", "figures", f"\n\n{table_of_figures(figures)}\n\n"),
        (FOLDER / "README.md", experiment.name, in_the_list(figures[0])),
    ):
        text = with_quote(path.read_text(), name, its_quote)
        if text != path.read_text():
            write_together(path.parent, {path.name: partial(Path.write_text, data=text)})


def in_the_list(figure: Figure) -> str:
    """The last two cells of a row of the list of all experiments."""
    return f"{figure.what}: {figure.expected} | {figure.obtained}"
