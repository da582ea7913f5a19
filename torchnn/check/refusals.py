"""Errors by which torch refuses something to a certain style of Function. They are worth knowing, but not mistakes.

Each property lists the refusals that it expects; any other exception is a failure.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Refusal(NamedTuple):
    """A regular expression that matches torch's error message, and the reason in our words."""

    pattern: str
    reason: str


COMBINED_FORWARD = Refusal(
    r"it must override the setup_context staticmethod",
    "torch.func needs a separate setup_context, and here forward takes ctx",
)
NO_VMAP = Refusal(
    r"but it does not have vmap support", "it has no rule for vmap (set generate_vmap_rule = True to get one)"
)
NO_JVP = Refusal(r"You must implement the jvp function for custom autograd\.Function", "it defines no jvp")
NO_FORWARD_MODE = Refusal(
    r"Trying to use forward AD with \S+ that does not support it", "torch has no forward mode for one of its operations"
)
NO_SECOND_ORDER = Refusal(
    r"derivative for '?(aten::)?\w+\S* is not implemented", "torch cannot differentiate one of its operations twice"
)
HAS_JVP = Refusal(r"Unsupported custom jvp", "torch.compile does not support a Function with a jvp")
NO_FAKE = Refusal(r"There was no fake impl registered", "it has no rule for fake tensors (use register_fake)")
NO_OPERATOR = Refusal(r"No ONNX function found|DispatchError", "ONNX has no operator for one of its operations")

UNSAFE = Refusal(r"are unsafe to autocast", "torch refuses it under autocast")

NO_BATCHING = Refusal(r"Batching rule not implemented for", "torch has no batching rule for one of its operations")
BATCHED_STATE = Refusal(
    r"running_mean and running_var|were not batched", "it updates a buffer, which vmap cannot do for each sample"
)

TRANSFORMS = COMBINED_FORWARD, NO_VMAP, NO_BATCHING, BATCHED_STATE
TRACING = HAS_JVP, NO_FAKE


def refusal(text: str, known: Iterable[Refusal]) -> str | None:
    """The reason if an error message is one of the known refusals, otherwise None."""
    return next((one.reason for one in known if re.search(one.pattern, text)), None)


def error_line(error: object) -> str:
    """The first line of an error message; for the compiler, the line that says most."""
    if context := re.search(r"Developer debug context: (.*)", str(error)):
        return context[1][:240]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "no message")[:240]
