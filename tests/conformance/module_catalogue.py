"""Our modules and torch's equivalents, with the constructor and forward inputs of torch's own test suite."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.common_modules import module_db
from torch.utils._pytree import tree_map_only

import torchnn


@dataclass(frozen=True)
class Pair:
    """One of our modules and torch's equivalent with the same parameters, and arguments for a call of either."""

    ours: nn.Module
    theirs: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    constructor_args: tuple[Any, ...]
    constructor_kwargs: dict[str, Any]

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors of the call that require a gradient."""
        return [t for t in (*self.args, *self.kwargs.values()) if isinstance(t, Tensor) and t.requires_grad]

    def call(self, module: nn.Module) -> Tensor:
        output: Tensor = module(*self.args, **self.kwargs)
        return output

    def gradients(self, module: nn.Module, grad_output: Tensor) -> list[Tensor]:
        wanted = [*self.inputs, *module.parameters()]
        return list(torch.autograd.grad(self.call(module), wanted, grad_output))

    def with_inputs(self, change: Callable[[Tensor], Tensor]) -> "Pair":
        args, kwargs = tree_map_only(Tensor, change, (self.args, self.kwargs))
        return Pair(self.ours, self.theirs, args, kwargs, self.constructor_args, self.constructor_kwargs)


@dataclass(frozen=True)
class Module:
    """One of our module classes, and torch's information about its equivalent."""

    ours: type[nn.Module]
    info: Any = field(repr=False)

    def __str__(self) -> str:
        return self.ours.__name__

    @property
    def theirs(self) -> type[nn.Module]:
        theirs: type[nn.Module] = self.info.module_cls
        return theirs

    def pairs(self, dtype: torch.dtype = torch.float64, requires_grad: bool = True) -> Iterator[Pair]:
        for sample in self.info.module_inputs_func(self.info, "cpu", dtype, requires_grad, training=True):
            constructor, forward = sample.constructor_input, sample.forward_input
            theirs = self.theirs(*constructor.args, **copy.deepcopy(constructor.kwargs)).to(dtype)
            ours = self.ours(*constructor.args, **copy.deepcopy(constructor.kwargs)).to(dtype)
            ours.load_state_dict(theirs.state_dict())
            yield Pair(ours, theirs, forward.args, forward.kwargs, constructor.args, constructor.kwargs)


_INFO = {info.module_cls: info for info in module_db}

MODULES = {
    str(module): module
    for module in (
        Module(torchnn.Dense, _INFO[nn.Linear]),
        Module(torchnn.Sigmoid, _INFO[nn.Sigmoid]),
        Module(torchnn.Tanh, _INFO[nn.Tanh]),
        Module(torchnn.ReLU, _INFO[nn.ReLU]),
        Module(torchnn.BCELoss, _INFO[nn.BCELoss]),
        Module(torchnn.BCEWithLogitsLoss, _INFO[nn.BCEWithLogitsLoss]),
        Module(torchnn.MSELoss, _INFO[nn.MSELoss]),
    )
}

each_module = pytest.mark.parametrize("module", MODULES.values(), ids=str)
