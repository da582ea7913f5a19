"""The hand-derived operations, with the argument order, defaults, dtypes, shapes and errors of torch's equivalents.

Every function here checks its arguments, casts them for autocast, and applies the Function of `torchnn.ops` that has
the derived backward. Nothing else in torchnn calls `.apply`.
"""

from torchnn.functional.layers import dense, dense_activation, relu, sigmoid, step, tanh
from torchnn.functional.losses import binary_cross_entropy, binary_cross_entropy_with_logits, mse_loss
from torchnn.functional.network import mlp, mlp_loss

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "dense",
    "dense_activation",
    "mlp",
    "mlp_loss",
    "mse_loss",
    "relu",
    "sigmoid",
    "step",
    "tanh",
]
