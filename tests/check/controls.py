"""Correct code that must not fail: Functions written in five styles, and torch's own operations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from torchnn.check.operations import normal_inputs


class Control(NamedTuple):
    """A correct function, its reference and its inputs, and the properties that do not apply to it."""

    name: str
    target: Any
    reference: Any
    make_inputs: Callable[..., Any]
    not_applicable: frozenset[str] = frozenset()


def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.sigmoid(functional.linear(x, weight, bias))


LAYER = normal_inputs((5, 3), (4, 3), (4,))


def no_autocast() -> Any:
    return torch.autocast("cpu", enabled=False)


def lowered(*tensors: Tensor) -> list[Tensor]:
    """Cast as autocast casts the inputs of a matrix product."""
    if not torch.is_autocast_enabled("cpu"):
        return list(tensors)
    dtype = torch.get_autocast_dtype("cpu")
    return [t if t.dtype == torch.float64 else t.to(dtype) for t in tensors]


def layer_backward(grad_output: Tensor, saved: tuple[Tensor, ...], needs: tuple[bool, ...]) -> Any:
    """δ = ∂𝓛/∂a · a(1 − a) and its three products, for any number of leading dimensions."""
    x, weight, a = saved
    with no_autocast():
        delta = grad_output * a * (1 - a)
        rows, x_rows = delta.reshape(-1, delta.shape[-1]), x.reshape(-1, x.shape[-1])
        return (
            delta @ weight if needs[0] else None,
            rows.T @ x_rows if needs[1] else None,
            rows.sum(0) if needs[2] else None,
        )


class Separate(Function):
    """Separate forward and setup_context, with a rule for vmap."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return layer(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight, output)
        ctx.save_for_forward(x, weight, output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return layer_backward(grad_output, ctx.saved_tensors, ctx.needs_input_grad)


class WithJvp(Separate):
    """The same with forward mode, which torch.compile does not support."""

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dweight: Tensor | None, dbias: Tensor | None) -> Tensor:
        x, weight, a = ctx.saved_tensors
        dz = torch.zeros_like(a)
        dz = dz if dx is None else dz + dx @ weight.T
        dz = dz if dweight is None else dz + x @ dweight.T
        dz = dz if dbias is None else dz + dbias
        tangent: Tensor = dz * a * (1 - a)
        return tangent


class Combined(Function):
    """The older style: forward takes ctx."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        output = layer(x, weight, bias)
        ctx.save_for_backward(x, weight, output)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return layer_backward(grad_output, ctx.saved_tensors, ctx.needs_input_grad)


class Once(Function):
    """A backward that declares that it cannot be differentiated again."""

    generate_vmap_rule = False

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        output = layer(x, weight, bias)
        ctx.save_for_backward(x, weight, output * (1 - output))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, weight, slope = ctx.saved_tensors
        with no_autocast():
            delta = grad_output * slope
            rows = delta.reshape(-1, delta.shape[-1])
            needs = ctx.needs_input_grad
            return (
                delta @ weight if needs[0] else None,
                rows.T @ x.reshape(-1, x.shape[-1]) if needs[1] else None,
                rows.sum(0) if needs[2] else None,
            )


@torch.library.custom_op("torchnn_tests::layer", mutates_args=())
def custom_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return layer(x, weight, bias)


@custom_layer.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _save(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight, output)


def _backward(ctx: Any, grad_output: Tensor) -> Any:
    return layer_backward(grad_output, ctx.saved_tensors, ctx.needs_input_grad)


custom_layer.register_autograd(_backward, setup_context=_save)


def lowering_inputs(apply: Callable[..., Any]) -> Callable[..., Any]:
    """The function that a library would export: it casts the inputs under autocast, then calls `apply`."""

    def call(*inputs: Tensor) -> Any:
        return apply(*lowered(*inputs))

    return call


TRANSFORMS = {"vmap", "func_grad", "per_sample_gradients", "jacobian", "hessian", "compiled_func_grad", "forward_mode"}
NO_FUNCTION = {"raw_gradients", "saved_tensors"}
COMPILED = {"compiled", "compiled_dynamic", "graph_breaks"}


def classes(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
    logits = torch.randn(5, 3, generator=generator, dtype=torch.float64).to(device, dtype)
    return logits, torch.tensor([0, 2, 1, 1, 0], device=device)


def style(name: str, apply: Callable[..., Any], *not_applicable: str) -> Control:
    """The sigmoid layer, written in one style."""
    return Control(
        name=name,
        target=lowering_inputs(apply),
        reference=layer,
        make_inputs=LAYER,
        not_applicable=frozenset(not_applicable),
    )


STYLES = [
    style("separate", Separate.apply, "forward_mode"),
    style("with jvp", WithJvp.apply, *COMPILED),
    style("combined", Combined.apply, *TRANSFORMS),
    style("once_differentiable", Once.apply, *TRANSFORMS, "second_order", "second_order_in_graph"),
    style("custom_op", custom_layer, *TRANSFORMS, "onnx"),
]

ONE_INPUT = frozenset({*NO_FUNCTION, "frozen_inputs"})

TORCH = [
    Control(
        name="linear",
        target=functional.linear,
        reference=lambda x, w, b: x @ w.T + b,
        make_inputs=LAYER,
        not_applicable=frozenset(NO_FUNCTION),
    ),
    Control(
        name="sigmoid",
        target=torch.sigmoid,
        reference=lambda z: 1 / (1 + torch.exp(-z)),
        make_inputs=normal_inputs((5, 4)),
        not_applicable=ONE_INPUT,
    ),
    Control(
        name="softplus",
        target=functional.softplus,
        reference=lambda z: torch.log1p(torch.exp(z)),
        make_inputs=normal_inputs((5, 4)),
        not_applicable=ONE_INPUT,
    ),
    Control(
        name="layer_norm",
        target=lambda x, w, b: functional.layer_norm(x, (4,), w, b),
        reference=lambda x, w, b: (
            (x - x.mean(-1, True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * w + b
        ),
        make_inputs=normal_inputs((5, 4), (4,), (4,)),
        not_applicable=frozenset(NO_FUNCTION),
    ),
    Control(
        name="cross_entropy",
        target=functional.cross_entropy,
        reference=lambda z, y: -torch.log_softmax(z, -1).gather(-1, y[..., None]).mean(),
        make_inputs=classes,
        not_applicable=frozenset({*ONE_INPUT, "grad_strides"}),
    ),
    Control(
        name="scaled_dot_product_attention",
        target=functional.scaled_dot_product_attention,
        reference=lambda q, k, v: torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v,
        make_inputs=normal_inputs((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4)),
        not_applicable=frozenset(
            {*NO_FUNCTION, "second_order", "second_order_in_graph", "forward_mode", "jacobian", "hessian"}
        ),
    ),
    Control(
        name="nn.Linear",
        target=nn.Linear(3, 4),
        reference=functional.linear,
        make_inputs=normal_inputs((5, 3)),
        not_applicable=frozenset(NO_FUNCTION),
    ),
]
