"""`python -m torchnn` and the `torchnn` script."""

import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """`torchnn.cli.main`; an interruption outside of a Trainer (imports, an export) prints no traceback either."""
    words = sys.argv[1:] if args is None else list(args)
    try:
        if words[:1] == ["check"]:  # without Lightning, which it has no use for
            from torchnn.check.command import main as check

            check(words[1:])
        if words[:1] == ["export"]:
            from torchnn.cli_export import main as export

            export(words[1:])
        if words[:1] == ["explain"]:
            from torchnn.cli_explain import main as explain

            explain(words[1:])
        from torchnn.cli import main as run

        run(args)
    except KeyboardInterrupt:
        sys.stderr.write(f"torchnn: interrupted; start {' '.join(['torchnn', *words[:1]])} again.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
