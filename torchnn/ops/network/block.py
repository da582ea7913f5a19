"""The whole network on one block of rows: forward, and backward from δ[L].

References: derivation, section 4; derivation, section 7.

Only the pass uses a block's activations, so the activations write their results over their arguments.
"""

from collections.abc import Sequence

from torch import Tensor

from torchnn.ops._support import OptionalTensor
from torchnn.ops.activation import ACTIVATIONS
from torchnn.ops.network.loss import Labels, loss_from_logits, loss_from_output
from torchnn.ops.network.plan import Parameters, Plan, Workspace
from torchnn.ops.network.products import Block

Gradients = list[OptionalTensor]


def hidden_forward(plan: Plan, x: Block, parameters: Parameters, workspace: Workspace | None = None) -> list[Tensor]:
    """a[1] … a[L−1]."""
    hidden: list[Tensor] = []
    for layer in range(plan.num_layers - 1):
        weight, bias = parameters[layer], parameters[plan.num_layers + layer]
        products = plan.products[layer]
        buffer = workspace.activation(layer, len(x)) if workspace is not None and products.writes_to_out else None
        x = plan.forwards[layer](products.forward(x, weight, bias, buffer))
        hidden.append(x)
    return hidden


def last_forward(
    plan: Plan,
    below: Block,
    parameters: Parameters,
    labels: Labels,
    scale: float,
    output: Tensor | None = None,
    needs_delta: bool = True,
) -> tuple[Block, Tensor | None, Tensor | None]:
    """Return a[L], the elements of the loss, and scale·∂𝓛/∂z[L] if needed; a[L] is written into `output` if given."""
    weight, bias = parameters[plan.num_layers - 1], parameters[-1]
    products = plan.products[-1]
    if plan.cancels:
        return loss_from_logits(products.forward(below, weight, bias), labels, scale, output, needs_delta)
    z = products.forward(below, weight, bias, output)
    a = plan.forwards[-1](z if output is None or products.writes_to_out else output.copy_(z))
    if plan.loss is None:
        return a, None, None
    return a, *loss_from_output(a, labels, scale, plan.activations[-1], plan.loss, needs_delta)


def incoming_delta(
    plan: Plan, delta: Tensor | None, grad_loss: Tensor | None, grad_output: Tensor | None, output: Block
) -> Block:
    """δ[L] = ∂J/∂loss · ∂loss/∂z[L] + ∂J/∂a[L] ⊙ g'[L], where either term may be missing."""
    loss_delta = None if delta is None or grad_loss is None else delta * grad_loss
    if loss_delta is not None and loss_delta.dtype != output.dtype:
        loss_delta = loss_delta.to(output.dtype)
    if grad_output is None:
        assert loss_delta is not None
        return loss_delta
    output_delta = ACTIVATIONS[plan.activations[-1]].backward(grad_output, output)
    return output_delta if loss_delta is None else loss_delta + output_delta


def block_backward(
    plan: Plan,
    delta: Block,
    x: Block,
    hidden: Sequence[Tensor],
    parameters: Parameters,
    needs: Sequence[bool],
    sums: Gradients | None = None,
    workspace: Workspace | None = None,
    grad_x: Tensor | None = None,
) -> Gradients:
    """From δ[L]: ∂J/∂W[l] = δ[l]ᵀ a[l−1], ∂J/∂b[l] = Σ_rows δ[l], δ[l−1] = (δ[l] W[l]) ⊙ g'[l−1], ∂J/∂x = δ[1] W[1].

    With `sums`, the gradients of the parameters are added to them, and the gradient of x is written to `grad_x` only.
    """
    grads: Gradients = [None] * len(needs) if sums is None else sums
    lowest = plan.lowest_layer(needs)
    for layer in range(plan.num_layers - 1, lowest - 1, -1):
        below, weight_index, bias_index = hidden[layer - 1] if layer else x, 1 + layer, 1 + plan.num_layers + layer
        if needs[weight_index]:
            grads[weight_index] = plan.products[layer].backward_weight(delta, below, grads[weight_index])
        if needs[bias_index]:
            total = grads[bias_index]
            grads[bias_index] = delta.sum(0) if total is None else total.add_(delta.sum(0))
        if layer > lowest:
            products, buffer = plan.products[layer], None
            if workspace is not None and products.writes_to_out:
                buffer = workspace.delta(layer - 1, *below.shape)
            delta = plan.backwards[layer - 1](products.backward_input(delta, parameters[layer], buffer), below)
    if needs[0]:
        delta_below = plan.products[0].backward_input(delta, parameters[0], grad_x)
        if grad_x is None:
            grads[0] = delta_below
        elif not plan.products[0].writes_to_out:
            grad_x.copy_(delta_below)
    return grads
