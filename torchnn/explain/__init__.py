"""Backpropagation with a network's own numbers: `trace`, and the command `torchnn explain`."""

from torchnn.explain.records import Trace
from torchnn.explain.trace import trace

__all__ = ["Trace", "trace"]
