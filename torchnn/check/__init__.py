"""Check a hand-written backward: `check_backward`, `assert_backward`, and the command `torchnn check`."""

from torchnn.check.report import Report, Row
from torchnn.check.runner import assert_backward, check_backward
from torchnn.check.subject import WrongUseError

__all__ = ["Report", "Row", "WrongUseError", "assert_backward", "check_backward"]
