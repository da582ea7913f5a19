"""The door to the whole-network pass: which calls it takes, and the rows of a block.

Whatever is not plain goes layer by layer, which gives the same answer and words the errors.
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
from torchnn.ops.network.loss import LOSSES, cancels
from torchnn.ops.network.plan import Plan, bytes_of_a_row
from torchnn.ops.network.products import products_of_layers

apply_network = plain_apply(NetworkFunction)

PLAIN = frozenset({Tensor, torch.nn.Parameter, type(None)})
DTYPES = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})

# Chosen by `python -m experiments.benchmark --only block-rows` on two cores with 32 MiB of last-level cache. Small
# blocks spend their time starting operations; larger ones gain little or lose, and take more memory.
SHARE_OF_CACHE = 1 / 2
FEWEST_ROWS = 1024
USUAL_CACHE = 32 * 2**20  # bytes, where the system does not tell
WORKSPACE_BESIDE_CPU = 48 * 2**20  # bytes; a GPU wants larger blocks; not measured

# A backward that has to wait for its incoming gradient keeps the activations up to this many bytes, whatever the number
# of rows: fewer cost less to keep than to take forward once more.
MOST_ACTIVATIONS_KEPT = 48 * 2**20


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
    if not is_plain_eager():
        return None
    question = activations, loss, reduction, block_rows, torch.is_grad_enabled(), may_choose_products()
    is_usual = weight is None and pos_weight is None
    if is_usual and (known := known_plan(question, tensors_of(loss, input, target, weights, biases))):
        value, output, *_ = apply_network(known, input, target, None, None, *weights, *biases)
        return value, output
    given: tuple[Any, ...] = input, target, weight, pos_weight, *weights, *biases
    if input is None or not PLAIN.issuperset(map(type, given)):
        return None
    given = tuple([t if t is None else torch.func.debug_unwrap(t) for t in given])  # a transform may leave its wrapper
    input, target, weight, pos_weight = given[:4]
    if type(reduction) is not str or not (loss is None or type(loss) is str):  # what is kept of calls has to be hashed
        return None
    is_autocast = autocast_is_on(input.device.type)
    if is_autocast:
        input, *parameters = lower_precision(input, *given[4:])
        target = target if target is None else float32_precision(target)[0]
        given = input, target, weight, pos_weight, *parameters
    plan = plan_of(described(given), *question, is_autocast)
    if plan is None:
        return None
    if is_usual and input.dim() == 2 and not is_autocast:
        remember(question, plan, tensors_of(loss, input, target, given[4:]))
        value, output, *_ = apply_network(plan, *given)
        return value, output
    return by_rows(plan, *given)


def by_rows(
    plan: Plan, x: Tensor, target: Any, weight: Tensor | None, pos_weight: Tensor | None, *parameters: Any
) -> tuple[Any, Tensor]:
    """The pass on tensors of any leading shape, with weights of the loss, and under autocast."""
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


class Known(NamedTuple):
    """The plan of a call, and whether other tensors are like its own, in all that the pass asks about."""

    plan: Plan
    are_alike: Callable[..., bool]


KNOWN: dict[tuple[Any, ...], Known] = {}  # the last call of each question; a training asks the same one at every step
MOST_KNOWN = 64


def tensors_of(loss: str | None, input: Tensor, target: Tensor | None, *parameters: Sequence[Any]) -> list[Any]:
    """The tensors of a usual call; without a loss there is no target."""
    return [input, *chain(*parameters)] if loss is None else [input, target, *chain(*parameters)]


def known_plan(question: tuple[Any, ...], tensors: Sequence[Any]) -> Plan | None:
    """The plan of the last call that asked the same, if its tensors were like these.

    torch's own guard of compiled code compares class, dtype, device, shape, strides, need of a gradient and the keys
    of dispatch, which tell autocast and the wrappers of transforms too: in a tenth of the time that Python takes.
    """
    try:
        known = KNOWN.get(question)
        return known.plan if known and known.are_alike(*tensors) else None
    except TypeError:  # an argument that cannot be hashed, or is no tensor
        return None


def remember(question: tuple[Any, ...], plan: Plan, tensors: Sequence[Any]) -> None:
    """Keep the plan of a call of tensors only: the guard knows no None."""
    if type(None) in map(type, tensors):
        return
    if len(KNOWN) >= MOST_KNOWN:
        KNOWN.clear()
    KNOWN[question] = Known(plan, guard_of(tensors))


class Described(NamedTuple):
    """What the pass asks about a tensor before it starts."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    layout: torch.layout
    requires_grad: bool


def described(tensors: Sequence[Tensor | None]) -> tuple[tuple[Any, ...] | None, ...]:
    """What `Described` holds of each, as plain tuples, which are faster to make."""
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
    """The plan for x, target, weight, pos_weight, W[1] … W[L], b[1] … b[L]; None where they are not for the pass.

    The last arguments say whether gradients are on, whether the products may be chosen, and whether autocast is on.
    """
    x, target, weight, pos_weight, *parameters = [
        None if d is None else Described(*d)._replace(requires_grad=needs_gradients and d[-1]) for d in tensors
    ]
    num_layers = len(activations)
    weights, biases = [w for w in parameters[:num_layers] if w], parameters[num_layers:]
    if x is None or len(weights) != num_layers or not is_network(x, weights, biases):
        return None
    if any(t and t.dtype != x.dtype for t in parameters):
        return None
    if loss is not None:
        if target is None or loss not in LOSSES or reduction not in REDUCTIONS or (loss == "mse" and pos_weight):
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


def is_network(x: Described, weights: Sequence[Described], biases: Sequence[Described | None]) -> bool:
    """Whether real numbers of rows go through weights and biases that fit together, on one device."""
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


def is_target(target: Described, x: Described, shape: tuple[int, ...], takes_wider: bool) -> bool:
    """Whether a target is constant, of the output's shape and of its dtype, or of a wider one where that is taken."""
    is_wider = takes_wider and target.dtype == torch.float32 and x.dtype in LOW_PRECISION
    fits = target.shape == shape and target.device == x.device and (target.dtype == x.dtype or is_wider)
    return fits and not target.requires_grad


def is_weight(t: Described | None, x: Described, shape: tuple[int, ...]) -> bool:
    """Whether a weight of the loss is missing, or constant numbers that broadcast to its elements."""
    if t is None:
        return True
    return t.dtype.is_floating_point and not t.requires_grad and t.device == x.device and broadcasts(t.shape, shape)


def as_rows(t: Tensor | None, target: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """A weight of the loss, broadcast to the elements and seen as rows."""
    return None if t is None else t.to(at_least_float32(target.dtype)).expand(shape).reshape(target.shape)


def is_plain_eager() -> bool:
    """Nothing traces or transforms: no compiler, no vmap or functional gradient, no forward mode."""
    return not (
        torch.compiler.is_compiling() or transforms_are_active() or forward_mode_is_active() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    )


def may_choose_products() -> bool:
    """Whether oneDNN may stand in for torch's products: it is on, and nobody counts or fakes operations."""
    return bool(torch.backends.mkldnn.enabled) and not dispatch_mode_is_active()


def rows_of_a_block(num_rows: int, sizes: tuple[int, ...], itemsize: int, device: str, waits: bool) -> int:
    """As many rows as keep the workspace in its share of the cache, spread evenly over the blocks.

    All rows, where the backward `waits` for its incoming gradient and the activations are small enough to be kept.
    """
    if waits and num_rows * itemsize * sum(sizes[1:-1]) <= MOST_ACTIVATIONS_KEPT:
        return num_rows
    workspace = SHARE_OF_CACHE * cache_bytes() if device == "cpu" else WORKSPACE_BESIDE_CPU
    most = max(FEWEST_ROWS, int(workspace / bytes_of_a_row(sizes, itemsize)))
    return most if num_rows <= most else math.ceil(num_rows / math.ceil(num_rows / most))


@functools.cache
def cache_bytes() -> int:
    """Bytes of the last level of the processor's cache, as Linux tells it."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
        return int(text.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return USUAL_CACHE
