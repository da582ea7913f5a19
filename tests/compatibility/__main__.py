"""Prints the compatibility table in docs/modules.md: `.venv/bin/python -m tests.compatibility`."""

import sys

from tests.compatibility.models import CASES
from tests.compatibility.settings import SETTINGS, table


def works(setting: str, model: str) -> bool:
    try:
        SETTINGS[setting](CASES[model])
    except Exception as error:  # any error is a cell of the table
        sys.stderr.write(f"{setting}, {model}: {type(error).__name__}: {error}\n")
        return False
    return True


if __name__ == "__main__":
    sys.stdout.write(table(works, list(CASES)))
