"""The whole-network pass among processes that exchange gradients: the last layers' leave before the first layers' come.

`DistributedDataParallel` sends a bucket of gradients as soon as the backward has given all of them, while the backward
goes on. A single node for the whole network gives all its gradients at once, and nothing is left to go on with.
A batch of one block, where the exchange takes the largest share of a step, therefore goes through a chain of nodes,
each for a few layers. Of more blocks only the last could be released so; measured, that costs what it gains.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from torchnn.functional._whole_network import is_plain_eager, rows_of_a_block, whole_network

# DistributedDataParallel sends its first bucket when it holds so much: a smaller stage would have to wait.
BYTES_OF_A_STAGE = 2**20


def exchanges_gradients() -> bool:
    """Whether this process is one of several, and no compiler asks."""
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
    """Loss and output as `whole_network` gives them; None where stages are not for this call."""
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
        through = whole_network(a, weights[stage], biases[stage], activations[stage], block_rows=block_rows)
        if through is None:
            return None
        a = through[1]
    how = target, loss, weight, pos_weight, reduction, block_rows
    return whole_network(a, weights[last], biases[last], activations[last], *how)


def stages_of(num_bytes: Sequence[int]) -> list[slice]:
    """Consecutive layers, the first ones first: every stage but the first has `BYTES_OF_A_STAGE` of weights or more.

    >>> stages_of([8, 2**20, 2**22, 16])
    [slice(0, 1, None), slice(1, 2, None), slice(2, 4, None)]
    """
    stages, end, held = [], len(num_bytes), 0
    for layer in range(len(num_bytes) - 1, -1, -1):
        held += num_bytes[layer]
        if held >= BYTES_OF_A_STAGE or layer == 0:
            stages.append(slice(layer, end))
            end, held = layer, 0
    return stages[::-1]
