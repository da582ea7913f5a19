"""The plan of a whole-network pass, and the workspace that its blocks share."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torchnn._torch import dispatch_mode_is_active
from torchnn.ops.activation import ACTIVATIONS
from torchnn.ops.network.loss import cancels
from torchnn.ops.network.products import TORCH_PRODUCTS, Products

Parameters = Sequence[Any]  # W[1] … W[L], b[1] … b[L]; a bias may be None

MAX_WORKSPACE_KEPT = 16 * 2**20  # bytes that a thread keeps for its next step


class Plan:
    """Everything that a pass needs to know except its tensors.

    Args:
        activations: g[1] … g[L] by name.
        loss: name of the loss, or None for the output only.
        reduction: "mean", "sum" or "none".
        block_rows: number of rows of a block.
        needs: which of x, W[1] … W[L], b[1] … b[L] get a gradient. Gradients are in this order everywhere.
        products: the matrix products of each layer; None for torch's own in all layers.
    """

    def __init__(
        self,
        activations: tuple[str, ...],
        loss: str | None,
        reduction: str,
        block_rows: int,
        needs: tuple[bool, ...],
        products: Sequence[Products] | None = None,
    ) -> None:
        self.activations = activations
        self.loss = loss
        self.reduction = reduction
        self.block_rows = block_rows
        self.needs = needs
        self.needs_any = any(needs)
        self.num_layers = len(activations)
        self.products = products or [TORCH_PRODUCTS] * self.num_layers
        self.forwards = [ACTIVATIONS[name].forward_ for name in activations]
        self.backwards = [ACTIVATIONS[name].backward_ for name in activations]
        self.cancels = cancels(activations[-1], loss)

    def scale(self, num_elements: int) -> float:
        """Return ∂J/∂𝓛 of each element of the loss."""
        return 1 / num_elements if self.reduction == "mean" else 1.0

    def lowest_layer(self, needs: Sequence[bool]) -> int:
        """Return the lowest layer whose δ is needed, counted from 0."""
        if needs[0] or needs[1]:
            return 0
        needs_weight, needs_bias = needs[1 : 1 + self.num_layers], needs[1 + self.num_layers :]
        needs_delta = (w or b for w, b in zip(needs_weight, needs_bias, strict=True))
        return next(layer for layer, needed in enumerate(needs_delta) if needed)


class Workspace:
    """Buffers for the activations of a block and for two of its δ, which one block after the other uses."""

    def __init__(self, plan: Plan, parameters: Parameters, with_deltas: bool) -> None:
        weights = parameters[: plan.num_layers]
        self.key = workspace_key(plan, weights, with_deltas)
        sizes = [w.shape[0] for w in weights[:-1]]
        uses_buffer = [products.writes_to_out for products in plan.products]
        activation_sizes = [size if uses else 0 for size, uses in zip(sizes, uses_buffer, strict=False)]
        self.activations = [new_empty(weights[0], plan.block_rows, size) for size in activation_sizes]
        delta_sizes = [size if uses else 0 for size, uses in zip(sizes, uses_buffer[1:], strict=True)]
        widest = max(delta_sizes, default=0) if with_deltas else 0
        self.deltas = [new_empty(weights[0], plan.block_rows * widest) for _ in range(2)]

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.activations, *self.deltas))

    def activation(self, layer: int, num_rows: int) -> Tensor:
        return self.activations[layer].narrow(0, 0, num_rows)

    def delta(self, layer: int, num_rows: int, num_features: int) -> Tensor:
        """Return the buffer for δ of a hidden layer; the layer above it uses the other one."""
        return self.deltas[layer % 2].narrow(0, 0, num_rows * num_features).view(num_rows, num_features)


def bytes_of_a_row(sizes: Sequence[int], itemsize: int) -> int:
    """Return the memory of one row of a block: x, its activations, two δ, and some columns for output and loss."""
    n_in, *hidden, n_out = sizes
    return itemsize * (n_in + sum(hidden) + 2 * max(hidden, default=0) + 8 * n_out)


def workspace_key(plan: Plan, weights: Parameters, with_deltas: bool) -> tuple[Any, ...]:
    """Return what must be equal for a workspace to be used again."""
    like, sizes = weights[0], tuple(w.shape[0] for w in weights)
    uses_buffer = tuple(products.writes_to_out for products in plan.products)
    return plan.block_rows, sizes, uses_buffer, like.dtype, with_deltas, torch.is_inference_mode_enabled()


_workspaces = threading.local()


@contextmanager
def workspace(plan: Plan, parameters: Parameters, with_deltas: bool) -> Iterator[Workspace]:
    """Return a context with a workspace that no other pass uses.

    A thread keeps its last workspace for the next step if it is small, because new memory costs a page fault for every
    4 KiB. A pass that starts inside another one in the same thread makes its own.
    """
    if parameters[0].device.type != "cpu" or dispatch_mode_is_active():
        yield Workspace(plan, parameters, with_deltas)
        return
    current: Workspace | None = vars(_workspaces).pop("workspace", None)
    if current is None or current.key != workspace_key(plan, parameters[: plan.num_layers], with_deltas):
        current = Workspace(plan, parameters, with_deltas)
    yield current
    if current.num_bytes <= MAX_WORKSPACE_KEPT:
        _workspaces.workspace = current


def new_empty(t: Tensor, *shape: int) -> Tensor:
    """Return an empty tensor with the dtype and device of `t`; `t.new_empty` fails if a fake device does not exist."""
    return torch.empty(shape, dtype=t.dtype, device=t.device)
