"""The whole network at once, in row blocks (derivation, section 7).

J is a sum over rows, so its gradient is a sum over blocks of rows. Only the activations of one block exist at a time:
they stay in the cache, and no tensor of the size rows × width is ever allocated. There are three cases:

- All rows fit into one block: its activations are saved for the backward.
- More rows and a scalar loss: each block goes forward and backward at once. The backward of the Function multiplies the
  summed gradients by the incoming gradient.
- More rows otherwise: the incoming gradient differs from row to row, so the backward computes each block's forward
  again.
"""

import functools
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from torchnn._torch import is_legacy_batched, transforms_are_active
from torchnn.ops._support import autocast_off
from torchnn.ops.activation import ACTIVATIONS
from torchnn.ops.dense import dense_backward, dense_forward
from torchnn.ops.dense_activation import dense_activation_forward
from torchnn.ops.loss import at_least_float32, reduce_backward
from torchnn.ops.network.block import (
    Gradients,
    block_backward,
    hidden_forward,
    incoming_delta,
    last_forward,
)
from torchnn.ops.network.loss import Labels, delta_of_loss
from torchnn.ops.network.plan import Parameters, Plan, new_empty, workspace


def keeps_sums(plan: Plan, x: Tensor) -> bool:
    """Return whether the forward of many blocks computes the gradients too, and saves their sums.

    Not in float16, where small gradients would underflow before a `GradScaler` has scaled them.
    """
    return plan.loss is not None and plan.reduction != "none" and plan.needs_any and x.dtype != torch.float16


# --- many blocks ------------------------------------------------------------------------------------------------------


def blocks_forward(
    plan: Plan, x: Tensor, labels: Labels, parameters: Parameters
) -> tuple[Tensor | None, Tensor, Gradients]:
    """Return the loss, the output, and the sums of the gradients of the loss if the forward can compute them."""
    output, losses = new_empty(x, x.shape[0], parameters[plan.num_layers - 1].shape[0]), []
    sums = empty_sums(plan, x, parameters, plan.needs) if keeps_sums(plan, x) else []
    scale, sums_now = plan.scale(output.numel()), bool(sums)
    blocks = in_blocks(plan, x, *labels, output, sums[0] if sums_now else None)
    with workspace(plan, parameters, with_deltas=sums_now) as buffers:
        for x_block, y, w, p, out, grad_x in zip(*blocks, strict=False):
            hidden = hidden_forward(plan, x_block, parameters, buffers)
            below = hidden[-1] if hidden else x_block
            _, loss, delta = last_forward(plan, below, parameters, (y, w, p), scale, out, sums_now)
            if loss is not None:
                losses.append(loss if plan.reduction == "none" else loss.sum())
            if delta is not None:
                block_backward(plan, delta.to(x.dtype), x_block, hidden, parameters, plan.needs, sums, buffers, grad_x)
    if not losses:
        return None, output, sums
    return torch.cat(losses) if plan.reduction == "none" else torch.stack(losses).sum().mul_(scale), output, sums


def blocks_backward(
    plan: Plan,
    x: Tensor,
    labels: Labels,
    parameters: Parameters,
    output: Tensor,
    grad_loss: Tensor | None,
    grad_output: Tensor | None,
    needs: Sequence[bool],
) -> Gradients:
    """Return the gradients from each block's own incoming gradient, after computing its forward again."""
    sums, scale = empty_sums(plan, x, parameters, needs), plan.scale(output.numel())
    grad_loss = None if grad_loss is None else grad_loss.expand(output.shape)
    blocks = in_blocks(plan, x, *labels, output, grad_loss, grad_output, sums[0])
    with workspace(plan, parameters, with_deltas=True) as buffers:
        for x_block, y, w, p, out, loss_block, output_block, grad_x in zip(*blocks, strict=False):
            hidden = hidden_forward(plan, x_block, parameters, buffers)
            delta = None
            if loss_block is not None:
                below = hidden[-1] if hidden else x_block
                _, _, delta = last_forward(plan, below, parameters, (y, w, p), scale)
            delta = incoming_delta(plan, delta, loss_block, output_block, out)
            block_backward(plan, delta, x_block, hidden, parameters, needs, sums, buffers, grad_x)
    return sums


def in_blocks(plan: Plan, *tensors: Tensor | None) -> Iterator[Any]:
    """Yield the blocks of rows of each tensor; None for each block if there is no tensor."""
    return (repeat(None) if t is None else t.split(plan.block_rows) for t in tensors)


def empty_sums(plan: Plan, x: Tensor, parameters: Parameters, needs: Sequence[bool]) -> Gradients:
    """Return an empty ∂J/∂x, and zeros to which the gradients of the blocks are added.

    The sums are at least float32. Those of the biases, which are few numbers, are float64 if the device has it.
    """
    wide = at_least_float32(x.dtype)
    widest = wide if x.device.type == "mps" else torch.float64
    weights = parameters[: plan.num_layers]
    zeros = functools.partial(torch.zeros, device=x.device)
    weight_sums = [zeros(w.shape, dtype=wide) if n else None for w, n in zip(weights, needs[1:], strict=False)]
    needs_bias = needs[1 + plan.num_layers :]
    bias_sums = [zeros(w.shape[:1], dtype=widest) if n else None for w, n in zip(weights, needs_bias, strict=True)]
    return [new_empty(x, *x.shape) if needs[0] else None, *weight_sums, *bias_sums]


# --- the same gradients in operations that can be differentiated and batched ------------------------------------------


def network_backward(
    plan: Plan,
    x: Tensor,
    labels: Labels,
    parameters: Parameters,
    grad_loss: Tensor | None,
    grad_output: Tensor | None,
    needs: Sequence[bool],
) -> Gradients:
    """Return the gradients by the formulas of the layers, for all rows at once, in differentiable operations."""
    weights, biases = parameters[: plan.num_layers], parameters[plan.num_layers :]
    a = [x]
    for weight, bias, activation in zip(weights, biases, plan.activations, strict=True):
        a.append(dense_activation_forward(a[-1], weight, bias, activation))
    deltas = []
    if grad_loss is not None and plan.loss is not None:
        z = dense_forward(a[-2], weights[-1], biases[-1])
        delta = delta_of_loss(z, labels, plan.activations[-1], plan.loss)
        deltas.append((delta * reduce_backward(grad_loss, z.numel(), plan.reduction)).to(x.dtype))
    if grad_output is not None:
        deltas.append(ACTIVATIONS[plan.activations[-1]].backward(grad_output, a[-1]))
    delta = sum(deltas[1:], deltas[0])
    grads: Gradients = [None] * len(needs)
    lowest = plan.lowest_layer(needs)
    for layer in range(plan.num_layers - 1, lowest - 1, -1):
        weight_index, bias_index, bias = 1 + layer, 1 + plan.num_layers + layer, biases[layer]
        needed = layer > lowest or needs[0], needs[weight_index], needs[bias_index]
        bias_shape = None if bias is None else bias.shape
        grads_of_layer = dense_backward(delta, a[layer], weights[layer], bias_shape, needed)
        below, grads[weight_index], grads[bias_index] = grads_of_layer
        if layer > lowest and below is not None:
            delta = ACTIVATIONS[plan.activations[layer - 1]].backward(below, a[layer])
        else:
            grads[0] = below
    return grads


class NetworkFunction(Function):
    """A whole network and its loss.

    Forward:   z[l] = a[l−1] W[l]ᵀ + b[l],  a[l] = g[l](z[l]) for l = 1 … L;  J = reduction of 𝓛(a[L], y)
    Backward:  δ[L] = ∂J/∂z[L] (a[L] − y where σ' cancels);  ∂J/∂W[l] = δ[l]ᵀ a[l−1],  ∂J/∂b[l] = Σ_rows δ[l],
               δ[l−1] = (δ[l] W[l]) ⊙ g'[l−1](z[l−1]),  ∂J/∂x = δ[1] W[1]
    Saved:     x, y, w, p, W, b, a[L]; for one block also a[1] … a[L−1] and δ[L], for many the summed gradients. These
               are outputs of the Function too, marked as not differentiable
    Shapes:    x (rows, n[0]), y, w, p and a[L] (rows, n[L]); J () or (rows, n[L])
    Raises:    nothing, because `functional` passes only arguments that fit together
    Reference: derivation, section 4; derivation, section 7
    """

    @staticmethod
    def forward(
        plan: Plan, x: Tensor, target: Tensor | None, weight: Tensor | None, pos_weight: Tensor | None, *parameters: Any
    ) -> tuple[Tensor | None, ...]:
        labels = target, weight, pos_weight
        if x.shape[0] > plan.block_rows:
            loss, output, kept = blocks_forward(plan, x, labels, parameters)
        else:
            scale = plan.scale(x.shape[0] * parameters[plan.num_layers - 1].shape[0])
            hidden = hidden_forward(plan, x, parameters)
            below = hidden[-1] if hidden else x
            output, loss, delta = last_forward(plan, below, parameters, labels, scale, needs_delta=plan.needs_any)
            kept = [*hidden, delta] if plan.needs_any else []
            if loss is not None and plan.reduction != "none":
                loss = loss.sum().mul_(scale)
        if loss is not None and target is not None and loss.dtype != target.dtype:
            loss = loss.to(target.dtype)
        return loss, output, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor | None, ...]) -> None:
        ctx.plan = inputs[0]
        ctx.mark_non_differentiable(*[t for t in outputs[2:] if t is not None])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:], *outputs[1:])

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, grad_output: Tensor | None, *_: None) -> Any:
        plan, saved, needs = ctx.plan, ctx.saved_tensors, ctx.needs_input_grad
        if grad_loss is None and grad_output is None:
            return (None,) * len(needs)
        end_of_parameters = 4 + 2 * plan.num_layers
        x, labels, parameters, kept = saved[0], saved[1:4], saved[4:end_of_parameters], saved[end_of_parameters:]
        needs, incoming = needs[1:2] + needs[5:], (grad_loss, grad_output)
        with autocast_off(x):
            if torch.is_grad_enabled() or is_transformed(*incoming):
                grads = network_backward(plan, x, labels, parameters, *incoming, needs)
            elif x.shape[0] <= plan.block_rows:
                delta = incoming_delta(plan, kept[-1], *incoming, kept[0])
                grads = block_backward(plan, delta, x, kept[1:-1], parameters, needs)
            elif keeps_sums(plan, x) and grad_loss is not None and grad_output is None:
                grads = [None if total is None else total * grad_loss for total in kept[1:]]
            else:
                grads = blocks_backward(plan, x, labels, parameters, kept[0], *incoming, needs)
        for i, t in enumerate(parameters, 1):
            grad = grads[i]
            if grad is not None and (grad.dtype != t.dtype or grad.shape != t.shape):
                grads[i] = in_form_of(t, grad)
        return None, grads[0], None, None, None, *grads[1:]


def is_transformed(*incoming: Tensor | None) -> bool:
    """Return whether vmap or a batch of gradients goes through the backward, which must not write to buffers then."""
    if transforms_are_active():
        return True
    return any(g is not None and is_legacy_batched(g) for g in incoming)


def in_form_of(t: Tensor, grad: Tensor) -> Tensor:
    """Return a gradient in the shape and dtype of its input; a number that all neurons share gets their sum."""
    return (grad if grad.shape == t.shape else grad.sum().reshape(t.shape)).to(t.dtype)
