"""Whether a module is its formula and nothing else."""

from torch import nn


def is_untouched(module: nn.Module) -> bool:
    """No hooks, and no `forward` of its own beside that of its class."""
    return not (
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    ) and "forward" not in vars(module)
