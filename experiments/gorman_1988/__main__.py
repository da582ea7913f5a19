"""`python -m experiments.gorman_1988`."""

import sys

from .experiment import EXPERIMENT

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
