"""`python -m experiments`: all experiments but benchmark, quality and scale, one by one, with equal arguments."""

import sys
from importlib import import_module

from experiments.common.errors import INTERRUPTED

NAMES = (
    "gradient_agreement",
    "saturation",
    "vanishing_gradients",
    "rumelhart_1986",
    "gorman_1988",
    "decision_boundaries",
    "full_batch",
    "precision_and_processes",
)


def main(args: list[str] | None = None) -> int:
    """Run them all and return 0, or the first exit status that is not."""
    words = sys.argv[1:] if args is None else args
    first = 0
    for name in NAMES:
        status = import_module(f"experiments.{name}.experiment").EXPERIMENT.main(words)
        first = first or status
        if status == INTERRUPTED:
            break
    return first


if __name__ == "__main__":
    sys.exit(main())
