"""The door to the whole-network pass: which calls it takes, and the rows of a block.

Whatever is not plain goes layer by layer, which gives the same answer and words the errors.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from torchnn.functional._arguments import (
    REDUCTIONS,
    apply_plainly,
    broadcasts,
    float32_precision,
    lower_precision,
)
from torchnn.ops._support import autocast_is_on, autocast_off
from torchnn.ops.loss import LOW_PRECISION, at_least_float32
from torchnn.ops.network import NetworkFunction
from torchnn.ops.network_loss import LOSSES, cancels
from torchnn.ops.network_plan import Plan, bytes_of_a_row

PLAIN = frozenset({Tensor, torch.nn.Parameter})
DTYPES = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})

# Chosen by timing `block_rows` on two cores with 32 MiB of last-level cache. Small blocks spend their time starting
# operations, those of 16-bit products most of all.
SHARE_OF_CACHE = 1 / 4
SHARE_OF_CACHE_16_BIT = 1 / 2
FEWEST_ROWS = 1024
USUAL_CACHE = 32 * 2**20  # bytes, where the system does not tell
WORKSPACE_BESIDE_CPU = 48 * 2**20  # bytes; a GPU wants larger blocks; not measured

plan_of = functools.lru_cache(maxsize=256)(Plan)


def whole_network(
    input: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activations: tuple[str, ...],
    target: Tensor | None = None,
    loss: str | None = None,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
    block_rows: int | None = None,
) -> tuple[Any, Tensor] | None:
    """Loss and output in one pass, or None where the pass is not for this call or the arguments do not fit together."""
    if not (is_plain_eager() and are_plain(input, weights, biases)):
        return None
    if loss is not None and (type(target) not in PLAIN or loss not in LOSSES or reduction not in REDUCTIONS):
        return None
    x, parameters, is_autocast = input, [*weights, *biases], autocast_is_on(input.device.type)
    if is_autocast:
        x, *parameters = lower_precision(x, *parameters)
        target = target if target is None else float32_precision(target)[0]
    if any(t is not None and t.dtype != x.dtype for t in parameters):
        return None
    shape = (*x.shape[:-1], weights[-1].shape[0])
    if target is not None:
        takes_wider = is_autocast or cancels(activations[-1], loss)
        if not labels_fit(x, shape, target, loss, weight, pos_weight, takes_wider):
            return None
    if len(shape) != 2:
        x, target = x.reshape(-1, x.shape[-1]), None if target is None else target.reshape(-1, shape[-1])
    if target is not None:
        weight, pos_weight = as_rows(weight, target, shape), as_rows(pos_weight, target, shape)
    needs = (False,) * (1 + len(parameters))
    if torch.is_grad_enabled():
        needs = tuple([t is not None and t.requires_grad for t in (x, *parameters)])
    plan = plan_of(activations, loss, reduction, block_rows or rows_of_a_block(x, weights), needs)
    with autocast_off(x):
        value, output, *_ = apply_plainly(NetworkFunction, plan, x, target, weight, pos_weight, *parameters)
    if len(shape) != 2:
        output = output.reshape(shape)
        value = value.reshape(shape) if value is not None and reduction == "none" else value
    return value, output


def are_plain(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> bool:
    """Real float tensors of torch's own classes, in the shapes of a network, on one device."""
    if type(x) not in PLAIN or x.dtype not in DTYPES or x.layout != torch.strided or not (x.dim() and x.numel()):
        return False
    size, device = x.shape[-1], x.device
    for weight, bias in zip(weights, biases, strict=True):
        if type(weight) not in PLAIN or weight.layout != torch.strided or weight.device != device or weight.dim() != 2:
            return False
        n_out, n_in = weight.shape
        if n_in != size or n_out == 0 or not weight.is_floating_point():
            return False
        if bias is not None and (type(bias) not in PLAIN or bias.dim() > 1 or bias.device != device):
            return False
        if bias is not None and bias.numel() not in (1, n_out):
            return False
        size = n_out
    return True


def labels_fit(
    x: Tensor,
    shape: tuple[int, ...],
    target: Tensor,
    loss: str | None,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    takes_wider: bool,
) -> bool:
    """A constant target of the output's shape and dtype, or wider; weights that are constant numbers."""
    if (
        target.shape != shape
        or target.device != x.device
        or target.requires_grad
        or (loss == "mse" and pos_weight is not None)
    ):
        return False
    is_wider = takes_wider and target.dtype == torch.float32 and x.dtype in LOW_PRECISION
    if target.dtype != x.dtype and not is_wider:
        return False
    return all(t is None or is_weight(t, x.device, shape) for t in (weight, pos_weight))


def is_weight(t: Tensor, device: torch.device, shape: tuple[int, ...]) -> bool:
    is_constant = type(t) in PLAIN and t.is_floating_point() and not t.requires_grad
    return is_constant and t.device == device and broadcasts(t.shape, shape)


def as_rows(t: Tensor | None, target: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """A weight of the loss, broadcast to the elements and seen as rows."""
    return None if t is None else t.to(at_least_float32(target.dtype)).expand(shape).reshape(target.shape)


def is_plain_eager() -> bool:
    """Nothing traces or transforms: no compiler, no vmap or functional gradient, no forward mode."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


def rows_of_a_block(x: Tensor, weights: Sequence[Tensor]) -> int:
    """As many rows as keep the workspace in its share of the cache, spread evenly over the blocks."""
    num_rows = x.shape[0]
    if num_rows <= FEWEST_ROWS:
        return FEWEST_ROWS
    most = most_rows_of_a_block((x.shape[1], *[len(w) for w in weights]), x.element_size(), x.device.type)
    return most if num_rows <= most else math.ceil(num_rows / math.ceil(num_rows / most))


@functools.lru_cache(maxsize=256)
def most_rows_of_a_block(sizes: tuple[int, ...], itemsize: int, device: str) -> int:
    """Rows that fit into the workspace, `FEWEST_ROWS` at least."""
    share = SHARE_OF_CACHE_16_BIT if itemsize == 2 else SHARE_OF_CACHE
    workspace = share * cache_bytes() if device == "cpu" else WORKSPACE_BESIDE_CPU
    return max(FEWEST_ROWS, int(workspace / bytes_of_a_row(sizes, itemsize)))


@functools.cache
def cache_bytes() -> int:
    """Bytes of the last level of the processor's cache, as Linux tells it."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
        return int(text.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return USUAL_CACHE
