"""`python -m experiments.full_batch`."""

import sys

from .experiment import EXPERIMENT

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
