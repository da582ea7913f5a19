"""`python -m experiments.decision_boundaries`."""

import sys

from .experiment import EXPERIMENT

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
