"""The three matrix products of a layer in the whole-network pass, by the faster of the libraries that torch brings.

On processors that are not Intel's, MKL, which torch takes for float32, runs code for half the vector width that some of
them have. oneDNN, which torch takes for 16-bit numbers, runs code for all of it: products of more than a few rows take
half the time. Its operation writes to no room of ours and wants the rows of its first factor side by side.
"""

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from torchnn._torch import has_onednn_linear, onednn_linear

Block = Shaped[Tensor, "rows features"]
linear: Any = torch.nn.functional.linear  # its stub does not know `out`

# Measured on two cores of an AMD EPYC (Zen 5), from 256 × 64 × 64 to 1,024 × 4,096 × 4,096: below these numbers of
# multiplications calling oneDNN costs more than it gains, as it does for a layer of a few features; a transposed copy
# of the narrower factor pays where the other is at least so wide.
FEWEST_MULTIPLICATIONS = 2**21
FEWEST_MULTIPLICATIONS_WITH_A_COPY = 2**23
FEWEST_FEATURES = 16
FEWEST_FEATURES_FOR_A_COPY = 96


class Products(NamedTuple):
    """z = a Wᵀ + b, ∂J/∂a = δ W and ∂J/∂W = δᵀ a.

    `out` is where to write the first two, where `takes_room`; the third is added to `total`, where there is one.
    """

    forward: Callable[..., Block]
    backward_input: Callable[..., Block]
    backward_weight: Callable[..., Tensor]
    takes_room: bool = True


def forward(below: Block, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Block:
    """z = a Wᵀ + b."""
    return linear(below, weight, bias, out=out)  # type: ignore[no-any-return]


def backward_input(delta: Block, weight: Tensor, out: Tensor | None = None) -> Block:
    """∂J/∂a = δ W."""
    return torch.mm(delta, weight, out=out)


def backward_weight(delta: Block, below: Block, total: Tensor | None = None) -> Tensor:
    """∂J/∂W = δᵀ a."""
    if total is None:
        return torch.mm(delta.t(), below)
    if total.dtype == delta.dtype:
        return total.addmm_(delta.t(), below)
    return total.add_(torch.mm(delta.t(), below))


def onednn_forward(below: Block, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Block:
    """z = a Wᵀ + b."""
    if bias is None or bias.shape == weight.shape[:1]:
        return onednn_linear(below, weight.contiguous(), None if bias is None else bias.contiguous())
    return onednn_linear(below, weight.contiguous()).add_(bias)  # one number for all neurons


def onednn_backward_input(delta: Block, weight: Tensor, out: Tensor | None = None) -> Block:
    """∂J/∂a = δ W."""
    return onednn_linear(delta, weight.contiguous().t())


def onednn_backward_weight(delta: Block, below: Block, total: Tensor | None = None) -> Tensor:
    """∂J/∂W = δᵀ a, or the transpose of aᵀ δ: of two factors, the narrower is copied into columns."""
    delta, below = delta.contiguous(), below.contiguous()
    if below.shape[1] < delta.shape[1]:
        product = onednn_linear(below.t(), delta.t()).t()
    else:
        product = onednn_linear(delta.t(), below.t())
    return product if total is None else total.add_(product)


TORCH = Products(forward, backward_input, backward_weight)
ONEDNN = Products(onednn_forward, onednn_backward_input, onednn_backward_weight, takes_room=False)
MIXED = ONEDNN._replace(backward_weight=backward_weight)


def products_of_layers(num_rows: int, sizes: Sequence[int], dtype: torch.dtype, device: str) -> list[Products]:
    """The products of each layer for blocks of so many rows."""
    if device != "cpu" or dtype != torch.float32 or not onednn_is_faster():
        return [TORCH] * (len(sizes) - 1)
    return [products_of_layer(num_rows, n_in, n_out) for n_in, n_out in pairwise(sizes)]


def products_of_layer(num_rows: int, n_in: int, n_out: int) -> Products:
    multiplications = num_rows * n_in * n_out
    if multiplications < FEWEST_MULTIPLICATIONS or min(n_in, n_out) < FEWEST_FEATURES:
        return TORCH
    copy_pays = max(n_in, n_out) >= FEWEST_FEATURES_FOR_A_COPY
    return ONEDNN if copy_pays and multiplications >= FEWEST_MULTIPLICATIONS_WITH_A_COPY else MIXED


@functools.cache
def onednn_is_faster() -> bool:
    """Whether this is an AMD processor with AVX-512, where torch's float32 products are MKL's."""
    if not (has_onednn_linear() and torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    processor = torch.cpu.get_capabilities()
    return "AMD" in processor.get("cpu_name", "") and bool(processor.get("avx512_f"))
