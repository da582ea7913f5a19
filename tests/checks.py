"""Compare our operation with torch's: to the last digits, with the fewest products, and by `torchnn.check`."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torchnn.check import assert_backward

Op = Callable[..., Tensor]
PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "mv", "dot", "matmul", "linear"}


def close(ours: Any, theirs: Any, what: str) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12, msg=lambda m: f"{what}: {m}")


def gradients(op: Op, tensors: Sequence[Tensor], grad_output: Tensor | None = None) -> tuple[Tensor, ...]:
    output = op(*tensors)
    wanted = [t for t in tensors if t.requires_grad]
    return torch.autograd.grad(output, wanted, torch.ones_like(output) if grad_output is None else grad_output)


def check_laws(op: Op, theirs: Op, tensors: Sequence[Tensor], **options: Any) -> None:
    """Every property of `torchnn.check` except the slow ones."""

    def make_inputs(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(t.detach().to(device, dtype).requires_grad_(t.requires_grad) for t in tensors)

    assert_backward(op, theirs, make_inputs, **{"quick": True, **options})


def check_value_and_gradients(op: Op, theirs: Op, tensors: Sequence[Tensor]) -> None:
    """A random incoming gradient, not ones."""
    output = theirs(*tensors)
    close(op(*tensors), output, "value")
    incoming = torch.randn_like(output)
    for ours, expected in zip(gradients(op, tensors, incoming), gradients(theirs, tensors, incoming), strict=True):
        close(ours, expected, "gradient")


def check_frozen_inputs_cost_nothing(op: Op, tensors: Sequence[Tensor], is_product: Sequence[bool]) -> None:
    """Frozen inputs leave the other gradients unchanged, and each gradient that needs a product costs one."""
    shape = op(*tensors).shape
    incoming = torch.linspace(-1, 2, shape.numel(), dtype=tensors[0].dtype).reshape(shape)
    full = gradients(op, [t.detach().requires_grad_() for t in tensors], incoming)
    for wanted in product([True, False], repeat=len(tensors)):
        if not any(wanted):
            continue
        inputs = [t.detach().clone().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
        output = op(*inputs)
        with CountProducts() as counter:
            grads = torch.autograd.grad(output, [t for t in inputs if t.requires_grad], incoming)
        for ours, theirs in zip(grads, [g for g, w in zip(full, wanted, strict=True) if w], strict=True):
            close(ours, theirs, f"gradient with {wanted}")
        needed = sum(w and p for w, p in zip(wanted, is_product, strict=True))
        assert counter.products == needed, f"{counter.products} products where {needed} were needed: {wanted}"


class CountProducts(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.products += func.overloadpacket.__name__ in PRODUCTS
        return func(*args, **(kwargs or {}))
