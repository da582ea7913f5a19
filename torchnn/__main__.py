"""`python -m torchnn` and the `torchnn` script."""

import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """`torchnn.cli.main`; an interruption while its libraries are still being imported prints no traceback either."""
    try:
        from torchnn.cli import main as run

        run(args)
    except KeyboardInterrupt:
        sys.stderr.write("torchnn: interrupted before training started.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
