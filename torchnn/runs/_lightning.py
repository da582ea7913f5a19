"""Every private name of Lightning that torchnn uses, in one function each."""

from datetime import timedelta
from typing import Any


def process_group_options(strategy: Any) -> tuple[str, timedelta] | None:
    """Backend and timeout of the process group that a strategy would make; None if it makes none."""
    if not hasattr(strategy, "_get_process_group_backend"):
        return None
    return strategy._get_process_group_backend(), strategy._timeout
