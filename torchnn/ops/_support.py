"""What every hand-written Function needs from the framework, stated once."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function

from torchnn._torch import autocast_is_on

F = TypeVar("F", bound=type[Function])

NOTHING = nullcontext()
_FORWARD_MODE_REFUSED: Any = staticmethod(Function.jvp)


def traceable_twin(function: F) -> F:
    """Return `function` without its forward-mode rule.

    `torch.compile(fullgraph=True)` refuses a Function that defines `jvp`, so a traced graph uses this subclass and
    everything else uses `function`.
    """
    members = {"jvp": _FORWARD_MODE_REFUSED, "__doc__": function.__doc__}
    return type(f"Traceable{function.__name__}", (function,), members)  # type: ignore[return-value]


def autocast_off(t: Tensor) -> AbstractContextManager[Any]:
    """Context in which products keep the dtypes they are given, for a backward that runs inside autocast.

    `functional` has cast the inputs already; casting again here would change the dtype of a gradient.
    """
    device = t.device.type
    return torch.autocast(device, enabled=False) if autocast_is_on(device) else NOTHING
