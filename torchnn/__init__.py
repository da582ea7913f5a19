"""Backpropagation by hand: derived gradients as autograd Functions, proven against PyTorch's autograd.

A name is imported when it is first used, so that `torchnn --help` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchnn import functional
    from torchnn.conversion import convert, revert
    from torchnn.modules.activation import ReLU, Sigmoid, Step, Tanh
    from torchnn.modules.dense import Dense, DenseActivation, DenseSigmoid
    from torchnn.modules.loss import BCELoss, BCEWithLogitsLoss, MSELoss
    from torchnn.modules.mlp import MLP

__version__ = "0.2.0"

__all__ = [
    "MLP",
    "BCELoss",
    "BCEWithLogitsLoss",
    "Dense",
    "DenseActivation",
    "DenseSigmoid",
    "MSELoss",
    "ReLU",
    "Sigmoid",
    "Step",
    "Tanh",
    "convert",
    "functional",
    "revert",
]

_SUBMODULES = ("functional", "modules", "ops")
_MODULE_OF = {
    "MLP": "modules.mlp",
    "BCELoss": "modules.loss",
    "BCEWithLogitsLoss": "modules.loss",
    "Dense": "modules.dense",
    "DenseActivation": "modules.dense",
    "DenseSigmoid": "modules.dense",
    "MSELoss": "modules.loss",
    "ReLU": "modules.activation",
    "Sigmoid": "modules.activation",
    "Step": "modules.activation",
    "Tanh": "modules.activation",
    "convert": "conversion",
    "revert": "conversion",
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"torchnn.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'torchnn' has no attribute {name!r}")
    value = getattr(import_module(f"torchnn.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
