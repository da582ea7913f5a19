"""What all hand-written Functions share."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd import Function

from torchnn._torch import autocast_is_on

FunctionClass = TypeVar("FunctionClass", bound=type[Function])
Elements = Shaped[Tensor, "*elements"]
OptionalTensor = Tensor | None

_NO_CONTEXT = nullcontext()
_JVP_NOT_DEFINED: Any = staticmethod(Function.jvp)


def without_jvp(function: FunctionClass) -> FunctionClass:
    """Return a subclass of `function` that does not define `jvp`.

    `torch.compile(fullgraph=True)` refuses a Function that defines `jvp`, so a traced graph uses this subclass and
    everything else uses `function`.
    """
    members = {"jvp": _JVP_NOT_DEFINED, "__doc__": function.__doc__}
    return type(f"Traceable{function.__name__}", (function,), members)  # type: ignore[return-value]


def autocast_off(t: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which products keep the dtypes of their factors, for a backward that runs under autocast.

    `functional` has already cast the inputs. A second cast here would change the dtype of a gradient.
    """
    device = t.device.type
    return torch.autocast(device, enabled=False) if autocast_is_on(device) else _NO_CONTEXT
