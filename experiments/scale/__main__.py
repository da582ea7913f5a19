"""`python -m experiments.scale`."""

import sys

from .cost import EXPERIMENT

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
