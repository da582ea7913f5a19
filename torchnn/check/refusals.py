"""What torch says when a style of writing a backward cannot do something: no mistake, but good to know.

Each property names the refusals that it takes for such; anything else that is raised is a failure.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Refusal(NamedTuple):
    """A sentence of torch's (a regular expression), and the reason in our words."""

    pattern: str
    reason: str


IN_ONE = Refusal(
    r"it must override the setup_context staticmethod", "torch.func does not take forward and setup_context in one"
)
NO_VMAP = Refusal(r"but it does not have vmap support", "it has no rule for vmap (generate_vmap_rule = True makes one)")
NO_JVP = Refusal(r"You must implement the jvp function for custom autograd\.Function", "it has no jvp")
NO_FORWARD_MODE = Refusal(
    r"Trying to use forward AD with \S+ that does not support it", "torch has no forward mode of it"
)
NO_SECOND_ORDER = Refusal(
    r"derivative for '?(aten::)?\w+\S* is not implemented", "torch has no derivative of its backward"
)
HAS_JVP = Refusal(r"Unsupported custom jvp", "torch.compile takes no Function with a jvp")
NO_FAKE = Refusal(r"There was no fake impl registered", "it has no rule for fake tensors (register_fake)")
NO_OPERATOR = Refusal(r"No ONNX function found|DispatchError", "ONNX has no such operator")

UNSAFE = Refusal(r"are unsafe to autocast", "torch refuses it under autocast")

NO_BATCHING = Refusal(r"Batching rule not implemented for", "torch cannot batch an operation of it")
NO_BATCHED_STATE = Refusal(r"running_mean and running_var|were not batched", "it changes state that is not batched")

TRANSFORMS = IN_ONE, NO_VMAP, NO_BATCHING, NO_BATCHED_STATE
TRACING = HAS_JVP, NO_FAKE


def refusal(text: str, known: Iterable[Refusal]) -> str | None:
    """Why what torch says is a refusal of the style, or None where it is a mistake."""
    return next((one.reason for one in known if re.search(one.pattern, text)), None)


def first_line(error: object) -> str:
    """The first line of a message; of the compiler's, the one that says most."""
    if context := re.search(r"Developer debug context: (.*)", str(error)):
        return context[1][:240]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "no message")[:240]
