"""The command `torchnn`: a table of its subcommands, whose modules are imported when they are run."""

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

from torchnn import __version__
from torchnn.cli.startup import without_transformers
from torchnn.console import INTERRUPTED, MissingPackageError, OneSentenceParser, fail, need


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        summary: what it does, for `torchnn --help`.
        module: the module of `torchnn.cli` whose `main(words)` carries it out.
        extra: the extra that brings what it imports, None if torch and numpy are enough.
    """

    summary: str
    module: str
    extra: str | None


# The module of the four commands of Lightning's parser. Their words include the name of the command.
LIGHTNING = "train"
COMMANDS = {
    "fit": Command("train a classifier on a table and test it on held-out rows", LIGHTNING, "train"),
    "validate": Command("measure a trained model on the validation rows", LIGHTNING, "train"),
    "test": Command("measure a trained model on the held-out rows, or on another table", LIGHTNING, "train"),
    "predict": Command("write the probability and label of each row to a file", LIGHTNING, "train"),
    "explain": Command("show backpropagation number by number", "explain", "explain"),
    "check": Command("find out whether a hand-written backward is right", "check", None),
    "export": Command("write a trained model as ONNX or as a program of torch.export", "export", "export"),
}
DESCRIPTION = "Train and use a classifier on a table, check a hand-written backward, and see backpropagation happen."
NAMES = ", ".join(COMMANDS)
# Arguments of Lightning's parser that may come before the name of the command.
BEFORE_COMMAND = ("-c", "--config", "--print_config")


def main(args: Sequence[str] | None = None) -> None:
    """Run a subcommand.

    Args:
        args: the words after `torchnn`; None takes them from the command line.

    Raises:
        SystemExit: with status 2 after wrong input, 130 after an interruption.
    """
    words = sys.argv[1:] if args is None else list(args)
    name = name_of_command(words)
    command = COMMANDS[name]
    try:
        needed = nullcontext() if command.extra is None else need(command.extra, f"torchnn {name}")
        with needed, without_transformers():
            module = importlib.import_module(f"torchnn.cli.{command.module}")
        module.main(words if command.module == LIGHTNING else words[1:])
    except MissingPackageError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail(f"interrupted; start torchnn {name} again.", INTERRUPTED)


def name_of_command(words: Sequence[str]) -> str:
    """The subcommand that the words after `torchnn` call.

    Raises:
        SystemExit: with status 0 after --help and --version, with status 2 if there is no subcommand.
    """
    first = words[0] if words else ""
    if first.startswith(BEFORE_COMMAND):
        name = next((word for word in words if word in COMMANDS), "fit")
        if COMMANDS[name].module != LIGHTNING:
            fail(f"{first} does not belong to {name}: see torchnn {name} --help.")
        return name
    if first in ("-h", "--help", "--version"):
        top_level_parser().parse_args([first])
    if not first:
        fail(f"give a command, one of {NAMES}; torchnn --help describes them.")
    if first.startswith("-"):
        fail(f"{first} comes before the command: write the command first, as in torchnn fit {first}.")
    if first not in COMMANDS:
        close = difflib.get_close_matches(first, COMMANDS, n=1)
        fail(f"{first!r} is not a command: {f'did you mean {close[0]}?' if close else f'choose one of {NAMES}.'}")
    return first


def top_level_parser() -> argparse.ArgumentParser:
    """The parser of `torchnn` without a subcommand: it prints the help and the version."""
    width = max(map(len, COMMANDS))
    table = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    parser = OneSentenceParser(
        prog="torchnn",
        usage="torchnn COMMAND [arguments]",
        description=f"{DESCRIPTION}\n\ncommands:\n{table}",
        epilog="`torchnn COMMAND --help` lists the arguments of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"torchnn {__version__}", help="print the version")
    return parser
