"""torch.nn layers of an existing model to ours and back, in place."""

from typing import TypeVar

from torch import nn

from torchnn.modules.activation import ReLU, Sigmoid, Tanh
from torchnn.modules.dense import Dense
from torchnn.modules.loss import BCELoss, BCEWithLogitsLoss, MSELoss

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


def convert(model: Model) -> Model:
    """Give every torch.nn layer of a model that has a twin here the hand-derived backward of that twin.

    The modules stay the same objects and only change class, so that parameters, buffers, hooks, names, state_dict
    keys, optimisers, train/eval and requires_grad are untouched. Only exact types are changed: a subclass or a
    parametrised layer may compute something else, and is left alone.

    Args:
        model: changed in place; may itself be such a layer.

    Returns:
        The same model.

    >>> import torch
    >>> convert(nn.Sequential(nn.Linear(3, 2), nn.Sigmoid(), nn.Dropout()))
    Sequential(
      (0): Dense(in_features=3, out_features=2, bias=True)
      (1): Sigmoid()
      (2): Dropout(p=0.5, inplace=False)
    )
    """
    return _with_classes(model, OURS)


def revert(model: Model) -> Model:
    """Undo `convert`: every module of ours that has a torch.nn twin becomes that twin, in place.

    A `Dense` with a shared bias becomes an `nn.Linear` whose bias of shape (1,) torch broadcasts.

    >>> revert(convert(nn.Linear(3, 2)))
    Linear(in_features=3, out_features=2, bias=True)
    """
    return _with_classes(model, TORCH)


def _with_classes(model: Model, classes: dict[type[nn.Module], type[nn.Module]]) -> Model:
    for module in model.modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]
    return model
