"""Second order (gradients of gradients), and forward mode."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchnn.check.autograd_functions import function_nodes, is_custom_op, is_once_differentiable
from torchnn.check.findings import Findings, is_property
from torchnn.check.gradients import (
    STEP,
    Call,
    Inputs,
    NotApplicable,
    NotDifferentiableError,
    detached,
    gradients,
    is_floating,
    new_leaves,
    numerical_gradients,
    outputs_of,
    random_like,
    requiring_grad,
    weighted_outputs,
)
from torchnn.check.refusals import COMBINED_FORWARD, NO_FORWARD_MODE, NO_JVP, NO_SECOND_ORDER
from torchnn.check.subject import Subject

NO_GRAPH = "the second order is lost without an error: the gradients have no graph"


@is_property(
    cause="The backward uses operations that cannot be differentiated, or a result that the forward computed.",
    fix="Write it in differentiable operations on saved inputs and outputs, or declare it with once_differentiable.",
    needs=("unmutated", "value", "gradient", "incoming_gradient", "backward_twice"),
    refusals=(NO_SECOND_ORDER,),
)
def second_order(subject: Subject, findings: Findings) -> None:
    """Gradients of the sum of squared gradients, with respect to the inputs."""
    for inputs in subject.cases():
        compare_second_order(subject, findings, inputs, squared_gradients)


@is_property(
    cause="The backward computes with detached tensors or saved results, whose dependence on the inputs is lost.",
    fix="Compute from the saved inputs and outputs themselves, never from .data, .detach() or an intermediate result.",
    needs=("value", "gradient", "incoming_gradient", "second_order"),
    refusals=(NO_SECOND_ORDER,),
)
def second_order_in_graph(subject: Subject, findings: Findings) -> None:
    """The same with operations before and after the call, and with respect to inputs that are not leaves."""
    for inputs in subject.cases():
        compare_second_order(subject, findings, inputs, within_graph, "inside a larger graph")
        compare_second_order(subject, findings, inputs, at_intermediate, "for inputs that are not leaves")


def compare_second_order(subject: Subject, findings: Findings, inputs: Inputs, penalty: Call, when: str = "") -> None:
    """Compare gradients of `penalty(call, inputs, weights)`, a scalar that depends on gradients of the call."""
    outputs = outputs_of(subject.call, inputs)
    if any(map(is_once_differentiable, function_nodes(outputs))):
        raise NotApplicable("its backward declares once_differentiable")
    weights = subject.grad_outputs(outputs)
    if subject.has_reference:
        try:
            expected = gradients_of_penalty(subject.reference, inputs, weights, penalty)
        except NotDifferentiableError:
            expected = None
    else:
        expected = numerical_gradients(lambda *i: penalty(subject.call, i, weights), inputs)
    try:
        given = gradients_of_penalty(subject.call, inputs, weights, penalty)
    except NotDifferentiableError:
        if expected is not None and any(bool(g.any()) for g in expected):
            findings.fail(NO_GRAPH, inputs)
        return
    if expected is None:
        expected = [torch.zeros_like(g) for g in given]
    what = "gradient of the gradients"
    findings.compare(what, given, expected, inputs, when, is_numerical=not subject.has_reference)


def gradients_of_penalty(call: Call, inputs: Inputs, weights: Sequence[Tensor], penalty: Call) -> list[Tensor]:
    leaves = new_leaves(inputs)
    total = penalty(call, leaves, weights)
    if not total.requires_grad:
        raise NotDifferentiableError("the gradients have no graph")
    return list(torch.autograd.grad(total, requiring_grad(leaves), allow_unused=True, materialize_grads=True))


def squared_gradients(call: Call, inputs: Inputs, weights: Sequence[Tensor]) -> Tensor:
    """The sum of the squared gradients."""
    return squares(gradients(call, inputs, weights, create_graph=True))


def within_graph(call: Call, inputs: Inputs, weights: Sequence[Tensor]) -> Tensor:
    """As `squared_gradients`, with an operation on each input before and on each output after the call.

    Before it is 0.9t + 0.1t²/(1 + t²), which stays between 0 and 1 where t does; after it t + t².
    """
    before = tuple(bend(t) if isinstance(t, Tensor) and t.requires_grad else t for t in inputs)
    value = weighted_outputs(*change_differentiable(outputs_of(call, before), weights, lambda t: t + t * t))
    grads = torch.autograd.grad(
        value, requiring_grad(inputs), create_graph=True, allow_unused=True, materialize_grads=True
    )
    return value + squares(grads)


def bend(t: Tensor) -> Tensor:
    return 0.9 * t + 0.1 * t * t / (1 + t * t)


def at_intermediate(call: Call, inputs: Inputs, weights: Sequence[Tensor]) -> Tensor:
    """As `squared_gradients`, of inputs that are not leaves, and with incoming gradients that depend on the inputs."""
    middle = tuple(t * 1 if isinstance(t, Tensor) and t.requires_grad else t for t in inputs)
    value = weighted_outputs(*change_differentiable(outputs_of(call, middle), weights, torch.square))
    asked = [t for t, given in zip(middle, inputs, strict=True) if isinstance(given, Tensor) and given.requires_grad]
    grads = torch.autograd.grad(value, asked, create_graph=True, allow_unused=True, materialize_grads=True)
    return squares(grads)


def change_differentiable(outputs: Sequence[Tensor], weights: Sequence[Tensor], change: Call) -> Any:
    """Apply `change` to the outputs that have a graph; return the results and the weights of these outputs."""
    pairs = [(change(t), w) for t, w in zip(outputs, weights, strict=True) if t.requires_grad]
    return zip(*pairs, strict=True)


def squares(grads: Sequence[Tensor]) -> Tensor:
    return torch.stack([(g * g.conj()).sum().real if g.is_complex() else (g * g).sum() for g in grads]).sum()


@is_property(
    cause="The jvp is wrong, or leaves out a term.",
    fix="jvp returns Σ ∂output/∂input · tangent over all inputs; the tangent of an input may be None.",
    needs=("value",),
    refusals=(COMBINED_FORWARD, NO_JVP, NO_FORWARD_MODE),
)
def forward_mode(subject: Subject, findings: Findings) -> None:
    """A tangent for one input at a time, and for all together."""
    for inputs in subject.cases():
        if any(map(is_custom_op, function_nodes(outputs_of(subject.call, inputs)))):
            raise NotApplicable("torch has no forward mode for a custom_op: the tangent is zero, without an error")
        positions = [i for i, t in enumerate(inputs) if is_floating(t) and t.requires_grad]
        generator = subject.generator()
        tangents = {i: random_like(inputs[i], generator) for i in positions}
        for chosen in [*([i] for i in positions), positions] if len(positions) > 1 else [positions]:
            given = forward_derivative(subject.call, inputs, chosen, tangents)
            if subject.has_reference:
                expected = forward_derivative(subject.reference, inputs, chosen, tangents)
            else:
                expected = numerical_derivative(subject.call, inputs, chosen, tangents)
            when = f"for a tangent of {'all inputs' if len(chosen) > 1 else f'input {chosen[0] + 1}'}"
            findings.compare("result", given, expected, inputs, when, is_numerical=not subject.has_reference)


def forward_derivative(call: Call, inputs: Inputs, chosen: Sequence[int], tangents: dict[int, Tensor]) -> list[Tensor]:
    """The derivative of the outputs along the tangents, by forward mode."""

    def of_chosen(*values: Tensor) -> tuple[Tensor, ...]:
        filled = dict(zip(chosen, values, strict=True))
        return tuple(outputs_of(call, tuple(filled.get(i, t) for i, t in enumerate(detached(inputs)))))

    primals = tuple(inputs[i].detach() for i in chosen)
    return list(torch.func.jvp(of_chosen, primals, tuple(tangents[i] for i in chosen))[1])


def numerical_derivative(
    call: Call, inputs: Inputs, chosen: Sequence[int], tangents: dict[int, Tensor]
) -> list[Tensor]:
    """The derivative of the outputs along the tangents, by central differences."""
    ends = []
    for sign in (1, -1):
        moved = (t + sign * STEP * tangents[i] if i in chosen else t for i, t in enumerate(detached(inputs)))
        ends.append([t.detach() for t in outputs_of(call, tuple(moved))])
    return [(after - before) / (2 * STEP) for after, before in zip(*ends, strict=True)]
