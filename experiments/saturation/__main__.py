"""`python -m experiments.saturation`."""

import sys

from .experiment import EXPERIMENT

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
