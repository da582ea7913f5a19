"""The command `torchnn`: one module for each subcommand, imported when it is run."""

import importlib
import sys
from collections.abc import Sequence

OWN_PARSER = ("check", "explain", "export")


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
        importlib.import_module(f"torchnn.cli.{name}").main(rest)
    except KeyboardInterrupt:
        sys.stderr.write(f"torchnn: interrupted; start {' '.join(['torchnn', *words[:1]])} again.\n")
        sys.exit(130)
