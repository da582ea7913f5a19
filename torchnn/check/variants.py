"""Other layouts and other numbers of rows, made of the inputs that were given, so that their values stay in range."""

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchnn.check.tensors import Call, Inputs, fresh, mapped, outputs_of

Change = Callable[[Tensor], Tensor]


# --- layouts ----------------------------------------------------------------------------------------------------------


def transposed(t: Tensor) -> Tensor:
    """The first and last dimension swapped in memory."""
    return t.transpose(0, -1).contiguous().transpose(0, -1)


def sliced(t: Tensor) -> Tensor:
    """Every second element of a larger tensor."""
    return torch.stack([t, t.flip(-1)], dim=-1).flatten(-2)[..., ::2]


def part_of_cat(t: Tensor) -> Tensor:
    """A slice of a `cat`: it starts in the middle of memory, and its rows are wider."""
    return torch.cat([t, t, t], dim=-1)[..., t.shape[-1] : 2 * t.shape[-1]]


def expanded(t: Tensor) -> Tensor:
    """The first element seen everywhere, with strides of 0, as the gradient of a sum is."""
    return t.flatten()[:1].reshape([1] * t.dim()).expand(t.shape) if t.numel() else t


LAYOUTS: dict[str, Change] = {
    "transposed": transposed,
    "sliced": sliced,
    "part of a cat": part_of_cat,
    "expanded": expanded,
}


def turned(accepts: Call, inputs: Inputs) -> Inputs | None:
    """The same shapes with other values, if `accepts` gives numbers for them: what comes last comes first."""
    other = mapped(inputs, lambda t: t.flip(list(range(t.dim()))))
    try:
        values = outputs_of(accepts, fresh(other))
    except Exception:  # inputs of a structure that does not survive it, or a call that refuses them
        return None
    return other if all(bool(t.isfinite().all()) for t in values) else None


# --- shapes -----------------------------------------------------------------------------------------------------------


def other_rows(t: Tensor) -> Tensor:
    """Two rows more."""
    return t[torch.arange(len(t) + 2, device=t.device) % len(t)]


SHAPES: dict[str, Change] = {
    "zero rows": lambda t: t[:0],
    "one row": lambda t: t[:1],
    "other rows": other_rows,
    "one dimension less": lambda t: t[0],
    "one dimension more": lambda t: torch.stack([t, t]),
}


def other_shapes(accepts: Call, inputs: Inputs) -> Iterator[tuple[str, Inputs]]:
    """The inputs with other numbers of rows and of dimensions, as far as `accepts` takes them."""
    for name, change in SHAPES.items():
        changed = with_rows(accepts, inputs, change)
        if changed is not None:
            yield name, changed


def with_rows(accepts: Call, inputs: Inputs, change: Change) -> Inputs | None:
    """The inputs with another choice of rows, of the first tensor and of what has its rows in common with it.

    Which ones these are nobody says: the first alone, those with as many dimensions, or all of that length, whichever
    `accepts` takes and gives the same choice of rows of its output for.
    """
    first = next((t for t in inputs if isinstance(t, Tensor) and t.dim() > 0), None)
    if first is None or len(first) == 0:
        return None
    usual = outputs_of(accepts, inputs)[0].detach()
    tensors = [(i, t) for i, t in enumerate(inputs) if isinstance(t, Tensor) and t.dim() and len(t) == len(first)]
    every, alike = {i for i, _ in tensors}, {i for i, t in tensors if t.dim() == first.dim()}
    alone = {next(i for i, t in tensors if t is first)}
    shape = change(usual).shape if usual.dim() and len(usual) == len(first) else usual.shape
    for chosen in [alone, alike, every] if usual.dim() else [every, alike, alone]:
        changed = tuple(
            change(t.detach()).clone().requires_grad_(t.requires_grad) if i in chosen else t
            for i, t in enumerate(inputs)
        )
        if takes(accepts, changed, shape):
            return changed
    return None


def takes(accepts: Call, inputs: Inputs, shape: torch.Size) -> bool:
    """Whether a call takes these inputs and gives an output of this shape."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="Using a target size")  # broadcasting by mistake
            return outputs_of(accepts, inputs)[0].shape == shape
    except Exception:  # whatever the reference refuses is not for the subject either
        return False
