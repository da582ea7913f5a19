"""The whole network on one block of rows: forward, and backward from δ[L] (derivation.md, sections 4 and 7).

A block's activations belong to the pass alone, so the formulas of the activations are written over their arguments.
"""

from collections.abc import Sequence

from jaxtyping import Shaped
from torch import Tensor

from torchnn.ops.activation import ACTIVATIONS
from torchnn.ops.dense import Gradient
from torchnn.ops.network.loss import Labels, loss_from_logits, loss_from_output
from torchnn.ops.network.plan import Parameters, Plan, Workspace

Gradients = list[Gradient]
Block = Shaped[Tensor, "rows features"]


def hidden_forward(plan: Plan, x: Block, parameters: Parameters, workspace: Workspace | None = None) -> list[Tensor]:
    """a[1] … a[L−1]."""
    hidden: list[Tensor] = []
    for layer in range(plan.num_layers - 1):
        weight, bias = parameters[layer], parameters[plan.num_layers + layer]
        products = plan.products[layer]
        room = workspace.activation(layer, len(x)) if workspace is not None and products.takes_room else None
        x = plan.forwards[layer](products.forward(x, weight, bias, room))
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
    """a[L], the elements of the loss and scale·∂𝓛/∂z[L] if they are asked for; `output` is where to write a[L]."""
    weight, bias = parameters[plan.num_layers - 1], parameters[-1]
    products = plan.products[-1]
    if plan.cancels:
        return loss_from_logits(products.forward(below, weight, bias), labels, scale, output, needs_delta)
    z = products.forward(below, weight, bias, output)
    a = plan.forwards[-1](z if output is None or products.takes_room else output.copy_(z))
    if plan.loss is None:
        return a, None, None
    return a, *loss_from_output(a, labels, scale, plan.activations[-1], plan.loss, needs_delta)


def incoming_delta(
    plan: Plan, delta: Tensor | None, grad_loss: Tensor | None, grad_output: Tensor | None, output: Block
) -> Block:
    """δ[L] = ∂J/∂loss · ∂loss/∂z[L] + ∂J/∂a[L] ⊙ g'[L], where either may be missing."""
    of_loss = None if delta is None or grad_loss is None else delta * grad_loss
    if of_loss is not None and of_loss.dtype != output.dtype:
        of_loss = of_loss.to(output.dtype)
    if grad_output is None:
        assert of_loss is not None
        return of_loss
    of_output = ACTIVATIONS[plan.activations[-1]].backward(grad_output, output)
    return of_output if of_loss is None else of_loss + of_output


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

    With `sums` the gradients of the parameters are added to them, and that of x is written to `grad_x` alone.
    """
    grads: Gradients = [None] * len(needs) if sums is None else sums
    lowest = plan.lowest_layer(needs)
    for layer in range(plan.num_layers - 1, lowest - 1, -1):
        below, of_weight, of_bias = hidden[layer - 1] if layer else x, 1 + layer, 1 + plan.num_layers + layer
        if needs[of_weight]:
            grads[of_weight] = plan.products[layer].backward_weight(delta, below, grads[of_weight])
        if needs[of_bias]:
            total = grads[of_bias]
            grads[of_bias] = delta.sum(0) if total is None else total.add_(delta.sum(0))
        if layer > lowest:
            products, room = plan.products[layer], None
            if workspace is not None and products.takes_room:
                room = workspace.delta(layer - 1, *below.shape)
            delta = plan.backwards[layer - 1](products.backward_input(delta, parameters[layer], room), below)
    if needs[0]:
        of_x = plan.products[0].backward_input(delta, parameters[0], grad_x)
        if grad_x is None:
            grads[0] = of_x
        elif not plan.products[0].takes_room:
            grad_x.copy_(of_x)
    return grads
