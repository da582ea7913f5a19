"""Checks of the laws of a hand-written backward, written once and turned on ours and on planted wrong ones.

Each takes a function of tensors and its torch twin, or a function alone, and fails by AssertionError.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.cases import STRIDES

Op = Callable[..., Tensor]
PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "mv", "dot", "matmul", "linear"}


def close(ours: Any, twin: Any, what: str) -> None:
    torch.testing.assert_close(ours, twin, rtol=1e-12, atol=1e-12, msg=lambda m: f"{what}: {m}")


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.detach().clone().requires_grad_(t.requires_grad) for t in tensors]


def gradients(op: Op, tensors: Sequence[Tensor], grad_output: Tensor | None = None) -> tuple[Tensor, ...]:
    output = op(*tensors)
    wanted = [t for t in tensors if t.requires_grad]
    return torch.autograd.grad(output, wanted, torch.ones_like(output) if grad_output is None else grad_output)


def check_value_and_gradients(op: Op, twin: Op, tensors: Sequence[Tensor]) -> None:
    """A random incoming gradient, not ones."""
    output = twin(*tensors)
    close(op(*tensors), output, "value")
    incoming = torch.randn_like(output)
    for ours, theirs in zip(gradients(op, tensors, incoming), gradients(twin, tensors, incoming), strict=True):
        close(ours, theirs, "gradient")


def check_strides(op: Op, twin: Op, tensors: Sequence[Tensor]) -> None:
    """Every layout of the incoming gradient, and of every input."""
    shape = op(*tensors).shape
    for name, layout in STRIDES.items():
        incoming = torch.randn(shape, dtype=tensors[0].dtype)
        incoming = layout(incoming) if shape else incoming
        laid_out = [(layout(t.detach()) if t.dim() else t.detach()).requires_grad_(t.requires_grad) for t in tensors]
        for inputs in (tensors, laid_out):
            pairs = zip(gradients(op, inputs, incoming), gradients(twin, inputs, incoming), strict=True)
            for ours, theirs in pairs:
                close(ours, theirs, name)


def raw_backward(output: Tensor, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    """What `backward` itself returns, before the engine sums and casts it into place."""
    node: Any = output.grad_fn
    raw = node.apply(grad_output)
    return raw if isinstance(raw, tuple) else (raw,)


def check_raw_backward(op: Op, tensors: Sequence[Tensor]) -> None:
    """Shapes and dtypes as `backward` returns them, before the engine sums and casts them into place."""
    output = op(*tensors)
    for grad, t in zip(raw_backward(output, torch.randn_like(output)), tensors, strict=False):
        if t.requires_grad:
            assert grad is not None, "no gradient"
            assert (grad.shape, grad.dtype) == (t.shape, t.dtype), f"{grad.shape} {grad.dtype} for {t.shape} {t.dtype}"


def check_nothing_is_mutated(op: Op, tensors: Sequence[Tensor]) -> None:
    before = copies(tensors)
    output = op(*tensors)
    incoming = torch.randn_like(output)
    kept = incoming.clone()
    torch.autograd.grad(output, [t for t in tensors if t.requires_grad], incoming)
    assert torch.equal(incoming, kept), "the incoming gradient was changed"
    for t, old in zip(tensors, before, strict=True):
        assert torch.equal(t, old), "an input was changed"


def check_frozen_inputs_cost_nothing(op: Op, tensors: Sequence[Tensor], is_product: Sequence[bool]) -> None:
    """Every subset of frozen inputs gives the other gradients unchanged, with one product a gradient that needs one."""
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


def check_backward_twice(op: Op, tensors: Sequence[Tensor]) -> None:
    """`retain_graph` gives the same again, and `.grad` accumulates."""
    output = op(*tensors)
    incoming = torch.randn_like(output)
    wanted = [t for t in tensors if t.requires_grad]
    first = torch.autograd.grad(output, wanted, incoming, retain_graph=True)
    second = torch.autograd.grad(output, wanted, incoming)
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two), "a second backward differs"


def check_second_order(op: Op, twin: Op, tensors: Sequence[Tensor]) -> None:
    """Inside a larger graph: the gradient of a penalty on gradients, through what comes before and after."""

    def penalty(f: Op, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        before = [torch.sin(t) if t.requires_grad else t for t in inputs]
        value = f(*before).square().sum()
        wanted = [t for t in inputs if t.requires_grad]
        first = torch.autograd.grad(value, wanted, create_graph=True)
        return torch.autograd.grad(sum((g.square().sum() for g in first), value), wanted)

    for ours, theirs in zip(penalty(op, tensors), penalty(twin, tensors), strict=True):
        close(ours, theirs, "second order")


def check_forward_mode(op: Op, twin: Op, tensors: Sequence[Tensor]) -> None:
    """A tangent for each input alone, and for all together."""
    values = tuple(t.detach() for t in tensors)
    tangents = tuple(torch.randn_like(t) for t in values)
    zero = tuple(torch.zeros_like(t) for t in values)
    for chosen in [*range(len(values)), None]:
        mix = tangents if chosen is None else tuple(tangents[i] if i == chosen else z for i, z in enumerate(zero))
        close(torch.func.jvp(op, values, mix)[1], torch.func.jvp(twin, values, mix)[1], "jvp")


def check_vmap(op: Op, twin: Op, tensors: Sequence[Tensor]) -> None:
    """vmap over each argument, of the value and of the gradients."""
    values = [t.detach() for t in tensors]

    def grads(f: Op) -> Op:
        return lambda *inputs: torch.func.grad(lambda *i: f(*i).square().sum(), argnums=tuple(range(len(inputs))))(
            *inputs
        )

    for batched in range(len(values)):
        inputs = [torch.stack([v, v * 0.5, v * 0.9]) if i == batched else v for i, v in enumerate(values)]
        dims = tuple(0 if i == batched else None for i in range(len(values)))
        close(torch.func.vmap(op, dims)(*inputs), torch.func.vmap(twin, dims)(*inputs), "vmap")
        ours, theirs = (torch.func.vmap(grads(f), dims)(*inputs) for f in (op, twin))
        for a, b in zip(ours, theirs, strict=True):
            close(a, b, "vmap of gradients")


def check_saved_tensors_are_seen_by_hooks(op: Op, tensors: Sequence[Tensor], constants: Sequence[Tensor] = ()) -> None:
    """What backward uses passes through saved-tensor hooks, and is an input or the output: nothing in between."""
    packed: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        packed.append(t)
        return torch.zeros_like(t)  # a backward that uses what it saved must now give something else

    output = op(*tensors)
    kept = [name for name, value in vars(output.grad_fn).items() if isinstance(value, Tensor)]
    assert not kept, f"kept beside the hooks: {kept}"
    honest = gradients(op, tensors, torch.ones_like(output))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        output = op(*tensors)
    known = {t.data_ptr() for t in [*tensors, *constants]} | {output.data_ptr()}
    assert all(t.data_ptr() in known for t in packed if t.numel()), "an intermediate was saved"
    wanted = [t for t in tensors if t.requires_grad]
    seen = torch.autograd.grad(output, wanted, torch.ones_like(output))
    assert any(not torch.equal(a, b) for a, b in zip(honest, seen, strict=True)), (
        "backward uses nothing that the hooks saw"
    )


def check_autocast(op: Op, twin: Op, tensors: Sequence[Tensor]) -> None:
    """Dtype of the value as the twin's, of each gradient as its input's, with backward inside and outside."""
    singles = [t.detach().float().requires_grad_(t.requires_grad) for t in tensors]
    wanted = [t for t in singles if t.requires_grad]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, expected = op(*singles), twin(*singles)
        assert output.dtype == expected.dtype, f"{output.dtype} where the twin gives {expected.dtype}"
        inside = torch.autograd.grad(output, wanted, torch.ones_like(output), retain_graph=True)
    outside = torch.autograd.grad(output, wanted, torch.ones_like(output))
    theirs = torch.autograd.grad(expected, wanted, torch.ones_like(expected))
    for a, b, c, t in zip(inside, outside, theirs, wanted, strict=True):
        assert a.dtype == b.dtype == t.dtype, f"gradient {a.dtype}, {b.dtype} for {t.dtype}"
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)
        torch.testing.assert_close(b, c, rtol=5e-2, atol=5e-2)


def check_backward_inside_autocast_keeps_dtypes(op: Op, tensors: Sequence[Tensor]) -> None:
    """A forward outside autocast and a raw backward inside it: gradients keep the dtype of the inputs."""
    singles = [t.detach().float().requires_grad_(t.requires_grad) for t in tensors]
    output = op(*singles)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raw = raw_backward(output, torch.ones_like(output))
    for grad, t in zip(raw, singles, strict=False):
        assert grad is None or grad.dtype == t.dtype, f"gradient {grad.dtype} for {t.dtype}"


def check_compiles(op: Op, tensors: Sequence[Tensor]) -> None:
    """One graph, forward and backward, equal to eager."""
    torch._dynamo.reset()
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    incoming = torch.randn_like(op(*tensors))
    for ours, eager in zip(gradients(compiled, tensors, incoming), gradients(op, tensors, incoming), strict=True):
        close(ours, eager, "compiled")
