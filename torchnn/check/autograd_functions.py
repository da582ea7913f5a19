"""Find the custom autograd.Functions in a graph, and inspect what they save, receive and return."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import BackwardCFunction, once_differentiable
from torch.overrides import TorchFunctionMode

from torchnn._torch import function_of, output_metadata
from torchnn.check.gradients import NotApplicable, outputs_of
from torchnn.check.subject import Subject

ONCE = once_differentiable(lambda ctx: None).__code__  # the code object of every function that it wraps


def function_nodes(outputs: Sequence[Tensor]) -> list[Any]:
    """The nodes of the graph that belong to a custom autograd.Function."""
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
    """Whether the backward is declared with `once_differentiable`."""
    backward = backward_of(function_of(node))
    while backward is not None:
        if getattr(backward, "__code__", None) is ONCE:
            return True
        backward = getattr(backward, "__wrapped__", None)
    return False


def backward_of(function: Any) -> Any:
    """The `backward` of a Function, or `vjp`, its other name."""
    return function.backward if function.backward is not Function.backward else function.vjp


def is_custom_op(node: Any) -> bool:
    """Whether torch made the Function for a `torch.library.custom_op`."""
    return function_of(node).__name__.startswith("GeneratedBackwardFor")


def metadata_of(node: Any) -> Sequence[Any]:
    """The shape, dtype and device of each output of the operation that made a node."""
    metadata = output_metadata(node)
    if metadata is None:
        raise NotApplicable(f"torch {torch.__version__} does not give the shapes of a node's outputs")
    return metadata


def raw_backward(node: Any) -> tuple[Tensor | None, ...]:
    """What `backward` itself returns for ones, before autograd sums and casts it."""
    grad_outputs = [torch.ones(tuple(m.shape), dtype=m.dtype, device=m.device) for m in metadata_of(node)]
    with torch.no_grad():
        returned = node.apply(*grad_outputs)
    return returned if isinstance(returned, tuple) else (returned,)


def gradients_with_inputs(
    node: Any, raw: Sequence[Tensor | None], calls: "FunctionCalls"
) -> Iterator[tuple[int, Tensor, tuple[torch.Size, torch.dtype]]]:
    """Pair each returned gradient with its input.

    Args:
        node: of the Function.
        raw: what its backward returned.
        calls: recorded while the Function ran.

    Yields:
        The number of the argument, its gradient, and the shape and dtype of the argument.

    Raises:
        NotApplicable: the call of this Function was not recorded.
    """
    is_tensor = calls.tensor_arguments.get(node)
    if is_tensor is None:
        raise NotApplicable("a Function was called in a way that cannot be recorded")
    grads = [*raw[: len(is_tensor)], *[None] * (len(is_tensor) - len(raw))]  # arguments that were left out have None
    numbered = [(number, grad) for number, (grad, is_one) in enumerate(zip(grads, is_tensor, strict=True), 1) if is_one]
    for (number, grad), (edge, position) in zip(numbered, node.next_functions, strict=True):
        if grad is not None and edge is not None:
            yield number, grad, shape_and_dtype(edge, position)


def shape_and_dtype(node: Any, number: int) -> tuple[torch.Size, torch.dtype]:
    """Shape and dtype of the tensor that a node of the graph made, or of the leaf that it accumulates into."""
    if hasattr(node, "variable"):
        return node.variable.shape, node.variable.dtype
    metadata = metadata_of(node)[number]
    return torch.Size(metadata.shape), metadata.dtype


# --- recording calls of Functions -------------------------------------------------------------------------------------


def walk(value: Any, depth: int = 4) -> Iterator[Any]:
    """A value and everything inside it: elements, attributes, variables of a closure."""
    yield value
    if depth and isinstance(value, dict):
        value = list(value.values())
    elif depth and hasattr(value, "__dict__") and not callable(value) and not isinstance(value, Tensor | ModuleType):
        value = list(vars(value).values())
    if depth and isinstance(value, list | tuple | set):
        for one in value:
            yield from walk(one, depth - 1)
    elif depth and callable(value) and getattr(value, "__closure__", None):
        for cell in value.__closure__:
            yield from walk(cell.cell_contents, depth - 1)


class FunctionCalls:
    """The arguments and results of the Functions in a call.

    Attributes:
        storages: the addresses of the tensors among them.
        tensor_arguments: for each node, which of its arguments are tensors.
    """

    def __init__(self) -> None:
        self.storages: set[int] = set()
        self.tensor_arguments: dict[Any, tuple[bool, ...]] = {}
        self._alive: list[Tensor] = []  # or another tensor could get the same address

    def add(self, values: Any) -> None:
        """Record the tensors among arguments or results."""
        for t in walk(values):
            if isinstance(t, Tensor):
                self.storages.add(t.untyped_storage().data_ptr())
                self._alive.append(t)

    def add_node(self, node: Any, arguments: Sequence[Any]) -> None:
        """Record which arguments of a node are tensors."""
        self.tensor_arguments[node] = tuple(isinstance(a, Tensor) for a in arguments)


@contextmanager
def recorded_calls(subject: Subject) -> Iterator[FunctionCalls]:
    """Record the arguments and results of the subject's Functions."""
    calls = FunctionCalls()
    with ExitStack() as stack:
        for function in {function_of(node) for node in function_nodes(outputs_of(subject.call, subject.cases()[0]))}:
            stack.enter_context(replaced(function, "forward", recording_forward(calls, function.forward)))
            stack.enter_context(replaced(function, "setup_context", recording_setup(calls, function.setup_context)))
        yield calls


def recording_forward(calls: FunctionCalls, original: Any) -> Any:
    """A forward that records its call."""

    def forward(*args: Any) -> Any:
        if isinstance(args[0], BackwardCFunction):  # ctx, in the style without setup_context
            calls.add_node(args[0], args[1:])
        calls.add(args)
        result = original(*args)
        calls.add(result)
        return result

    return forward


def recording_setup(calls: FunctionCalls, original: Any) -> Any:
    """A setup_context that records its call."""
    if original is Function.setup_context:
        return original  # torch distinguishes the two styles by it

    def setup_context(ctx: Any, inputs: Any, output: Any) -> Any:
        calls.add_node(ctx, inputs)
        return original(ctx, inputs, output)

    return setup_context


@contextmanager
def replaced(function: Any, name: str, value: Any) -> Iterator[None]:
    """Replace a static method of a class, and restore it afterwards."""
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


# --- running a backward on a device that does not exist ---------------------------------------------------------------


class AsksForGradientsError(Exception):
    """The call sets requires_grad: with a fake CUDA tensor that would abort a process whose torch lacks CUDA."""


class ForbidRequiresGrad(TorchFunctionMode):
    """Raise AsksForGradientsError if anything, torch.func included, makes a tensor require a gradient."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.requires_grad_, Tensor.requires_grad.__set__):  # type: ignore[attr-defined]
            raise AsksForGradientsError
        return func(*args, **(kwargs or {}))


class FakeContext:
    """A ctx whose saved tensors are fake CUDA tensors, with everything else taken from a real node."""

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
        """Run the backward on the fake device."""
        grads = backward_of(function_of(self._node))(self, *map(fake, metadata_of(self._node)))
        return [t for t in (grads if isinstance(grads, tuple) else (grads,)) if isinstance(t, Tensor)]


def fake(like: Any) -> Tensor:
    """A CUDA tensor with the shape and dtype of a tensor, or of autograd's metadata of one."""
    return torch.empty(tuple(like.shape), dtype=like.dtype, device="cuda")
