"""`torchnn check`: read the arguments, run the checks, print the reports."""

import argparse
import ast
import difflib
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch

from torchnn.check.findings import PROPERTIES
from torchnn.check.operations import OPERATIONS, MakeInputs, Operation, normal_inputs
from torchnn.check.report import FAIL, HEADINGS, PASS, Report, html_page, markdown
from torchnn.check.runner import check_backward
from torchnn.check.subject import WrongUseError
from torchnn.console import OneSentenceParser, fail
from torchnn.files import write_whole

DESCRIPTION = (
    "Check whether a hand-written backward is right. Without a target, check torchnn's own operations. "
    "Exit status: 0 if every property passes or does not apply, 1 if one fails, 2 for wrong usage."
)
EPILOG = f"Properties: {', '.join(PROPERTIES)}."
WIDTH_OF_A_FILE = 140
EXAMPLE = "mypackage.ops:my_function"


def parser() -> argparse.ArgumentParser:
    arguments = OneSentenceParser(prog="torchnn check", description=DESCRIPTION, epilog=EPILOG)
    arguments.add_argument(
        "target",
        nargs="?",
        help=f"what to check: an autograd Function, a function, a module or a custom_op, written as {EXAMPLE}",
    )
    arguments.add_argument(
        "--reference",
        metavar="MODULE:NAME",
        help="the same function in plain torch operations (default: compare with central differences)",
    )
    arguments.add_argument(
        "--inputs",
        metavar="MODULE:NAME",
        help="a function that returns the inputs as a tuple; it is called with the keyword arguments dtype, device and "
        "generator",
    )
    arguments.add_argument(
        "--shapes",
        metavar="SHAPES",
        help='shapes of the inputs, as "(8,5),(3,5),(3,)", for normal random numbers; use it instead of --inputs',
    )
    arguments.add_argument(
        "--only", metavar="NAMES", type=names_from, help="check only these properties, separated by commas"
    )
    arguments.add_argument("--skip", metavar="NAMES", type=names_from, help="leave out these properties")
    arguments.add_argument(
        "--quick",
        action="store_true",
        help="leave out torch.compile, export, ONNX, two processes, time and memory, and use the first call only",
    )
    arguments.add_argument("--device", default="cpu", help="where the inputs are made (default: %(default)s)")
    arguments.add_argument("--seed", type=seed_from, default=0, help="seed of the inputs (default: %(default)s)")
    form = arguments.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--markdown", action="store_true", help="print one Markdown table of all targets")
    arguments.add_argument("--html", type=Path, metavar="FILE", help="also write an HTML page to a new file")
    return arguments


def seed_from(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed: give a whole number from 0 to 2^63 - 1")
    return int(text)


def names_from(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PROPERTIES:
            hint = meant(name, PROPERTIES)
            raise argparse.ArgumentTypeError(f"{name!r} is not a property{hint}: choose from {', '.join(PROPERTIES)}")
    return names


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command, and exit."""
    options = parser().parse_args(args)
    try:
        reports = run(options)
    except WrongUseError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("the check was interrupted; nothing was written.", 130)
    show(options, reports)
    sys.exit(0 if all(report.ok for report in reports) else 1)


def run(options: argparse.Namespace) -> list[Report]:
    """Check the target, or torchnn's own operations."""
    if options.html is not None and options.html.exists():
        raise WrongUseError(f"--html {options.html} already exists: give another name, or delete it.")
    if options.html is not None and not options.html.parent.is_dir():
        raise WrongUseError(f"--html {options.html}: the folder {options.html.parent} does not exist.")
    check_device(options.device)
    operations = operations_from(options)
    reports = []
    with progress_line() as show_progress:
        for number, operation in enumerate(operations, 1):

            def progress(name: str, start: str = f"{operation.name} ({number} of {len(operations)})") -> None:
                show_progress(f"{start}: {name}")

            report = check_backward(
                operation.call,
                operation.reference,
                operation.make_inputs,
                quick=options.quick,
                only=options.only,
                skip=options.skip,
                device=options.device,
                seed=options.seed,
                progress=progress,
            )
            report.subject = operation.name
            reports.append(report)
    return reports


def operations_from(options: argparse.Namespace) -> list[Operation]:
    """What to check."""
    if options.target is None:
        for name in ("reference", "inputs", "shapes"):
            if getattr(options, name) is not None:
                raise WrongUseError(f"--{name} needs a target: name the function to check, as {EXAMPLE}.")
        return OPERATIONS
    if (options.inputs is None) == (options.shapes is None):
        raise WrongUseError("give either --inputs MODULE:NAME or --shapes, to say which inputs to call it with.")
    target = find(options.target, "the target")
    reference = None if options.reference is None else find(options.reference, "--reference")
    if options.shapes is not None:
        make_inputs: MakeInputs = normal_inputs(*shapes_from(options.shapes))
    else:
        make_inputs = find(options.inputs, "--inputs")
    return [Operation(name=options.target, call=target, reference=reference, make_inputs=make_inputs)]


def find(path: str, argument: str) -> Any:
    """Import the object that `module:name` stands for."""
    module, _, name = path.partition(":")
    if not module or not name:
        raise WrongUseError(f"{argument} is {path!r}: write a module, a colon and a name, as {EXAMPLE}.")
    if "" not in sys.path:
        sys.path.insert(0, "")  # so that modules of the working folder are found, as with `python -m`
    try:
        value: Any = importlib.import_module(module)
    except Exception as error:
        raise WrongUseError(f"{argument}: cannot import {module!r} ({type(error).__name__}: {error}).") from error
    for part in name.split("."):
        if not hasattr(value, part):
            raise WrongUseError(f"{argument}: {module!r} has no {name!r}{meant(part, dir(value))}.")
        value = getattr(value, part)
    return value


def meant(name: str, known: Iterable[str]) -> str:
    """A suggestion for a mistyped name."""
    near = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def shapes_from(text: str) -> list[tuple[int, ...]]:
    try:
        shapes = ast.literal_eval(f"[{text}]")
    except (SyntaxError, ValueError):
        shapes = None
    is_shape = lambda s: isinstance(s, tuple) and all(type(n) is int and n >= 0 for n in s)  # noqa: E731
    if not shapes or not all(map(is_shape, shapes)):
        raise WrongUseError(f'--shapes is {text!r}: write tuples of whole numbers, as "(8,5),(3,5),(3,)".')
    return list(shapes)


def check_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise WrongUseError(f"--device {device!r} cannot be used ({str(error).splitlines()[0]}).") from error


# --- printing, with rich if it is installed ---------------------------------------------------------------------------


def has_rich() -> bool:
    return importlib.util.find_spec("rich") is not None


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Show what is being checked, on a terminal and with rich only."""
    if not has_rich():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update


def show(options: argparse.Namespace, reports: Sequence[Report]) -> None:
    """Print the reports, and write the page."""
    if options.json:
        sys.stdout.write(json.dumps([report.to_dict() for report in reports], indent=2) + "\n")
    elif options.markdown:
        sys.stdout.write(markdown(reports))
    elif has_rich():
        print_tables(reports)
    else:
        sys.stdout.write("\n".join(map(str, reports)))
    if options.html is not None:
        try:
            write_whole(options.html, html_page(reports))
        except OSError as error:
            fail(f"--html {options.html} cannot be written ({error.strerror}).")


def print_tables(reports: Sequence[Report]) -> None:
    """Print the reports in colour, or without it into a file."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
    colours = {PASS: "green", FAIL: "bold red"}
    for report in reports:
        table = Table(
            box=SIMPLE, title=report.subject, caption=report.verdict, title_justify="left", caption_justify="left"
        )
        for heading in HEADINGS:
            is_number = heading in ("ulp", "relative")
            table.add_column(heading, justify="right" if is_number else "left", no_wrap=heading != "notes")
        for row in report.rows:
            name, status, ulp, relative = map(Text, row.cells())
            status.stylize(colours.get(row.status, "dim"))
            table.add_row(name, status, ulp, relative, Text("\n".join(row.notes())))
        console.print(table)
