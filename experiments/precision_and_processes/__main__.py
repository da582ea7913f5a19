"""`python -m experiments.precision_and_processes`."""

import sys

from .experiment import EXPERIMENT

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
