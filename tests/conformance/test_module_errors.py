"""A constructor call or a forward call that torch's module refuses raises the same type of exception."""

from typing import Any

import pytest
import torch
from torch import nn

from .catalogue import outcome
from .module_catalogue import MODULES, Module, each_module


@each_module
def test_torchs_own_module_error_inputs_raise_what_torch_says(module: Module) -> None:
    """torch has none for these modules today; if it adds some, this test checks them."""
    errors = module.info.module_error_inputs_func
    for error in errors(module.info, "cpu", torch.float32, False, training=True) if errors else ():
        constructor, forward = error.module_error_input.constructor_input, error.module_error_input.forward_input
        with pytest.raises(error.error_type, match=error.error_regex):
            module.ours(*constructor.args, **constructor.kwargs)(*forward.args, **forward.kwargs)


BAD_CONSTRUCTIONS: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "Dense": [
        ((), {}),
        ((3,), {}),
        ((-1, 2), {}),
        (("3", 2), {}),
        ((3.0, 2), {}),
        ((3, 2, True, "cpu", torch.float32, 1), {}),
        ((3, 2), {"dtype": torch.int64}),
        ((3, 2), {"dtype": "float32"}),
        ((3, 2), {"device": "nowhere"}),
        ((3, 2), {"activation": "relu"}),
    ],
    "Sigmoid": [((1,), {}), ((), {"device": "cpu"})],
    "Tanh": [((1,), {}), ((), {"device": "cpu"})],
    "ReLU": [((), {"device": "cpu"})],
    "BCELoss": [((), {"pos_weight": None}), ((), {"device": "cpu"}), ((1.0,), {})],
    "BCEWithLogitsLoss": [((), {"device": "cpu"}), ((1.0,), {}), ((), {"pos_weight": 1.0})],
    "MSELoss": [((), {"weight": None}), ((), {"device": "cpu"})],
}


@pytest.mark.parametrize(("name", "case"), [(name, i) for name, c in BAD_CONSTRUCTIONS.items() for i in range(len(c))])
def test_bad_construction_raises_the_type_that_torch_raises(name: str, case: int) -> None:
    args, kwargs = BAD_CONSTRUCTIONS[name][case]
    expected, actual = outcome(MODULES[name].theirs, *args, **kwargs), outcome(MODULES[name].ours, *args, **kwargs)
    assert isinstance(expected, Exception), f"torch accepts {args} {kwargs}"
    assert type(actual) is type(expected), f"expected {expected!r}, got {actual!r}"


@pytest.mark.parametrize("name", ["BCELoss", "BCEWithLogitsLoss", "MSELoss"])
def test_unknown_reduction_is_refused_when_torch_refuses_it(name: str) -> None:
    built = [outcome(cls, reduction="foo") for cls in (MODULES[name].theirs, MODULES[name].ours)]
    assert isinstance(built[0], nn.Module) == isinstance(built[1], nn.Module)
    expected, actual = (outcome(made, torch.rand(2), torch.rand(2)) for made in built)
    assert type(actual) is type(expected) is ValueError
