"""The whole-network pass in stages, so that processes can exchange gradients during the backward.

`DistributedDataParallel` sends a bucket of gradients as soon as the backward has computed them, while the backward
continues. A single node for the whole network returns all its gradients at once, so nothing could overlap. A batch of
one block, for which the exchange takes the largest part of a step, therefore goes through a chain of nodes, each for a
few layers. With more blocks, only the gradients of the last one could be sent early; measured, that gains nothing.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from torchnn.functional._whole_network import is_plain_eager, rows_of_a_block, whole_network

# The size of the first bucket of DistributedDataParallel: the gradients of a smaller stage would not be sent earlier.
STAGE_BYTES = 2**20


def exchanges_gradients() -> bool:
    """Return whether this process is one of several, and no compiler traces."""
    if torch.compiler.is_compiling():
        return False
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def in_stages(
    input: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activations: tuple[str, ...],
    target: Tensor,
    loss: str,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
    block_rows: int | None = None,
) -> tuple[Any, Tensor] | None:
    """Return what `whole_network` returns, or None if stages are of no use for this call."""
    if not (torch.is_grad_enabled() and is_plain_eager()):
        return None
    if not all(isinstance(t, Tensor) and t.dim() == 2 for t in (input, *weights)):
        return None
    *stages, last = stages_of([w.nbytes for w in weights])
    num_rows = len(input)
    if block_rows is None:
        sizes = input.shape[1], *[len(w) for w in weights]
        block_rows = rows_of_a_block(num_rows, sizes, input.element_size(), input.device.type, waits=False)
    if not stages or num_rows > block_rows:
        return None
    a = input
    for stage in stages:
        results = whole_network(a, weights[stage], biases[stage], activations[stage], block_rows=block_rows)
        if results is None:
            return None
        a = results[1]
    options = target, loss, weight, pos_weight, reduction, block_rows
    return whole_network(a, weights[last], biases[last], activations[last], *options)


def stages_of(num_bytes: Sequence[int]) -> list[slice]:
    """Return consecutive layers in order: every stage but the first has at least `STAGE_BYTES` of weights.

    >>> stages_of([8, 2**20, 2**22, 16])
    [slice(0, 1, None), slice(1, 2, None), slice(2, 4, None)]
    """
    stages, end, total = [], len(num_bytes), 0
    for layer in range(len(num_bytes) - 1, -1, -1):
        total += num_bytes[layer]
        if total >= STAGE_BYTES or layer == 0:
            stages.append(slice(layer, end))
            end, total = layer, 0
    return stages[::-1]
