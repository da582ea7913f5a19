"""Whether a module is its formula and nothing else."""

from torch import nn

from torchnn._torch import has_hooks


def is_untouched(module: nn.Module) -> bool:
    """No hooks, and no `forward` of its own beside that of its class."""
    return not has_hooks(module) and "forward" not in vars(module)
