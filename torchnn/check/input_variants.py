"""Variants of the given inputs: other memory layouts, other numbers of rows. Their values stay in the same range."""

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchnn.check.gradients import Call, Inputs, map_tensors, new_leaves, outputs_of

TensorChange = Callable[[Tensor], Tensor]


# --- layouts ----------------------------------------------------------------------------------------------------------


def transposed(t: Tensor) -> Tensor:
    """The first and last dimension swapped in memory."""
    return t.transpose(0, -1).contiguous().transpose(0, -1)


def sliced(t: Tensor) -> Tensor:
    """Every second element of a larger tensor."""
    return torch.stack([t, t.flip(-1)], dim=-1).flatten(-2)[..., ::2]


def part_of_cat(t: Tensor) -> Tensor:
    """A slice of a `cat`: it starts in the middle of its storage, and the rows of the storage are wider."""
    return torch.cat([t, t, t], dim=-1)[..., t.shape[-1] : 2 * t.shape[-1]]


def expanded(t: Tensor) -> Tensor:
    """The first element everywhere, with strides of 0, like the gradient of a sum."""
    return t.flatten()[:1].reshape([1] * t.dim()).expand(t.shape) if t.numel() else t


LAYOUTS: dict[str, TensorChange] = {
    "transposed": transposed,
    "sliced": sliced,
    "part of a cat": part_of_cat,
    "expanded": expanded,
}


def reversed_inputs(reference: Call, inputs: Inputs) -> Inputs | None:
    """The same shapes with the elements in reverse order, or None if the reference has no finite value for them."""
    other = map_tensors(inputs, lambda t: t.flip(list(range(t.dim()))))
    return other if is_finite(reference, other) else None


def is_finite(reference: Call, inputs: Inputs) -> bool:
    """Whether the reference runs on these inputs and its outputs are finite."""
    try:
        return all(bool(t.isfinite().all()) for t in outputs_of(reference, new_leaves(inputs)))
    except Exception:  # what the reference refuses, the subject may refuse too
        return False


# --- numbers of rows --------------------------------------------------------------------------------------------------


def two_rows_more(t: Tensor) -> Tensor:
    """The tensor with two of its rows repeated."""
    return t[torch.arange(len(t) + 2, device=t.device) % len(t)]


SHAPES: dict[str, TensorChange] = {
    "zero rows": lambda t: t[:0],
    "one row": lambda t: t[:1],
    "two more rows": two_rows_more,
    "one dimension less": lambda t: t[0],
    "one dimension more": lambda t: torch.stack([t, t]),
}


def other_shapes(reference: Call, inputs: Inputs) -> Iterator[tuple[str, Inputs]]:
    """The inputs with other numbers of rows and of dimensions, where the reference accepts them."""
    for name, change in SHAPES.items():
        changed = with_rows(reference, inputs, change)
        if changed is not None:
            yield name, changed


def with_rows(reference: Call, inputs: Inputs, change: TensorChange) -> Inputs | None:
    """The inputs with other rows, or None if the reference does not accept them.

    The rows of the first tensor change, and those of all tensors that share them. Nothing says which ones do, so this
    tries three choices: the first tensor only, all of the same length and number of dimensions, all of the same length.
    It takes the first choice that the reference accepts and for which the rows of the output change in the same way.
    """
    first = next((t for t in inputs if isinstance(t, Tensor) and t.dim() > 0), None)
    if first is None or len(first) == 0:
        return None
    usual = outputs_of(reference, inputs)[0].detach()
    tensors = [(i, t) for i, t in enumerate(inputs) if isinstance(t, Tensor) and t.dim() and len(t) == len(first)]
    same_length = {i for i, _ in tensors}
    same_dimensions = {i for i, t in tensors if t.dim() == first.dim()}
    first_only = {next(i for i, t in tensors if t is first)}
    choices = [first_only, same_dimensions, same_length]
    shape = change(usual).shape if usual.dim() and len(usual) == len(first) else usual.shape
    for chosen in choices if usual.dim() else [same_length, same_dimensions, first_only]:
        changed = tuple(
            change(t.detach()).clone().requires_grad_(t.requires_grad) if i in chosen else t
            for i, t in enumerate(inputs)
        )
        if gives_shape(reference, changed, shape):
            return changed
    return None


def gives_shape(reference: Call, inputs: Inputs, shape: torch.Size) -> bool:
    """Whether the reference accepts these inputs and its first output has this shape."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="Using a target size")  # a loss that broadcasts by mistake
            return outputs_of(reference, inputs)[0].shape == shape
    except Exception:  # what the reference refuses, the subject may refuse too
        return False
