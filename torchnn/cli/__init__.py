"""The command `torchnn`: one module for each subcommand, imported when it is run."""

import importlib
import sys
from collections.abc import Sequence

from torchnn.console import MissingPackageError, fail, need

OWN_PARSER = {"check": "explain", "explain": "explain", "export": "export"}  # and the extra that each needs


def main(args: Sequence[str] | None = None) -> None:
    """Run a subcommand.

    Args:
        args: the words after `torchnn`; None takes them from the command line.

    Raises:
        SystemExit: with status 2 after wrong input, 130 after an interruption.
    """
    words = sys.argv[1:] if args is None else list(args)
    name, rest = (words[0], words[1:]) if words[:1] and words[0] in OWN_PARSER else ("train", words)
    try:
        with need(OWN_PARSER.get(name, "train"), " ".join(["torchnn", *words[:1]])):
            module = importlib.import_module(f"torchnn.cli.{name}")
        module.main(rest)
    except MissingPackageError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.stderr.write(f"torchnn: interrupted; start {' '.join(['torchnn', *words[:1]])} again.\n")
        sys.exit(130)
