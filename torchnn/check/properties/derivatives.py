"""The second order, and forward mode."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchnn.check.findings import Findings, is_property
from torchnn.check.nodes import functions, is_of_custom_op, is_once_differentiable
from torchnn.check.refusals import IN_ONE, NO_FORWARD_MODE, NO_JVP, NO_SECOND_ORDER
from torchnn.check.subject import Subject
from torchnn.check.tensors import (
    STEP,
    Call,
    Inputs,
    NotApplicable,
    NotDifferentiableError,
    fresh,
    gradients,
    is_number,
    numerical_gradients,
    outputs_of,
    random_like,
    wanted,
    weighted_sum,
)

DROPPED = "the second order is silently dropped: gradients of gradients have no graph"


@is_property(
    cause="The backward has operations that cannot be differentiated, or uses something computed in the forward.",
    mend="Write it in differentiable operations of saved inputs and outputs, or declare it with once_differentiable.",
    needs=("unmutated", "value", "gradient", "incoming_gradient", "backward_twice"),
    refusals=(NO_SECOND_ORDER,),
)
def second_order(subject: Subject, findings: Findings) -> None:
    """Gradients of a penalty on gradients, by the inputs and by the incoming gradient."""
    for inputs in subject.cases():
        judge_second_order(subject, findings, inputs, "gradient of the gradients", alone)


@is_property(
    cause="The backward computes with detached or saved numbers, whose dependence on the inputs is lost.",
    mend="Compute from saved inputs and outputs themselves, never from .data, .detach() or an intermediate.",
    needs=("value", "gradient", "incoming_gradient", "second_order"),
    refusals=(NO_SECOND_ORDER,),
)
def second_order_in_graph(subject: Subject, findings: Findings) -> None:
    """Other operations before and after; and of an intermediate result, cut off from what came before."""
    for inputs in subject.cases():
        judge_second_order(subject, findings, inputs, "inside a larger graph, gradient of the gradients", within_graph)
        judge_second_order(
            subject, findings, inputs, "for a detached intermediate, gradient of the gradients", of_intermediate
        )


def judge_second_order(subject: Subject, findings: Findings, inputs: Inputs, what: str, penalty: Call) -> None:
    outputs = outputs_of(subject.call, inputs)
    if any(map(is_once_differentiable, functions(outputs))):
        raise NotApplicable("its backward declares once_differentiable")
    weights = subject.incoming(outputs)
    if subject.has_reference:
        try:
            expected = second(subject.reference, inputs, weights, penalty)
        except NotDifferentiableError:
            expected = None
    else:
        expected = numerical_gradients(lambda *i: penalty(subject.call, i, weights), inputs)
    try:
        given = second(subject.call, inputs, weights, penalty)
    except NotDifferentiableError:
        if expected is not None and any(bool(g.any()) for g in expected):
            findings.fail(DROPPED, inputs)
        return
    zeros = [torch.zeros_like(g) for g in given]
    findings.compare(
        what, given, zeros if expected is None else expected, inputs, is_numerical=not subject.has_reference
    )


def second(call: Call, inputs: Inputs, weights: Sequence[Tensor], penalty: Call) -> list[Tensor]:
    leaves = fresh(inputs)
    total = penalty(call, leaves, weights)
    if not total.requires_grad:
        raise NotDifferentiableError("the gradients have no graph")
    return list(torch.autograd.grad(total, wanted(leaves), allow_unused=True, materialize_grads=True))


def alone(call: Call, inputs: Inputs, weights: Sequence[Tensor]) -> Tensor:
    return squares(gradients(call, inputs, weights, create_graph=True))


def within_graph(call: Call, inputs: Inputs, weights: Sequence[Tensor]) -> Tensor:
    """With 0.9t + 0.1t²/(1 + t²) before, which stays between 0 and 1 where t does, and with a square after."""
    before = tuple(bent(t) if isinstance(t, Tensor) and t.requires_grad else t for t in inputs)
    value = weighted_sum(*of_differentiable(outputs_of(call, before), weights, lambda t: t + t * t))
    grads = torch.autograd.grad(value, wanted(inputs), create_graph=True, allow_unused=True, materialize_grads=True)
    return value + squares(grads)


def bent(t: Tensor) -> Tensor:
    return 0.9 * t + 0.1 * t * t / (1 + t * t)


def of_intermediate(call: Call, inputs: Inputs, weights: Sequence[Tensor]) -> Tensor:
    """By what goes into the call itself, which is no leaf, and with an incoming gradient that depends on the inputs."""
    middle = tuple(t * 1 if isinstance(t, Tensor) and t.requires_grad else t for t in inputs)
    value = weighted_sum(*of_differentiable(outputs_of(call, middle), weights, torch.square))
    asked = [t for t, given in zip(middle, inputs, strict=True) if isinstance(given, Tensor) and given.requires_grad]
    grads = torch.autograd.grad(value, asked, create_graph=True, allow_unused=True, materialize_grads=True)
    return squares(grads)


def of_differentiable(outputs: Sequence[Tensor], weights: Sequence[Tensor], change: Call) -> Any:
    """The outputs with a graph, changed, and their weights."""
    pairs = [(change(t), w) for t, w in zip(outputs, weights, strict=True) if t.requires_grad]
    return zip(*pairs, strict=True)


def squares(grads: Sequence[Tensor]) -> Tensor:
    return torch.stack([(g * g.conj()).sum().real if g.is_complex() else (g * g).sum() for g in grads]).sum()


@is_property(
    cause="The rule of forward mode is wrong, or leaves out a term.",
    mend="jvp gives Σ ∂output/∂input · tangent over all inputs; a tangent may be None.",
    needs=("value",),
    refusals=(IN_ONE, NO_JVP, NO_FORWARD_MODE),
)
def forward_mode(subject: Subject, findings: Findings) -> None:
    """A tangent for each input alone, and for all together."""
    for inputs in subject.cases():
        if any(map(is_of_custom_op, functions(outputs_of(subject.call, inputs)))):
            raise NotApplicable("torch gives a custom_op no forward mode: its tangent is zero, without a word")
        positions = [i for i, t in enumerate(inputs) if is_number(t) and t.requires_grad]
        generator = subject.generator()
        tangents = {i: random_like(inputs[i], generator) for i in positions}
        for chosen in [*([i] for i in positions), positions] if len(positions) > 1 else [positions]:
            given = pushed(subject.call, inputs, chosen, tangents)
            if subject.has_reference:
                expected = pushed(subject.reference, inputs, chosen, tangents)
            else:
                expected = numerical_push(subject.call, inputs, chosen, tangents)
            which = "of all inputs" if len(chosen) > 1 else f"of input {chosen[0] + 1}"
            findings.compare(
                f"for a tangent {which} the result", given, expected, inputs, is_numerical=not subject.has_reference
            )


def pushed(call: Call, inputs: Inputs, chosen: Sequence[int], tangents: dict[int, Tensor]) -> list[Tensor]:
    def of_chosen(*values: Tensor) -> tuple[Tensor, ...]:
        filled = dict(zip(chosen, values, strict=True))
        return tuple(outputs_of(call, tuple(filled.get(i, t) for i, t in enumerate(detached(inputs)))))

    primals = tuple(inputs[i].detach() for i in chosen)
    return list(torch.func.jvp(of_chosen, primals, tuple(tangents[i] for i in chosen))[1])


def numerical_push(call: Call, inputs: Inputs, chosen: Sequence[int], tangents: dict[int, Tensor]) -> list[Tensor]:
    ends = []
    for sign in (1, -1):
        moved = (t + sign * STEP * tangents[i] if i in chosen else t for i, t in enumerate(detached(inputs)))
        ends.append([t.detach() for t in outputs_of(call, tuple(moved))])
    return [(after - before) / (2 * STEP) for after, before in zip(*ends, strict=True)]


def detached(inputs: Inputs) -> Inputs:
    return tuple(t.detach() if isinstance(t, Tensor) else t for t in inputs)
