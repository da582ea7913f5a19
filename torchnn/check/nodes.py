"""The nodes that somebody's autograd.Functions leave in a graph, and what can be learned from them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import BackwardCFunction, once_differentiable
from torch.overrides import TorchFunctionMode

from torchnn.check.subject import Subject
from torchnn.check.tensors import NotApplicable, outputs_of

ONCE = once_differentiable(lambda ctx: None).__code__  # that of every function it wraps


def functions(outputs: Sequence[Tensor]) -> list[Any]:
    """The nodes of the graph that somebody's autograd.Function made."""
    found: list[Any] = []
    waiting, seen = [t.grad_fn for t in outputs], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "needs_input_grad"):
            found.append(node)
        waiting += [edge for edge, _ in node.next_functions]
    return found


def is_once_differentiable(node: Any) -> bool:
    """Whether its backward says aloud that it cannot be differentiated again."""
    backward = backward_of(node._forward_cls)
    while backward is not None:
        if getattr(backward, "__code__", None) is ONCE:
            return True
        backward = getattr(backward, "__wrapped__", None)
    return False


def backward_of(function: Any) -> Any:
    """`backward`, or `vjp`, its other name."""
    return function.backward if function.backward is not Function.backward else function.vjp


def is_of_custom_op(node: Any) -> bool:
    """Whether torch made the Function, for a `torch.library.custom_op`."""
    return str(node._forward_cls.__name__).startswith("GeneratedBackwardFor")


def raw_backward(node: Any) -> tuple[Tensor | None, ...]:
    """What `backward` itself returns, before the engine sums and casts it into place."""
    incoming = [torch.ones(tuple(m.shape), dtype=m.dtype, device=m.device) for m in node._input_metadata]
    with torch.no_grad():
        returned = node.apply(*incoming)
    return returned if isinstance(returned, tuple) else (returned,)


def edges_with_gradients(node: Any, raw: Sequence[Tensor | None], seen: "Seen") -> Iterator[tuple[int, Tensor, Any]]:
    """Number, gradient, and shape and dtype of the input, for each argument that is a tensor; others have no edge."""
    mask = seen.masks.get(node)
    if mask is None:
        raise NotApplicable("a Function was called in a way that cannot be watched")
    given = [*raw[: len(mask)], *[None] * (len(mask) - len(raw))]  # None may follow, for an argument that was left out
    tensors = [(i, grad) for i, (grad, is_tensor) in enumerate(zip(given, mask, strict=True), 1) if is_tensor]
    for (number, grad), (edge, position) in zip(tensors, node.next_functions, strict=True):
        if grad is not None and edge is not None:
            yield number, grad, edge_of(edge, position)


def edge_of(node: Any, number: int) -> tuple[torch.Size, torch.dtype]:
    if hasattr(node, "variable"):
        return node.variable.shape, node.variable.dtype
    metadata = node._input_metadata[number]
    return torch.Size(metadata.shape), metadata.dtype


# --- what goes into and comes out of Functions ------------------------------------------------------------------------


def within(value: Any, depth: int = 4) -> Iterator[Any]:
    yield value
    if depth and isinstance(value, dict):
        value = list(value.values())
    elif depth and hasattr(value, "__dict__") and not callable(value) and not isinstance(value, Tensor | ModuleType):
        value = list(vars(value).values())
    if depth and isinstance(value, list | tuple | set):
        for one in value:
            yield from within(one, depth - 1)
    elif depth and callable(value) and getattr(value, "__closure__", None):
        for cell in value.__closure__:
            yield from within(cell.cell_contents, depth - 1)


class Seen:
    """What goes into and comes out of the Functions of a call.

    Attributes:
        storages: the addresses of its tensors.
        masks: by node, which of its arguments are tensors.
    """

    def __init__(self) -> None:
        self.storages: set[int] = set()
        self.masks: dict[Any, tuple[bool, ...]] = {}
        self.kept: list[Tensor] = []  # alive, or an address would be given to something else

    def add(self, values: Any) -> None:
        for t in within(values):
            if isinstance(t, Tensor):
                self.storages.add(t.untyped_storage().data_ptr())
                self.kept.append(t)

    def add_node(self, node: Any, arguments: Sequence[Any]) -> None:
        self.masks[node] = tuple(isinstance(a, Tensor) for a in arguments)


@contextmanager
def watched(subject: Subject) -> Iterator[Seen]:
    """While a call runs, note what its Functions are given and return."""
    seen = Seen()
    with ExitStack() as stack:
        for function in {node._forward_cls for node in functions(outputs_of(subject.call, subject.cases()[0]))}:
            stack.enter_context(replaced(function, "forward", forward_seen_by(seen, function.forward)))
            stack.enter_context(replaced(function, "setup_context", setup_seen_by(seen, function.setup_context)))
        yield seen


def forward_seen_by(seen: Seen, original: Any) -> Any:
    def forward(*args: Any) -> Any:
        if isinstance(args[0], BackwardCFunction):  # ctx, where forward and setup_context are one
            seen.add_node(args[0], args[1:])
        seen.add(args)
        result = original(*args)
        seen.add(result)
        return result

    return forward


def setup_seen_by(seen: Seen, original: Any) -> Any:
    if original is Function.setup_context:
        return original  # torch tells the two styles apart by it

    def setup_context(ctx: Any, inputs: Any, output: Any) -> Any:
        seen.add_node(ctx, inputs)
        return original(ctx, inputs, output)

    return setup_context


@contextmanager
def replaced(function: Any, name: str, value: Any) -> Iterator[None]:
    """A static method of a class, put back afterwards."""
    own = vars(function).get(name)
    if value is not getattr(function, name):
        setattr(function, name, staticmethod(value))
    try:
        yield
    finally:
        if own is not None:
            setattr(function, name, own)
        elif name in vars(function):
            delattr(function, name)


# --- a node on a device that is not there -----------------------------------------------------------------------------


class AsksForGradientsError(Exception):
    """A fake CUDA tensor that requires a gradient would end the process on a build of torch without CUDA."""


class NoGradients(TorchFunctionMode):
    """Nothing is made to require a gradient, by torch.func neither."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.requires_grad_, Tensor.requires_grad.__set__):  # type: ignore[attr-defined]
            raise AsksForGradientsError
        return func(*args, **(kwargs or {}))


class FakeContext:
    """A ctx on a fake CUDA device: what the node has, but for the numbers. It runs the pure backward."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._saved = [None if t is None else t.detach().to("meta") for t in node.saved_tensors]
        self.needs_input_grad = node.needs_input_grad
        vars(self).update(vars(node))

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        return tuple(None if t is None else fake(t) for t in self._saved)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def gradients(self) -> list[Tensor]:
        """What the backward gives, on the fake device."""
        grads = backward_of(self._node._forward_cls)(self, *map(fake, self._node._input_metadata))
        return [t for t in (grads if isinstance(grads, tuple) else (grads,)) if isinstance(t, Tensor)]


def fake(t: Any) -> Tensor:
    """On CUDA, of the shape and dtype of a tensor or of what the engine knows of one."""
    return torch.empty(tuple(t.shape), dtype=t.dtype, device="cuda")
