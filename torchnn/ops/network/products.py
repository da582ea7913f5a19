"""The three matrix products of a layer in the whole-network pass, by the faster of torch's two libraries.

torch computes float32 products with MKL, which uses only half the vector width of some AMD processors. oneDNN, which
torch uses for 16-bit numbers, uses all of it, so products of more than a few rows take half the time. But oneDNN's
operation cannot write into a given buffer, and the rows of its first factor must be contiguous.
"""

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from torchnn._torch import has_onednn_linear, onednn_linear

Block = Shaped[Tensor, "rows features"]  # of one block of rows
linear: Any = torch.nn.functional.linear  # its stub does not know `out`

# Measured on two cores of an AMD EPYC (Zen 5), from 256 × 64 × 64 to 1,024 × 4,096 × 4,096. Below these numbers of
# multiplications, and for layers with few features, the call to oneDNN costs more than it gains. A transposed copy of
# the narrower factor pays if the other factor is at least this wide.
MIN_MULTIPLICATIONS = 2**21
MIN_MULTIPLICATIONS_WITH_A_COPY = 2**23
MIN_FEATURES = 16
MIN_FEATURES_FOR_A_COPY = 96


class Products(NamedTuple):
    """The three products of a layer.

    Attributes:
        forward: `forward(a, weight, bias, out)` returns z = a Wᵀ + b.
        backward_input: `backward_input(delta, weight, out)` returns ∂J/∂a = δ W.
        backward_weight: `backward_weight(delta, a, total)` returns ∂J/∂W = δᵀ a, added to `total` if there is one.
        writes_to_out: whether the first two write their result into `out`.
    """

    forward: Callable[..., Block]
    backward_input: Callable[..., Block]
    backward_weight: Callable[..., Tensor]
    writes_to_out: bool = True


def torch_forward(below: Block, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Block:
    """z = a Wᵀ + b."""
    return linear(below, weight, bias, out=out)  # type: ignore[no-any-return]


def torch_backward_input(delta: Block, weight: Tensor, out: Tensor | None = None) -> Block:
    """∂J/∂a = δ W."""
    return torch.mm(delta, weight, out=out)


def torch_backward_weight(delta: Block, below: Block, total: Tensor | None = None) -> Tensor:
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
    """∂J/∂W = δᵀ a, or the transpose of aᵀ δ, whichever makes the transposed copy of the narrower factor."""
    delta, below = delta.contiguous(), below.contiguous()
    if below.shape[1] < delta.shape[1]:
        product = onednn_linear(below.t(), delta.t()).t()
    else:
        product = onednn_linear(delta.t(), below.t())
    return product if total is None else total.add_(product)


TORCH_PRODUCTS = Products(
    forward=torch_forward, backward_input=torch_backward_input, backward_weight=torch_backward_weight
)
ONEDNN_PRODUCTS = Products(
    forward=onednn_forward,
    backward_input=onednn_backward_input,
    backward_weight=onednn_backward_weight,
    writes_to_out=False,
)
MIXED_PRODUCTS = ONEDNN_PRODUCTS._replace(backward_weight=torch_backward_weight)


def products_of_layers(num_rows: int, sizes: Sequence[int], dtype: torch.dtype, device: str) -> list[Products]:
    """Return the products of each layer for blocks of `num_rows` rows."""
    if device != "cpu" or dtype != torch.float32 or not onednn_is_faster():
        return [TORCH_PRODUCTS] * (len(sizes) - 1)
    return [products_of_layer(num_rows, n_in, n_out) for n_in, n_out in pairwise(sizes)]


def products_of_layer(num_rows: int, n_in: int, n_out: int) -> Products:
    multiplications = num_rows * n_in * n_out
    if multiplications < MIN_MULTIPLICATIONS or min(n_in, n_out) < MIN_FEATURES:
        return TORCH_PRODUCTS
    copy_pays = max(n_in, n_out) >= MIN_FEATURES_FOR_A_COPY
    return ONEDNN_PRODUCTS if copy_pays and multiplications >= MIN_MULTIPLICATIONS_WITH_A_COPY else MIXED_PRODUCTS


@functools.cache
def onednn_is_faster() -> bool:
    """Return whether this is an AMD processor with AVX-512 on which torch computes float32 products with MKL."""
    if not (has_onednn_linear() and torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    processor = torch.cpu.get_capabilities()
    return "AMD" in processor.get("cpu_name", "") and bool(processor.get("avx512_f"))
