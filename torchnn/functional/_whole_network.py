"""The entry point of the whole-network pass: which calls it accepts, and the number of rows of a block.

All other calls go layer by layer, which gives the same result and raises the errors.
"""

import functools
import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchnn._torch import (
    autocast_is_on,
    dispatch_mode_is_active,
    forward_mode_is_active,
    guard_of,
    transforms_are_active,
)
from torchnn.functional._arguments import (
    REDUCTIONS,
    broadcasts,
    float32_precision,
    lower_precision,
    plain_apply,
)
from torchnn.ops._support import autocast_off
from torchnn.ops.loss import LOW_PRECISION, at_least_float32
from torchnn.ops.network.function import NetworkFunction
from torchnn.ops.network.loss import LOSS_FORMULAS, cancels
from torchnn.ops.network.plan import Plan, bytes_of_a_row
from torchnn.ops.network.products import products_of_layers

apply_network = plain_apply(NetworkFunction)

PLAIN = frozenset({Tensor, torch.nn.Parameter, type(None)})
DTYPES = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})

# Chosen by `python -m experiments.benchmark --only block-rows` on two cores with 32 MiB of last-level cache. Small
# blocks spend their time on starting operations; larger ones gain little or lose, and need more memory.
SHARE_OF_CACHE = 1 / 2
MIN_BLOCK_ROWS = 1024
DEFAULT_CACHE = 32 * 2**20  # bytes, if the system does not give the size
GPU_WORKSPACE = 48 * 2**20  # bytes; a GPU needs larger blocks; not measured

# A backward that has to wait for its incoming gradient saves up to this many bytes of activations, whatever the number
# of rows: saving them costs less than computing them again.
MAX_ACTIVATIONS_SAVED = 48 * 2**20


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
    """Return loss and output of one pass, or None if the pass does not accept the call or the arguments do not fit."""
    if not is_plain_eager():
        return None
    options = activations, loss, reduction, block_rows, torch.is_grad_enabled(), may_choose_products()
    is_usual = weight is None and pos_weight is None
    if is_usual and (plan := last_plan(options, tensors_of(loss, input, target, weights, biases))):
        value, output, *_ = apply_network(plan, input, target, None, None, *weights, *biases)
        return value, output
    given: tuple[Any, ...] = input, target, weight, pos_weight, *weights, *biases
    if input is None or not PLAIN.issuperset(map(type, given)):
        return None
    given = tuple([t if t is None else torch.func.debug_unwrap(t) for t in given])  # from a finished transform
    input, target, weight, pos_weight = given[:4]
    if type(reduction) is not str or not (loss is None or type(loss) is str):  # plans are cached by these values
        return None
    is_autocast = autocast_is_on(input.device.type)
    if is_autocast:
        input, *parameters = lower_precision(input, *given[4:])
        target = target if target is None else float32_precision(target)[0]
        given = input, target, weight, pos_weight, *parameters
    plan = plan_of(tensor_infos(given), *options, is_autocast)
    if plan is None:
        return None
    if is_usual and input.dim() == 2 and not is_autocast:
        remember(options, plan, tensors_of(loss, input, target, given[4:]))
        value, output, *_ = apply_network(plan, *given)
        return value, output
    return by_rows(plan, *given)


def by_rows(
    plan: Plan, x: Tensor, target: Any, weight: Tensor | None, pos_weight: Tensor | None, *parameters: Any
) -> tuple[Any, Tensor]:
    """Run the pass on tensors of any leading shape, with weights of the loss, and under autocast."""
    shape = (*x.shape[:-1], parameters[plan.num_layers - 1].shape[0])
    if len(shape) != 2:
        x, target = x.reshape(-1, x.shape[-1]), None if target is None else target.reshape(-1, shape[-1])
    if target is not None:
        weight, pos_weight = as_rows(weight, target, shape), as_rows(pos_weight, target, shape)
    with autocast_off(x):
        value, output, *_ = apply_network(plan, x, target, weight, pos_weight, *parameters)
    if len(shape) != 2:
        output = output.reshape(shape)
        value = value.reshape(shape) if value is not None and plan.reduction == "none" else value
    return value, output


class LastPlan(NamedTuple):
    """The plan of a call, and a function that returns whether other tensors have the same properties."""

    plan: Plan
    are_alike: Callable[..., bool]


# By options, the plan of the last call that had them: the steps of a training are alike.
LAST_PLANS: dict[tuple[Any, ...], LastPlan] = {}
MAX_LAST_PLANS = 64


def tensors_of(loss: str | None, input: Tensor, target: Tensor | None, *parameters: Sequence[Any]) -> list[Any]:
    """Return the tensors of a call without weights of the loss; without a loss there is no target."""
    return [input, *chain(*parameters)] if loss is None else [input, target, *chain(*parameters)]


def last_plan(options: tuple[Any, ...], tensors: Sequence[Any]) -> Plan | None:
    """Return the plan of the last call with the same options, if its tensors had the same properties as these.

    torch's guard compares them in a tenth of the time that Python would need.
    """
    try:
        last = LAST_PLANS.get(options)
        return last.plan if last and last.are_alike(*tensors) else None
    except TypeError:  # an argument cannot be hashed, or is not a tensor
        return None


def remember(options: tuple[Any, ...], plan: Plan, tensors: Sequence[Any]) -> None:
    """Keep the plan of a call, unless an argument is None, which the guard does not accept."""
    if type(None) in map(type, tensors):
        return
    if len(LAST_PLANS) >= MAX_LAST_PLANS:
        LAST_PLANS.clear()
    LAST_PLANS[options] = LastPlan(plan, guard_of(tensors))


class TensorInfo(NamedTuple):
    """What the pass needs to know about a tensor before it starts."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    layout: torch.layout
    requires_grad: bool


def tensor_infos(tensors: Sequence[Tensor | None]) -> tuple[tuple[Any, ...] | None, ...]:
    """Return the fields of a `TensorInfo` for each tensor, as plain tuples, which are faster to create."""
    return tuple([None if t is None else (t.shape, t.dtype, t.device, t.layout, t.requires_grad) for t in tensors])


@functools.lru_cache(maxsize=1024)
def plan_of(
    tensors: tuple[tuple[Any, ...] | None, ...],
    activations: tuple[str, ...],
    loss: str | None,
    reduction: str,
    block_rows: int | None,
    needs_gradients: bool,
    may_choose: bool,
    is_autocast: bool,
) -> Plan | None:
    """Return the plan for x, target, weight, pos_weight, W[1] … W[L], b[1] … b[L], or None if the pass refuses them.

    The last arguments tell whether gradients are on, whether the products may be chosen, and whether autocast is on.
    """
    x, target, weight, pos_weight, *parameters = [
        None if d is None else TensorInfo(*d)._replace(requires_grad=needs_gradients and d[-1]) for d in tensors
    ]
    num_layers = len(activations)
    weights, biases = [w for w in parameters[:num_layers] if w], parameters[num_layers:]
    if x is None or len(weights) != num_layers or not is_network(x, weights, biases):
        return None
    if any(t and t.dtype != x.dtype for t in parameters):
        return None
    if loss is not None:
        if target is None or loss not in LOSS_FORMULAS or reduction not in REDUCTIONS or (loss == "mse" and pos_weight):
            return None
        shape = (*x.shape[:-1], weights[-1].shape[0])
        takes_wider = is_autocast or cancels(activations[-1], loss)
        if not (is_target(target, x, shape, takes_wider) and all(is_weight(t, x, shape) for t in (weight, pos_weight))):
            return None
    needs = tuple(t is not None and t.requires_grad for t in (x, *parameters))
    num_rows, sizes = x.shape[:-1].numel(), (x.shape[-1], *[w.shape[0] for w in weights])
    if block_rows is None:
        waits = any(needs) and (loss is None or reduction == "none" or x.dtype == torch.float16)
        block_rows = rows_of_a_block(num_rows, sizes, x.dtype.itemsize, x.device.type, waits)
    products = None
    if may_choose:
        products = products_of_layers(min(block_rows, num_rows), sizes, x.dtype, x.device.type)
    return Plan(activations, loss, reduction, block_rows, needs, products)


def is_network(x: TensorInfo, weights: Sequence[TensorInfo], biases: Sequence[TensorInfo | None]) -> bool:
    """Return whether x has rows of real numbers, and weights and biases fit together and are on its device."""
    if x.dtype not in DTYPES or x.layout != torch.strided or not (x.shape and x.shape.numel()):
        return False
    size = x.shape[-1]
    for weight, bias in zip(weights, biases, strict=True):
        if weight.layout != torch.strided or weight.device != x.device or len(weight.shape) != 2:
            return False
        n_out, n_in = weight.shape
        if n_in != size or n_out == 0:
            return False
        if bias and (len(bias.shape) > 1 or bias.shape.numel() not in (1, n_out) or bias.device != x.device):
            return False
        size = n_out
    return True


def is_target(target: TensorInfo, x: TensorInfo, shape: tuple[int, ...], takes_wider: bool) -> bool:
    """Return whether a target is constant and has the output's shape and its dtype, or an accepted wider dtype."""
    is_wider = takes_wider and target.dtype == torch.float32 and x.dtype in LOW_PRECISION
    fits = target.shape == shape and target.device == x.device and (target.dtype == x.dtype or is_wider)
    return fits and not target.requires_grad


def is_weight(t: TensorInfo | None, x: TensorInfo, shape: tuple[int, ...]) -> bool:
    """Return whether a weight of the loss is missing, or constant and broadcasts to the elements of the loss."""
    if t is None:
        return True
    return t.dtype.is_floating_point and not t.requires_grad and t.device == x.device and broadcasts(t.shape, shape)


def as_rows(t: Tensor | None, target: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Return a weight of the loss, broadcast to the elements and viewed as rows."""
    return None if t is None else t.to(at_least_float32(target.dtype)).expand(shape).reshape(target.shape)


def is_plain_eager() -> bool:
    """Return whether no compiler traces, and no vmap, functional gradient or forward mode is active."""
    return not (
        torch.compiler.is_compiling() or transforms_are_active() or forward_mode_is_active() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    )


def may_choose_products() -> bool:
    """Return whether oneDNN may replace torch's products: it is on, and no mode counts or fakes operations."""
    return bool(torch.backends.mkldnn.enabled) and not dispatch_mode_is_active()


def rows_of_a_block(num_rows: int, sizes: tuple[int, ...], itemsize: int, device: str, waits: bool) -> int:
    """Return the number of rows whose workspace fits its share of the cache, evenly divided over the blocks.

    All rows, if the backward `waits` for its incoming gradient and the activations are small enough to be saved.
    """
    if waits and num_rows * itemsize * sum(sizes[1:-1]) <= MAX_ACTIVATIONS_SAVED:
        return num_rows
    workspace = SHARE_OF_CACHE * cache_bytes() if device == "cpu" else GPU_WORKSPACE
    most = max(MIN_BLOCK_ROWS, int(workspace / bytes_of_a_row(sizes, itemsize)))
    return most if num_rows <= most else math.ceil(num_rows / math.ceil(num_rows / most))


@functools.cache
def cache_bytes() -> int:
    """Return the size in bytes of the processor's last-level cache, as Linux reports it."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
        return int(text.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return DEFAULT_CACHE
