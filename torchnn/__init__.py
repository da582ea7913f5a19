"""Backpropagation by hand: derived gradients as autograd Functions, proven against PyTorch's autograd."""

from torchnn import functional
from torchnn.convert import convert, revert
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
