"""What a whole-network pass knows before its first operation: its plan, and the room that its blocks share."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torchnn._torch import dispatch_mode_is_active
from torchnn.ops.activation import ACTIVATIONS
from torchnn.ops.network.loss import cancels
from torchnn.ops.network.products import TORCH, Products

Parameters = Sequence[Any]  # W[1] … W[L], b[1] … b[L]; a bias may be None

MOST_KEPT = 16 * 2**20  # bytes of room that a thread keeps for its next step


class Plan:
    """What a pass does, apart from its tensors.

    Args:
        activations: g[1] … g[L] by name.
        loss: name of the loss, or None for the output alone.
        reduction: "mean", "sum" or "none".
        block_rows: rows of a block.
        needs: which of x, W[1] … W[L], b[1] … b[L] get a gradient. Gradients are in this order everywhere.
        products: the matrix products of each layer; None for torch's own everywhere.
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
        self.products = products or [TORCH] * self.num_layers
        self.forwards = [ACTIVATIONS[name].forward_ for name in activations]
        self.backwards = [ACTIVATIONS[name].backward_ for name in activations]
        self.cancels = cancels(activations[-1], loss)

    def scale(self, num_elements: int) -> float:
        """∂J/∂𝓛 of each of the elements of the loss."""
        return 1 / num_elements if self.reduction == "mean" else 1.0

    def lowest_layer(self, needs: Sequence[bool]) -> int:
        """The lowest layer whose δ is needed, counted from 0."""
        if needs[0] or needs[1]:
            return 0
        of_weights, of_biases = needs[1 : 1 + self.num_layers], needs[1 + self.num_layers :]
        reached = (w or b for w, b in zip(of_weights, of_biases, strict=True))
        return next(layer for layer, needed in enumerate(reached) if needed)


class Workspace:
    """Room for the activations of a block and for two of its δ, used by one block after the other."""

    def __init__(self, plan: Plan, parameters: Parameters, with_deltas: bool) -> None:
        weights = parameters[: plan.num_layers]
        self.key = workspace_key(plan, weights, with_deltas)
        sizes = [w.shape[0] for w in weights[:-1]]
        takes_room = [products.takes_room for products in plan.products]
        own = [size if takes else 0 for size, takes in zip(sizes, takes_room, strict=False)]
        self.activations = [empty_beside(weights[0], plan.block_rows, size) for size in own]
        of_deltas = [size if takes else 0 for size, takes in zip(sizes, takes_room[1:], strict=True)]
        widest = max(of_deltas, default=0) if with_deltas else 0
        self.deltas = [empty_beside(weights[0], plan.block_rows * widest) for _ in range(2)]

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.activations, *self.deltas))

    def activation(self, layer: int, num_rows: int) -> Tensor:
        return self.activations[layer].narrow(0, 0, num_rows)

    def delta(self, layer: int, num_rows: int, num_features: int) -> Tensor:
        """Room for δ of a hidden layer, beside that of the layer above it."""
        return self.deltas[layer % 2].narrow(0, 0, num_rows * num_features).view(num_rows, num_features)


def bytes_of_a_row(sizes: Sequence[int], itemsize: int) -> int:
    """What a row of a block takes: x, its activations, two δ, and some columns of output and loss."""
    n_in, *hidden, n_out = sizes
    return itemsize * (n_in + sum(hidden) + 2 * max(hidden, default=0) + 8 * n_out)


def workspace_key(plan: Plan, weights: Parameters, with_deltas: bool) -> tuple[Any, ...]:
    """What a workspace must agree in to be used again."""
    like, sizes = weights[0], tuple(w.shape[0] for w in weights)
    takers = tuple(products.takes_room for products in plan.products)
    return plan.block_rows, sizes, takers, like.dtype, with_deltas, torch.is_inference_mode_enabled()


_kept = threading.local()


@contextmanager
def workspace(plan: Plan, parameters: Parameters, with_deltas: bool) -> Iterator[Workspace]:
    """A workspace that nobody else uses meanwhile.

    A thread keeps its last small one for the next step, because fresh memory costs a page fault for every 4 KiB. What
    runs meanwhile in the same thread finds none and makes its own.
    """
    if parameters[0].device.type != "cpu" or dispatch_mode_is_active():
        yield Workspace(plan, parameters, with_deltas)
        return
    mine: Workspace | None = vars(_kept).pop("workspace", None)
    if mine is None or mine.key != workspace_key(plan, parameters[: plan.num_layers], with_deltas):
        mine = Workspace(plan, parameters, with_deltas)
    yield mine
    if mine.num_bytes <= MOST_KEPT:
        _kept.workspace = mine


def empty_beside(t: Tensor, *shape: int) -> Tensor:
    """An empty tensor of the dtype and on the device of `t`; `t.new_empty` asks for the device, even a fake one."""
    return torch.empty(shape, dtype=t.dtype, device=t.device)
