"""Backpropagation shown on a network's own numbers: `trace`, and the command `torchnn explain`."""

from torchnn.explain.derive import trace
from torchnn.explain.trace import Trace

__all__ = ["Trace", "trace"]
