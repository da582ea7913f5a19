"""torch.nn layers of an existing model to ours and back, in place."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from torch import nn

from torchnn._torch import children_of
from torchnn.modules.activation import ReLU, Sigmoid, Tanh
from torchnn.modules.dense import Dense
from torchnn.modules.joined import Joined, JoinedDense
from torchnn.modules.loss import BCELoss, BCEWithLogitsLoss, MSELoss
from torchnn.modules.untouched import is_untouched

Model = TypeVar("Model", bound=nn.Module)

OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: Dense,
    nn.Sigmoid: Sigmoid,
    nn.Tanh: Tanh,
    nn.ReLU: ReLU,
    nn.BCELoss: BCELoss,
    nn.BCEWithLogitsLoss: BCEWithLogitsLoss,
    nn.MSELoss: MSELoss,
}
TORCH = {ours: twin for twin, ours in OURS.items()}
ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
JOINABLE = {kind: name for name, twin in ACTIVATIONS.items() for kind in (twin, OURS[twin])}


class Change(NamedTuple):
    """A module of a model, its path, the class that it gets, and the activation that it takes over or gives up."""

    path: str
    module: nn.Module
    to: type[nn.Module]
    activation: str | None = None

    def __str__(self) -> str:
        joined = f" ({self.activation})" if self.activation else ""
        own = " of torchnn" if self.to.__name__ == type(self.module).__name__ else ""
        return f"{self.path or 'the model'}: {type(self.module).__name__} -> {self.to.__name__}{joined}{own}"


def convert(model: Model, dry_run: bool = False, join: bool = False) -> Model:
    """Give every torch.nn layer of a model that has a twin here the hand-derived backward of that twin.

    The modules stay the same objects and only change class, so that parameters, buffers, hooks, names, state_dict
    keys, optimisers, train/eval and requires_grad are untouched. Only exact types are changed: a subclass or a
    parametrised layer may compute something else, and is left alone. What a model calls by function in its own
    forward, such as `torch.sigmoid`, stays torch's.

    Args:
        model: changed in place; may itself be such a layer.
        dry_run: print what would change, one line a module, and change nothing.
        join: let a `Linear` directly followed by an activation in a `Sequential` compute both in one node, and the
            activation pass on what it gets. Only for a Sequential whose parts nobody calls by themselves: the layer
            alone, a slice that ends with it, or a hook that is set on it later sees activations where it saw weighted
            sums, and the activation called from elsewhere does nothing. Layers and activations with hooks or a forward
            of their own, or that the model holds in two places, are not joined.

    Returns:
        The same model.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid(), nn.Dropout())
    >>> _ = convert(model, dry_run=True)
    0: Linear -> Dense
    1: Sigmoid -> Sigmoid of torchnn
    >>> convert(model)
    Sequential(
      (0): Dense(in_features=3, out_features=2, bias=True)
      (1): Sigmoid()
      (2): Dropout(p=0.5, inplace=False)
    )
    """
    found_ones = found(checked_module(model), OURS)
    changes = {id(module): Change(path, module, OURS[type(module)]) for path, module in found_ones}
    if join:
        for change in pairs(model):
            changes[id(change.module)] = change
    if dry_run:
        print(*changes.values(), sep="\n")
        return model
    for change in changes.values():
        if change.activation is not None:
            vars(change.module)["joined_activation"] = change.activation
        change.module.__class__ = change.to
    return model


def revert(model: Model) -> Model:
    """Undo `convert`: every module of ours that has a torch.nn twin becomes that twin, in place.

    A `Dense` with a shared bias becomes an `nn.Linear` whose bias of shape (1,) torch broadcasts.

    Raises:
        ValueError: a joined layer was parametrised since, or `model` holds only one half of a joined pair.

    >>> revert(convert(nn.Linear(3, 2)))
    Linear(in_features=3, out_features=2, bias=True)
    """
    joined: list[nn.Module] = [
        module for _, module in checked_module(model).named_modules() if isinstance(module, JoinedDense | Joined)
    ]
    if any(type(module) not in (JoinedDense, Joined) for module in joined):
        raise ValueError("a joined layer was changed since, by a parametrisation for one: undo that first.")
    if 2 * sum(type(module) is Joined for module in joined) != len(joined):
        raise ValueError("a joined layer or its activation stands alone here: revert the Sequential that holds both.")
    for _, module in found(model, TORCH):
        module.__class__ = TORCH[type(module)]
    for module in joined:
        activation: str = vars(module).pop("joined_activation")
        module.__class__ = nn.Linear if type(module) is JoinedDense else ACTIVATIONS[activation]
    return model


def checked_module(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert and revert take a module, not {model!r}.")
    return model


def found(model: nn.Module, classes: Any) -> Iterator[tuple[str, nn.Module]]:
    """The modules of these very classes, with their paths."""
    return ((path, module) for path, module in model.named_modules() if type(module) in classes)


def pairs(model: nn.Module) -> Iterator[Change]:
    """What becomes of each `Linear` that is followed by an activation, and of that activation."""
    places: dict[int, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        places[id(module)] = places.get(id(module), 0) + 1
    for path, parent in found(model, (nn.Sequential,)):
        for (name, layer), (next_name, activation) in pairwise(children_of(parent).items()):  # all, a second time too
            if (
                layer is None
                or activation is None
                or type(layer) not in (nn.Linear, Dense)
                or type(activation) not in JOINABLE
            ):
                continue
            if not all(is_untouched(module) and places[id(module)] == 1 for module in (layer, activation)):
                continue
            joined, prefix = JOINABLE[type(activation)], f"{path}." if path else ""
            yield Change(prefix + name, layer, JoinedDense, joined)
            yield Change(prefix + next_name, activation, Joined, joined)
