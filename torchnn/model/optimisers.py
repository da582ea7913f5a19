"""Optimisers and learning-rate schedules by name, checked before training starts."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

# Without SparseAdam: it takes only sparse gradients, and a dense layer has none.
OPTIMISERS: dict[str, type[Optimizer]] = {
    name: value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, Optimizer) and value not in (Optimizer, torch.optim.SparseAdam)
}
SCHEDULES: dict[str, type[Any]] = {
    name: value
    for name, value in vars(lr_scheduler).items()
    if inspect.isclass(value)
    and issubclass(value, lr_scheduler.LRScheduler)
    and not name.startswith("_")
    and value is not lr_scheduler.LRScheduler
}


def make_optimiser(
    name: str, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, args: Mapping[str, Any]
) -> Optimizer:
    """The optimiser `torch.optim.<name>`.

    Args:
        name: class name in `torch.optim`.
        parameters: the parameters that it updates.
        lr: learning rate, above 0.
        weight_decay: 0 or more; 0 for a class that has no weight decay.
        args: other arguments of the class.

    Raises:
        ValueError: the name is unknown, or the class refuses the arguments.

    >>> type(make_optimiser("SGD", [nn.Parameter(torch.zeros(1))], 0.1, 0.0, {"momentum": 0.9})).__name__
    'SGD'
    """
    if name not in OPTIMISERS:
        raise ValueError(f"optimizer is {name!r}: choose one of {', '.join(OPTIMISERS)}.")
    arguments = {"lr": lr, **args}
    if "weight_decay" in inspect.signature(OPTIMISERS[name]).parameters:
        arguments = {"weight_decay": weight_decay, **arguments}
    elif weight_decay:
        raise ValueError(f"weight_decay is {weight_decay}, but {name} has no weight decay: set weight_decay to 0.")
    return _build(OPTIMISERS[name], "optimizer_args", parameters, arguments)  # type: ignore[no-any-return]


class ScheduleError(ValueError):
    """A learning-rate schedule has wrong arguments, which shows only when it is stepped."""


def make_schedule(name: str, optimiser: Optimizer, args: Mapping[str, Any]) -> Any:
    """The schedule `torch.optim.lr_scheduler.<name>` of an optimiser; raises what `make_optimiser` raises.

    >>> optimiser = make_optimiser("SGD", [nn.Parameter(torch.zeros(1))], 0.1, 0.0, {})
    >>> type(make_schedule("StepLR", optimiser, {"step_size": 5})).__name__
    'StepLR'
    """
    if name not in SCHEDULES:
        raise ValueError(f"lr_scheduler is {name!r}: choose one of {', '.join(SCHEDULES)}.")
    return _build(SCHEDULES[name], "lr_scheduler_args", optimiser, args)


def _build(cls: type[Any], argument: str, subject: Any, args: Mapping[str, Any]) -> Any:
    try:
        return cls(subject, **args)
    except (TypeError, ValueError, AssertionError) as error:
        allowed = ", ".join(list(inspect.signature(cls).parameters)[1:])
        raise ValueError(f"{argument} does not fit {cls.__name__} ({error}); it takes {allowed}.") from error
