"""Every private name of torch that torchnn uses, one function each, with a fallback in public names.

A private name may be missing in another version of torch. `import torchnn` works without it, and the fallback gives the
same answer more slowly. Where torch has no public way to find out, the fallback gives the cautious answer, and the
caller then takes a slower path to the same result.
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad

DYNAMO_LOGGER = "torch._dynamo"


def private_name(module: str, name: str) -> Any:
    """Return `module.name`, or None if this version of torch does not have it."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return None


# --- what surrounds a call --------------------------------------------------------------------------------------------

_transforms_are_active = private_name("torch._C", "_are_functorch_transforms_active")
_interpreters = private_name("torch._functorch.pyfunctorch", "retrieve_all_functorch_interpreters")
_transform_type = private_name("torch._C._functorch", "TransformType")
_forward_level = "_current_level"
_num_dispatch_modes = private_name("torch._C", "_len_torch_dispatch_stack")
_any_autocast = private_name("torch._C", "_is_any_autocast_enabled")
_is_legacy_batched = private_name("torch._C._functorch", "is_legacy_batchedtensor")


class _WithoutSetupContext(Function):
    """A Function of the old style, which torch refuses to apply inside a transform."""

    @staticmethod
    def forward(ctx: Any) -> None:
        return None


def transforms_are_active() -> bool:
    """Return whether a transform of `torch.func` (vmap, grad, jvp, …) surrounds the call."""
    if _transforms_are_active is not None:
        return _transforms_are_active()  # type: ignore[no-any-return]
    try:
        _WithoutSetupContext.apply()  # type: ignore[no-untyped-call]
    except RuntimeError:
        return True
    return False


def forward_mode_is_active() -> bool:
    """Return whether forward-mode differentiation surrounds the call."""
    level: Any = getattr(forward_ad, _forward_level, None)
    if level is not None:
        return bool(level >= 0)
    try:
        with forward_ad.dual_level():  # torch refuses a second level
            return False
    except RuntimeError:
        return True


def forward_mode_is_nested() -> bool:
    """Return whether one `torch.func.jvp` runs inside another; the fallback returns True in a single one too."""
    if _interpreters is None or _transform_type is None:
        return forward_mode_is_active()
    kinds: list[Any] = [level.key() for level in _interpreters()]
    return kinds.count(_transform_type.Jvp) > 1


def dispatch_mode_is_active() -> bool:
    """Return whether a `TorchDispatchMode` watches or replaces operations; the fallback says yes."""
    return _num_dispatch_modes is None or _num_dispatch_modes() > 0


def autocast_is_on(device: str) -> bool:
    """Return whether autocast is on for a type of device.

    torch's private function is asked first, because it is faster and this runs at every step.
    """
    if _any_autocast is not None and not _any_autocast():
        return False
    # torch 2.11 cannot trace whether autocast is available. Of the devices that a graph is traced for, meta has none.
    available = device != "meta" if torch.compiler.is_compiling() else torch.amp.is_autocast_available(device)
    return available and torch.is_autocast_enabled(device)


def is_legacy_batched(t: Tensor) -> bool:
    """Return whether `t` is a batch of gradients that `torch.autograd.grad(…, is_grads_batched=True)` computes."""
    if _is_legacy_batched is not None:
        return _is_legacy_batched(t)  # type: ignore[no-any-return]
    try:
        t.untyped_storage()
    except (RuntimeError, NotImplementedError):
        return True
    return False


# --- tensors and products ---------------------------------------------------------------------------------------------

_tensor_guards = private_name("torch._C._dynamo.guards", "TensorGuards")
_tree_leaves = private_name("torch.utils._pytree", "tree_leaves")
_linear_pointwise = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def guard_of(tensors: Sequence[Tensor]) -> Callable[..., bool]:
    """Return a function that returns whether other tensors have the same properties as these.

    This is the guard of compiled code. It compares class, dtype, device, shape, strides, `requires_grad` and the
    dispatch keys, which show autocast and the wrappers of transforms too. The fallback says that they are not alike.
    """
    if _tensor_guards is None:
        return lambda *_: False
    guard = _tensor_guards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
    return guard.check  # type: ignore[no-any-return]


def version_of(t: Tensor) -> int:
    """Return how often `t` was written to in place; 0 if torch does not count it."""
    return getattr(t, "_version", 0)


def tree_leaves(tree: Any) -> list[Any]:
    """Return the leaves of nested lists, tuples and dictionaries, from left to right."""
    if _tree_leaves is not None:
        return _tree_leaves(tree)  # type: ignore[no-any-return]
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    return [leaf for part in tree for leaf in tree_leaves(part)] if isinstance(tree, list | tuple) else [tree]


def has_onednn_linear() -> bool:
    """Return whether `onednn_linear` runs oneDNN's product."""
    return _linear_pointwise is not None


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b, computed by oneDNN in any dtype that it has; by `torch.nn.functional.linear` as a fallback.

    Args:
        x: shape (rows, n_in), in any layout that does not overlap.
        weight: shape (n_out, n_in), in any layout that does not overlap.
        bias: shape (n_out,).
    """
    if _linear_pointwise is None:
        return nn.functional.linear(x, weight, bias)
    return _linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]


# --- modules ----------------------------------------------------------------------------------------------------------

_has_any_global_hook = private_name("torch.nn.modules.module", "_has_any_global_hook")
_global_forward_hooks = private_name("torch.nn.modules.module", "_global_forward_hooks")
_module_hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_module_parameters = "_parameters"
_module_children = "_modules"


def has_global_hooks() -> bool:
    """Return whether some hook is registered for all modules; the fallback says yes."""
    return _has_any_global_hook is None or bool(_has_any_global_hook())


def global_forward_hooks() -> Mapping[Any, Any]:
    """Return the forward hooks that are registered for all modules."""
    if _global_forward_hooks is not None:
        return _global_forward_hooks  # type: ignore[no-any-return]
    return _hooks_beside(nn.modules.module.register_module_forward_hook(_no_hook))


def forward_hooks(module: nn.Module) -> Mapping[Any, Any]:
    """Return the forward hooks of one module."""
    own: Mapping[Any, Any] | None = getattr(module, _module_hooks[0], None)
    return own if own is not None else _hooks_beside(module.register_forward_hook(_no_hook))


def _no_hook(*_: Any) -> None:
    return None


def _hooks_beside(handle: Any) -> Mapping[Any, Any]:
    """Return the hooks that are registered in the same place as that of a handle, after removing its own."""
    hooks: Mapping[Any, Any] = handle.hooks_dict_ref()
    handle.remove()
    return hooks


def has_hooks(module: nn.Module) -> bool:
    """Return whether a module has a hook of its own; the fallback says yes."""
    try:
        forward, forward_pre, backward, backward_pre = [getattr(module, name) for name in _module_hooks]
    except AttributeError:
        return True
    return bool(forward or forward_pre or backward or backward_pre)


def own_parameters(module: nn.Module) -> Mapping[str, Any]:
    """Return the parameters of a module by name, without those of its children; the fallback leaves None out."""
    own: Mapping[str, Any] | None = getattr(module, _module_parameters, None)
    return own if own is not None else dict(module.named_parameters(recurse=False, remove_duplicate=False))


def children_of(module: nn.Module) -> Mapping[str, nn.Module | None]:
    """Return the children of a module by name, also one that it holds twice; the fallback leaves None out."""
    own: Mapping[str, nn.Module | None] | None = getattr(module, _module_children, None)
    if own is not None:
        return own
    named = module.named_modules(remove_duplicate=False)
    return {name: child for name, child in named if name and "." not in name}


# --- the graph, and what watches or traces it -------------------------------------------------------------------------

_forward_class = "_forward_cls"
_input_metadata = "_input_metadata"
_used_autocast = "_fwd_used_autocast"
_qualified_name = "_qualname"


def function_of(node: Any) -> type[Function]:
    """Return the `torch.autograd.Function` that made a node; the fallback returns the last one of the node's name."""
    function: type[Function] | None = getattr(node, _forward_class, None)
    if function is not None:
        return function
    candidates = [Function]
    for candidate in candidates:  # the list grows while it is read
        candidates += candidate.__subclasses__()
    return [c for c in candidates if f"{c.__name__}Backward" == type(node).__name__][-1]


def output_metadata(node: Any) -> Sequence[Any] | None:
    """Return shape, dtype and device of each output of the operation that made a node; None if torch does not say."""
    try:
        return getattr(node, _input_metadata, None)
    except RuntimeError:  # torch 2.11 has the name, but refuses it for the node of a Function written in Python
        return None


def leaves_autocast(node: Any) -> bool:
    """Return whether the forward that made a node was declared to leave autocast; the fallback says no."""
    return getattr(node, _used_autocast, True) is False


def name_of_custom_op(op: Any) -> str | None:
    """Return the name of a `torch.library.custom_op`, such as "mylib::f"; None for anything else.

    The fallback reads the name in the operator's repr.
    """
    name: str | None = getattr(op, _qualified_name, None)
    if name is None and (shown := re.fullmatch(r"<CustomOpDef\((.+)\)>", repr(op))):
        return shown[1]
    return name


def watch_operations(watch: Callable[[Any], None]) -> AbstractContextManager[Any] | None:
    """Return a context in which `watch(result)` is called after each operation of torch, of a backward too.

    None if this version of torch has no way to do it.
    """
    mode = private_name("torch.utils._python_dispatch", "TorchDispatchMode")
    if mode is None:
        return None

    def dispatch(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        watch(result)
        return result

    return type("Watch", (mode,), {"__torch_dispatch__": dispatch})()  # type: ignore[no-any-return]


def fake_tensor_mode() -> AbstractContextManager[Any] | None:
    """Return a context in which tensors have a device, a shape and a dtype but no numbers; None if torch has none."""
    mode = private_name("torch._subclasses.fake_tensor", "FakeTensorMode")
    return None if mode is None else mode(allow_non_fake_inputs=True)


def graph_break_reasons(call: Callable[..., Any], inputs: Sequence[Any]) -> dict[str, int]:
    """Return the reasons for which `torch.compile` splits a call into several graphs, and how often.

    The fallback finds the first reason only.
    """
    counters = private_name("torch._dynamo.utils", "counters")  # here, because importing it takes seconds
    if counters is not None:
        counters.clear()
        torch.compile(call, backend="eager")(*inputs)
        return dict(counters["graph_break"])
    try:
        torch.compile(call, backend="eager", fullgraph=True)(*inputs)
    except RuntimeError as error:
        return {str(error): 1}
    return {}
