"""`torchnn check`: the arguments, the table, and the exit status."""

import argparse
import ast
import difflib
import importlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from rich.status import Status

from torchnn.check.findings import PROPERTIES
from torchnn.check.matrix import markdown
from torchnn.check.operations import OWN, MakeInputs, Own, normal
from torchnn.check.report import Report, page
from torchnn.check.runner import check_backward
from torchnn.check.subject import WrongUseError
from torchnn.console import OneSentenceParser, fail

DESCRIPTION = "Find out whether a hand-written backward is right. Without a target, check torchnn's own operations."
EPILOG = f"""
Exit status: 0 if nothing fails, 1 if something does, 2 for wrong use.
Properties: {", ".join(PROPERTIES)}.
"""
WIDTH_OF_A_FILE = 140
EXAMPLE = "mypackage.ops:my_function"


def parser() -> argparse.ArgumentParser:
    arguments = OneSentenceParser(prog="torchnn check", description=DESCRIPTION, epilog=EPILOG)
    arguments.add_argument(
        "target", nargs="?", help=f"what to check, as {EXAMPLE}: a Function, function, module, custom_op"
    )
    arguments.add_argument("--reference", metavar="MODULE:NAME", help="the same in plain torch; default: differences")
    arguments.add_argument("--inputs", metavar="MODULE:NAME", help="a function of dtype, device and generator")
    arguments.add_argument("--shapes", metavar="SHAPES", help='normal inputs instead, as "(8,5),(3,5),(3,)"')
    arguments.add_argument("--only", metavar="NAMES", type=names_from, help="properties to check, with commas between")
    arguments.add_argument("--skip", metavar="NAMES", type=names_from, help="properties to leave out")
    arguments.add_argument("--quick", action="store_true", help="the first call, and nothing that takes seconds")
    arguments.add_argument("--device", default="cpu", help="where the inputs are made; default: %(default)s")
    arguments.add_argument("--seed", type=seed_from, default=0, help="of the inputs; default: %(default)s")
    form = arguments.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--markdown", action="store_true", help="print one table of all, in Markdown")
    arguments.add_argument("--html", type=Path, metavar="FILE", help="write a page too; a file that is there stays")
    return arguments


def seed_from(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: write a whole number from 0 to 2^63 - 1")
    return int(text)


def names_from(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PROPERTIES:
            hint = meant(name, PROPERTIES)
            raise argparse.ArgumentTypeError(f"{name!r} is no property{hint}: choose of {', '.join(PROPERTIES)}")
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
    if options.html is not None and options.html.exists():
        raise WrongUseError(f"--html {options.html} is there already: give another name, or remove it.")
    if options.html is not None and not options.html.parent.is_dir():
        raise WrongUseError(f"--html {options.html}: there is no folder {options.html.parent}.")
    check_device(options.device)
    reports = []
    console = Console(stderr=True)
    with Status("", console=console) as status:
        subjects = subjects_of(options)
        for number, own in enumerate(subjects, 1):

            def progress(name: str, own: Own = own, number: int = number) -> None:
                status.update(f"{own.name} ({number} of {len(subjects)}): {name}")

            report = check_backward(
                own.call,
                own.reference,
                own.make_inputs,
                quick=options.quick,
                only=options.only,
                skip=options.skip,
                device=options.device,
                seed=options.seed,
                progress=progress,
            )
            report.subject = own.name
            reports.append(report)
    return reports


def subjects_of(options: argparse.Namespace) -> list[Own]:
    if options.target is None:
        for name in ("reference", "inputs", "shapes"):
            if getattr(options, name) is not None:
                raise WrongUseError(f"--{name} belongs to a target: give one, as {EXAMPLE}.")
        return OWN
    if (options.inputs is None) == (options.shapes is None):
        raise WrongUseError("give either --inputs MODULE:NAME or --shapes, so that there is something to call it on.")
    target = found(options.target, "the target")
    reference = None if options.reference is None else found(options.reference, "--reference")
    if options.shapes is not None:
        make_inputs: MakeInputs = normal(*shapes_from(options.shapes))
    else:
        make_inputs = found(options.inputs, "--inputs")
    return [Own(options.target, target, reference, make_inputs)]


def found(path: str, argument: str) -> Any:
    """What a `module:name` names."""
    module, _, name = path.partition(":")
    if not module or not name:
        raise WrongUseError(f"{argument} is {path!r}: write a module, a colon and a name, as {EXAMPLE}.")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module of the working folder, as `python -m` finds it
    try:
        value: Any = importlib.import_module(module)
    except Exception as error:
        raise WrongUseError(f"{argument}: {module!r} cannot be imported ({type(error).__name__}: {error}).") from error
    for part in name.split("."):
        if not hasattr(value, part):
            raise WrongUseError(f"{argument}: {module!r} has no {name!r}{meant(part, dir(value))}.")
        value = getattr(value, part)
    return value


def meant(name: str, known: Iterable[str]) -> str:
    """A guess at what was mistyped."""
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


def show(options: argparse.Namespace, reports: Sequence[Report]) -> None:
    if options.json:
        sys.stdout.write(json.dumps([report.to_dict() for report in reports], indent=2) + "\n")
    elif options.markdown:
        sys.stdout.write(markdown(reports))
    else:
        console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
        for report in reports:
            console.print(report.table())
    if options.html is not None:
        try:
            with options.html.open("x") as file:
                file.write(page(list(reports)))
        except OSError as error:
            fail(f"--html {options.html} cannot be written ({error.strerror}).")
