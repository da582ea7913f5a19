"""Convert the torch.nn layers of an existing model to torchnn's, and back, in place."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from torch import nn

from torchnn._torch import children_of
from torchnn.modules.activation import Joined, ReLU, Sigmoid, Tanh
from torchnn.modules.dense import Dense, JoinedDense
from torchnn.modules.loss import BCELoss, BCEWithLogitsLoss, MSELoss
from torchnn.modules.mlp import is_unmodified

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
THEIRS = {ours: theirs for theirs, ours in OURS.items()}
ACTIVATION_CLASSES: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
JOINABLE = {kind: name for name, theirs in ACTIVATION_CLASSES.items() for kind in (theirs, OURS[theirs])}


class Change(NamedTuple):
    """The change of one module.

    Attributes:
        path: where the module is in the model.
        module: the module.
        to: its new class.
        activation: the activation that the module computes from now on, or that it no longer computes.
    """

    path: str
    module: nn.Module
    to: type[nn.Module]
    activation: str | None = None

    def __str__(self) -> str:
        joined = f" ({self.activation})" if self.activation else ""
        own = " of torchnn" if self.to.__name__ == type(self.module).__name__ else ""
        return f"{self.path or 'the model'}: {type(self.module).__name__} -> {self.to.__name__}{joined}{own}"


def convert(model: Model, dry_run: bool = False, join: bool = False) -> Model:
    """Give the torch.nn layers of a model a hand-derived backward, if torchnn has an equivalent class.

    The modules stay the same objects and only change their class, so parameters, buffers, hooks, names, state_dict
    keys, optimisers, train/eval and requires_grad do not change. Only exact types are converted: a subclass or a
    parametrised layer may compute something else, so it stays as it is. Functions that a model calls in its own
    forward, such as `torch.sigmoid`, stay torch's.

    Args:
        model: changed in place; may itself be such a layer.
        dry_run: print what would change, one line per module, and change nothing.
        join: if a `Linear` is directly followed by an activation in a `Sequential`, let the `Linear` compute both in
            one node, and let the activation return its input. Use this only if nothing calls the parts of the
            `Sequential` separately: the layer itself, a slice that ends with it, and a hook that is added to it later
            then give activations instead of weighted sums, and a separate call of the activation does nothing. Layers
            and activations with hooks or a forward of their own, or that the model contains twice, are not joined.

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
    convertible = modules_of(checked_module(model), OURS)
    changes = {id(module): Change(path=path, module=module, to=OURS[type(module)]) for path, module in convertible}
    if join:
        for change in joined_pairs(model):
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
    """Undo `convert` in place: give every module of torchnn its torch.nn class, if there is one.

    A `Dense` with a shared bias becomes an `nn.Linear` whose bias of shape (1,) torch broadcasts.

    Raises:
        ValueError: a joined layer was parametrised after `convert`, or `model` contains only half of a joined pair.

    >>> revert(convert(nn.Linear(3, 2)))
    Linear(in_features=3, out_features=2, bias=True)
    """
    joined: list[nn.Module] = [
        module for _, module in checked_module(model).named_modules() if isinstance(module, JoinedDense | Joined)
    ]
    if any(type(module) not in (JoinedDense, Joined) for module in joined):
        raise ValueError("a joined layer was changed after convert, for example by a parametrisation: undo that first.")
    if 2 * sum(type(module) is Joined for module in joined) != len(joined):
        raise ValueError("the model has only half of a joined pair: revert the Sequential that contains both halves.")
    for _, module in modules_of(model, THEIRS):
        module.__class__ = THEIRS[type(module)]
    for module in joined:
        activation: str = vars(module).pop("joined_activation")
        module.__class__ = nn.Linear if type(module) is JoinedDense else ACTIVATION_CLASSES[activation]
    return model


def checked_module(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert and revert take a module, not {model!r}.")
    return model


def modules_of(model: nn.Module, classes: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of exactly these classes, with their paths."""
    return ((path, module) for path, module in model.named_modules() if type(module) in classes)


def joined_pairs(model: nn.Module) -> Iterator[Change]:
    """Yield the changes of each `Linear` that is followed by an activation, and of that activation."""
    places: dict[int, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        places[id(module)] = places.get(id(module), 0) + 1
    for path, parent in modules_of(model, (nn.Sequential,)):
        for (name, layer), (next_name, activation) in pairwise(children_of(parent).items()):  # a child may occur twice
            if (
                layer is None
                or activation is None
                or type(layer) not in (nn.Linear, Dense)
                or type(activation) not in JOINABLE
            ):
                continue
            if not all(is_unmodified(module) and places[id(module)] == 1 for module in (layer, activation)):
                continue
            joined, prefix = JOINABLE[type(activation)], f"{path}." if path else ""
            yield Change(path=prefix + name, module=layer, to=JoinedDense, activation=joined)
            yield Change(path=prefix + next_name, module=activation, to=Joined, activation=joined)
