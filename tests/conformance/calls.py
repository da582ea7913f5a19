"""Calls that torch refuses, and unusual ones that it accepts, by operation; each is a lambda of the function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Call = Callable[[Any], Any]
Calls = dict[str, Call]


def uniform(*shape: int, dtype: torch.dtype = torch.float32, **options: Any) -> Tensor:
    return torch.rand(shape, **options).to(dtype)


def ones(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(shape, dtype=dtype)


# --- calls that torch refuses -----------------------------------------------------------------------------------------

BAD_DENSE: Calls = {
    "features do not match": lambda f: f(uniform(2, 3), uniform(4, 5)),
    "features do not match, one example": lambda f: f(uniform(3), uniform(4, 5)),
    "features do not match, three dimensions": lambda f: f(uniform(2, 2, 3), uniform(4, 5)),
    "features do not match, no rows": lambda f: f(uniform(0, 3), uniform(4, 5)),
    "transposed weight": lambda f: f(uniform(2, 3), uniform(3, 4)),
    "input without dimensions": lambda f: f(uniform(), uniform(4, 3)),
    "weight without dimensions": lambda f: f(uniform(2, 3), uniform()),
    "weight of three dimensions": lambda f: f(uniform(2, 3), uniform(4, 3, 1)),
    "bias too long": lambda f: f(uniform(2, 3), uniform(4, 3), uniform(5)),
    "bias too short": lambda f: f(uniform(2, 3), uniform(4, 3), uniform(2)),
    "bias too long, one example": lambda f: f(uniform(3), uniform(4, 3), uniform(5)),
    "bias too long, three dimensions": lambda f: f(uniform(2, 2, 3), uniform(4, 3), uniform(5)),
    "bias with more rows than input": lambda f: f(uniform(2, 3), uniform(4, 3), uniform(3, 4)),
    "weight of another float": lambda f: f(uniform(2, 3), uniform(4, 3, dtype=torch.float64)),
    "bias of another float": lambda f: f(uniform(2, 3), uniform(4, 3), uniform(4, dtype=torch.float64)),
    "half-precision input": lambda f: f(uniform(2, 3, dtype=torch.bfloat16), uniform(4, 3)),
    "integer input": lambda f: f(ones(2, 3, dtype=torch.int64), uniform(4, 3)),
    "integer weight": lambda f: f(uniform(2, 3), ones(4, 3, dtype=torch.int64)),
    "complex input": lambda f: f(ones(2, 3, dtype=torch.complex64), uniform(4, 3)),
    "all boolean": lambda f: f(ones(2, 3, dtype=torch.bool), ones(4, 3, dtype=torch.bool)),
    "bias on another device": lambda f: f(uniform(2, 3), uniform(4, 3), uniform(4, device="meta")),
    "input is a list": lambda f: f([[1.0, 2.0, 3.0]], uniform(4, 3)),
    "weight is None": lambda f: f(uniform(2, 3), None),
    "bias is a number": lambda f: f(uniform(2, 3), uniform(4, 3), 1.0),
    "weight is missing": lambda f: f(uniform(2, 3)),
    "one argument too many": lambda f: f(uniform(2, 3), uniform(4, 3), uniform(4), uniform(4)),
    "unknown keyword": lambda f: f(uniform(2, 3), uniform(4, 3), shift=1),
}

BAD_ACTIVATION: Calls = {
    "number": lambda f: f(1.0),
    "None": lambda f: f(None),
    "list": lambda f: f([1.0]),
    "string": lambda f: f("1.0"),
    "array": lambda f: f(uniform(2).numpy()),
    "no argument": lambda f: f(),
    "unknown keyword": lambda f: f(uniform(2), shift=1),
    "eight-bit float": lambda f: f(uniform(2).to(torch.float8_e4m3fn)),
    "grad_output of another shape": lambda f: torch.autograd.grad(
        f(x := uniform(2, requires_grad=True)), x, uniform(3)
    ),
}

BAD_RELU: Calls = {
    "boolean": lambda f: f(ones(2, dtype=torch.bool)),
    "complex": lambda f: f(ones(2, dtype=torch.complex64)),
    "unsigned": lambda f: f(ones(2, dtype=torch.uint16)),
}

BAD_LOSS: Calls = {
    "unknown reduction": lambda f: f(uniform(2, 3), uniform(2, 3), reduction="foo"),
    "reduction in capitals": lambda f: f(uniform(2, 3), uniform(2, 3), reduction="MEAN"),
    "reduction is None": lambda f: f(uniform(2, 3), uniform(2, 3), reduction=None),
    "reduction is a number": lambda f: f(uniform(2, 3), uniform(2, 3), reduction=1),
    "target of another size": lambda f: f(uniform(2, 3), uniform(3, 2)),
    "target too long": lambda f: f(uniform(3), uniform(4)),
    "target with more rows": lambda f: f(uniform(2, 3), uniform(4, 3)),
    "all integers": lambda f: f(ones(2, 3, dtype=torch.int64), ones(2, 3, dtype=torch.int64)),
    "all boolean": lambda f: f(ones(2, 3, dtype=torch.bool), ones(2, 3, dtype=torch.bool)),
    "complex input": lambda f: f(ones(2, 3, dtype=torch.complex64), uniform(2, 3)),
    "all complex": lambda f: f(ones(2, 3, dtype=torch.complex64), ones(2, 3, dtype=torch.complex64)),
    "target on another device": lambda f: f(uniform(2, 3), uniform(2, 3, device="meta")),
    "input on another device": lambda f: f(uniform(2, 3, device="meta"), uniform(2, 3)),
    "target is missing": lambda f: f(uniform(2, 3)),
    "unknown keyword": lambda f: f(uniform(2, 3), uniform(2, 3), scale=1),
}

BAD_WEIGHTED_LOSS: Calls = {
    "target that would broadcast": lambda f: f(uniform(2, 3), uniform(3)),
    "target of one column": lambda f: f(uniform(2, 3), uniform(2, 1)),
    "flattened target": lambda f: f(uniform(2, 3), uniform(6)),
    "weight too short": lambda f: f(uniform(2, 3), uniform(2, 3), uniform(2)),
    "weight too long": lambda f: f(uniform(2, 3), uniform(2, 3), uniform(4)),
    "weight of more dimensions": lambda f: f(uniform(2, 3), uniform(2, 3), uniform(5, 2, 3)),
    "weight of more dimensions, no reduction": lambda f: f(
        uniform(2, 3), uniform(2, 3), uniform(5, 2, 3), reduction="none"
    ),
    "weight asks for a gradient": lambda f: f(uniform(2, 3), uniform(2, 3), uniform(3, requires_grad=True)),
    "complex weight": lambda f: f(uniform(2, 3), uniform(2, 3), ones(3, dtype=torch.complex64)),
    "weight on another device": lambda f: f(uniform(2, 3), uniform(2, 3), uniform(3, device="meta")),
}

BAD_PROBABILITY: Calls = {
    "integer target": lambda f: f(uniform(2, 3), ones(2, 3, dtype=torch.int64)),
    "boolean target": lambda f: f(uniform(2, 3), ones(2, 3, dtype=torch.bool)),
    "integer input": lambda f: f(ones(2, 3, dtype=torch.int64), uniform(2, 3)),
    "boolean input": lambda f: f(ones(2, 3, dtype=torch.bool), uniform(2, 3)),
    "float64 target": lambda f: f(uniform(2, 3), uniform(2, 3, dtype=torch.float64)),
    "float64 input": lambda f: f(uniform(2, 3, dtype=torch.float64), uniform(2, 3)),
    "half-precision target": lambda f: f(uniform(2, 3), uniform(2, 3, dtype=torch.float16)),
    "probability below 0": lambda f: f(torch.tensor([-0.1, 0.5]), torch.tensor([0.0, 1.0])),
    "probability above 1": lambda f: f(torch.tensor([1.1, 0.5]), torch.tensor([0.0, 1.0])),
    "probability is not a number": lambda f: f(torch.tensor([torch.nan, 0.5]), torch.tensor([0.0, 1.0])),
    "probability is infinite": lambda f: f(torch.tensor([torch.inf, 0.5]), torch.tensor([0.0, 1.0])),
    "target below 0": lambda f: f(torch.tensor([0.1, 0.5]), torch.tensor([-0.1, 1.0])),
    "target above 1": lambda f: f(torch.tensor([0.1, 0.5]), torch.tensor([0.0, 1.1])),
    "target is not a number": lambda f: f(torch.tensor([0.1, 0.5]), torch.tensor([0.0, torch.nan])),
}

BAD_LOGITS: Calls = {
    "integer target": lambda f: f(uniform(2, 3), ones(2, 3, dtype=torch.int64)),
    "boolean target": lambda f: f(uniform(2, 3), ones(2, 3, dtype=torch.bool)),
    "integer input": lambda f: f(ones(2, 3, dtype=torch.int64), uniform(2, 3)),
    "boolean input": lambda f: f(ones(2, 3, dtype=torch.bool), uniform(2, 3)),
    "pos_weight too short": lambda f: f(uniform(2, 3), uniform(2, 3), pos_weight=uniform(2)),
    "pos_weight too long": lambda f: f(uniform(2, 3), uniform(2, 3), pos_weight=uniform(4)),
    "pos_weight of more dimensions": lambda f: f(uniform(2, 3), uniform(2, 3), pos_weight=uniform(5, 2, 3)),
    "pos_weight asks for a gradient": lambda f: f(
        uniform(2, 3), uniform(2, 3), pos_weight=uniform(3, requires_grad=True)
    ),
    "boolean pos_weight": lambda f: f(uniform(2, 3), uniform(2, 3), pos_weight=ones(3, dtype=torch.bool)),
    "complex pos_weight": lambda f: f(uniform(2, 3), uniform(2, 3), pos_weight=ones(3, dtype=torch.complex64)),
    "pos_weight on another device": lambda f: f(uniform(2, 3), uniform(2, 3), pos_weight=uniform(3, device="meta")),
}

BAD_SQUARED_ERROR: Calls = {
    "complex target": lambda f: f(uniform(2, 3), ones(2, 3, dtype=torch.complex64)),
}

BAD_CALLS: dict[str, Calls] = {
    "linear": BAD_DENSE,
    "sigmoid": BAD_ACTIVATION,
    "tanh": BAD_ACTIVATION,
    "relu": BAD_ACTIVATION | BAD_RELU,
    "binary_cross_entropy": BAD_LOSS | BAD_WEIGHTED_LOSS | BAD_PROBABILITY,
    "binary_cross_entropy_with_logits": BAD_LOSS | BAD_WEIGHTED_LOSS | BAD_LOGITS,
    "mse_loss": BAD_LOSS | BAD_SQUARED_ERROR,
}

# torch's losses raise AttributeError here, because they read an attribute before they check for a tensor.
NO_TENSOR: Calls = {
    "target is a number": lambda f: f(uniform(2, 3), 1.0),
    "target is None": lambda f: f(uniform(2, 3), None),
    "input is None": lambda f: f(None, uniform(2, 3)),
    "input is a list": lambda f: f([0.5], uniform(1)),
}

NO_TENSOR_AS_WEIGHT: Calls = {"weight is a number": lambda f: f(uniform(2, 3), uniform(2, 3), 2.0)}

NO_TENSOR_AS_POS_WEIGHT: Calls = {"pos_weight is a number": lambda f: f(uniform(2, 3), uniform(2, 3), pos_weight=2.0)}

CALLS_WITHOUT_A_TENSOR: dict[str, Calls] = {
    "binary_cross_entropy": NO_TENSOR | NO_TENSOR_AS_WEIGHT,
    "binary_cross_entropy_with_logits": NO_TENSOR | NO_TENSOR_AS_WEIGHT | NO_TENSOR_AS_POS_WEIGHT,
    "mse_loss": NO_TENSOR,
}

# --- unusual calls that torch accepts ---------------------------------------------------------------------------------

ODD_DENSE: Calls = {
    "one bias for all neurons": lambda f: f(uniform(2, 3), uniform(4, 3), uniform(1)),
    "one bias for all neurons, three dimensions": lambda f: f(uniform(2, 2, 3), uniform(4, 3), uniform(1)),
    "bias without dimensions": lambda f: f(uniform(2, 3), uniform(4, 3), uniform()),
    "no input features": lambda f: f(uniform(2, 0), uniform(4, 0), uniform(4)),
    "no neurons": lambda f: f(uniform(2, 3), uniform(0, 3), uniform(0)),
    "no rows, three dimensions": lambda f: f(uniform(2, 0, 3), uniform(4, 3), uniform(4)),
    "keywords": lambda f: f(input=uniform(2, 3), bias=uniform(4), weight=uniform(4, 3)),
}

ODD_LOSS: Calls = {
    "no elements, mean": lambda f: f(uniform(0, 3), uniform(0, 3)),
    "no elements, sum": lambda f: f(uniform(0, 3), uniform(0, 3), reduction="sum"),
    "no elements, none": lambda f: f(uniform(0, 3), uniform(0, 3), reduction="none"),
    "keywords": lambda f: f(target=uniform(2, 3), input=uniform(2, 3), reduction="none"),
    "input and target are one tensor": lambda f: f(x := uniform(2, 3), x),
    "ends of the range": lambda f: f(torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 1.0, 0.0])),
}

ODD_WEIGHTED_LOSS: Calls = {
    "float64 weight": lambda f: f(uniform(2, 3), uniform(2, 3), uniform(3, dtype=torch.float64)),
    "integer weight": lambda f: f(uniform(2, 3), uniform(2, 3), ones(3, dtype=torch.int64) * 2),
    "boolean weight": lambda f: f(uniform(2, 3), uniform(2, 3), torch.tensor([True, False, True])),
    "negative weight": lambda f: f(uniform(2, 3), uniform(2, 3), -uniform(3)),
    "weight of one row": lambda f: f(uniform(2, 3), uniform(2, 3), uniform(1, 3)),
    "weight of one column": lambda f: f(uniform(2, 3), uniform(2, 3), uniform(2, 1), reduction="none"),
    "weight without dimensions": lambda f: f(uniform(2, 3), uniform(2, 3), uniform(), reduction="sum"),
    "weight 0": lambda f: f(uniform(2, 3), uniform(2, 3), torch.zeros(3), reduction="none"),
}

ODD_LOGITS: Calls = {
    "float64 target": lambda f: f(uniform(2, 3), uniform(2, 3, dtype=torch.float64)),
    "float64 input": lambda f: f(uniform(2, 3, dtype=torch.float64), uniform(2, 3)),
    "float64 input, no reduction": lambda f: f(uniform(2, 3, dtype=torch.float64), uniform(2, 3), reduction="none"),
    "target outside [0, 1]": lambda f: f(uniform(4), torch.tensor([-1.0, 2.0, 0.5, -0.1])),
    "huge logits": lambda f: f(torch.tensor([-1e4, 1e4, -90.0, 90.0]), torch.tensor([1.0, 0.0, 0.0, 1.0])),
    "infinite logit": lambda f: f(torch.tensor([torch.inf]), torch.tensor([0.0])),
    "not a number": lambda f: f(torch.tensor([torch.nan, 1.0]), torch.tensor([1.0, 0.0]), reduction="none"),
    "one pos_weight": lambda f: f(uniform(2, 3), uniform(2, 3), pos_weight=uniform(1)),
    "pos_weight without dimensions": lambda f: f(uniform(2, 3), uniform(2, 3), pos_weight=uniform()),
    "pos_weight of one column": lambda f: f(uniform(2, 3), uniform(2, 3), pos_weight=uniform(2, 1)),
    "float64 pos_weight": lambda f: f(uniform(2, 3), uniform(2, 3), pos_weight=uniform(3, dtype=torch.float64)),
    "integer pos_weight": lambda f: f(uniform(2, 3), uniform(2, 3), pos_weight=ones(3, dtype=torch.int64) * 3),
}

ODD_SQUARED_ERROR: Calls = {
    "integer target": lambda f: f(uniform(2, 3), ones(2, 3, dtype=torch.int64)),
    "boolean target": lambda f: f(uniform(2, 3), ones(2, 3, dtype=torch.bool)),
    "integer input": lambda f: f(ones(2, 3, dtype=torch.int64), uniform(2, 3)),
    "float64 target": lambda f: f(uniform(2, 3), uniform(2, 3, dtype=torch.float64)),
    "not a number": lambda f: f(torch.tensor([torch.nan, 1.0]), torch.tensor([1.0, 0.0]), reduction="none"),
}

# torch accepts these with a warning.
BROADCAST_SQUARED_ERROR: Calls = {
    "target of one row": lambda f: f(uniform(2, 3), uniform(3)),
    "target of one column": lambda f: f(uniform(2, 3), uniform(2, 1), reduction="none"),
    "target without dimensions": lambda f: f(uniform(2, 3), uniform(), reduction="sum"),
    "input of one row": lambda f: f(uniform(3), uniform(2, 3)),
}

ODD_CALLS: dict[str, Calls] = {
    "linear": ODD_DENSE,
    "binary_cross_entropy": ODD_LOSS | ODD_WEIGHTED_LOSS,
    "binary_cross_entropy_with_logits": ODD_LOSS | ODD_WEIGHTED_LOSS | ODD_LOGITS,
    "mse_loss": ODD_LOSS | ODD_SQUARED_ERROR | BROADCAST_SQUARED_ERROR,
}
