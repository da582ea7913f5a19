"""What autograd may ask of a Function: only some of the gradients, a second backward, hooks, checkpoints."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from torchnn.check.findings import Findings, is_property
from torchnn.check.gradients import (
    Call,
    CallModule,
    Inputs,
    NotApplicable,
    gradients,
    gradients_of,
    leaf,
    new_leaves,
    outputs_of,
    positions_requiring_grad,
    requiring_grad,
)
from torchnn.check.input_variants import reversed_inputs
from torchnn.check.subject import Subject

MOST_SUBSETS = 16
PART_TO_SAVE = 0.9  # of the multiplications that the reference saves for a frozen input


@is_property(
    cause="The backward computes gradients that are not needed, or the others change when some are not needed.",
    fix="Check ctx.needs_input_grad before each product, and return None where it is False.",
    needs=("unmutated",),
)
def frozen_inputs(subject: Subject, findings: Findings) -> None:
    """If some inputs are frozen, the other gradients stay the same, and the frozen ones need no products."""
    for inputs in subject.cases():
        asked = positions_requiring_grad(inputs)
        if len(asked) < 2:
            raise NotApplicable("only one input is differentiable")
        grad_outputs = subject.grad_outputs(outputs_of(subject.call, inputs))
        full, cost = count_operations(subject.call, inputs, grad_outputs)
        _, cost_of_reference = count_operations(subject.reference, inputs, grad_outputs)
        costs = []
        for kept in subsets(asked):
            frozen = describe_frozen(asked, kept)
            some = tuple(leaf(t, i in kept) if isinstance(t, Tensor) else t for i, t in enumerate(inputs))
            try:
                grads, cost_now = count_operations(subject.call, some, grad_outputs)
            except Exception as error:
                findings.fail(f"with {frozen} frozen it raises {type(error).__name__}: {error}", some)
                continue
            costs.append(cost_now)
            expected = [g for i, g in zip(asked, full, strict=True) if i in kept]
            findings.compare("gradient", grads, expected, some, f"with {frozen} frozen")
            _, reference_now = count_operations(subject.reference, some, grad_outputs)
            saved_by_reference = cost_of_reference - reference_now
            if cost and cost - cost_now < PART_TO_SAVE * saved_by_reference:  # cost is 0 if torch cannot count a kernel
                findings.fail(
                    f"with {frozen} frozen the backward still does {cost_now:,} multiplications and additions, "
                    f"but {max(cost - saved_by_reference, 0):,} are enough",
                    some,
                )
        if not subject.has_reference and cost and set(costs) == {cost}:
            findings.fail(
                f"the backward does {cost:,} multiplications and additions, whichever inputs are frozen", inputs
            )


def subsets(asked: Sequence[int]) -> list[tuple[int, ...]]:
    """Which inputs are not frozen: first all but one, then one only, then others."""
    order = sorted(range(1, len(asked)), key=lambda count: (min(count, len(asked) - count), -count))
    return [kept for count in order for kept in combinations(asked, count)][:MOST_SUBSETS]


def describe_frozen(asked: Sequence[int], kept: Sequence[int]) -> str:
    names = [str(i + 1) for i in asked if i not in kept]
    return f"input{'s' if len(names) > 1 else ''} {', '.join(names)}"


def count_operations(call: Call, inputs: Inputs, grad_outputs: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    """The gradients, and the number of multiplications and additions in the matrix products of the backward."""
    outputs = outputs_of(call, inputs)
    with FlopCounterMode(display=False) as counter:
        grads = gradients_of(outputs, inputs, grad_outputs)
    return grads, counter.get_total_flops()


@is_property(
    cause="The backward deletes or changes what the forward saved, so a second one through the same graph differs.",
    fix="Do not change or delete anything on ctx in the backward, and keep no state outside of it.",
    needs=("unmutated",),
)
def backward_twice(subject: Subject, findings: Findings) -> None:
    """With `retain_graph`, after another call of the function, and adding up in `.grad`."""
    for inputs in subject.cases():
        outputs = outputs_of(subject.call, inputs)
        grad_outputs = subject.grad_outputs(outputs)
        first = gradients_of(outputs, inputs, grad_outputs, retain_graph=True)
        first = [g.clone() for g in first]
        findings.compare("gradient", gradients_of(outputs, inputs, grad_outputs), first, inputs, "the second time")
        outputs = outputs_of(subject.call, inputs)
        if (other := reversed_inputs(subject.reference, inputs)) is not None:
            outputs_of(subject.call, other)
            given = gradients_of(outputs, inputs, grad_outputs)
            findings.compare("gradient", given, first, inputs, "after another call of the function")
        leaves = new_leaves(inputs)
        for _ in range(2):
            accumulate(outputs_of(subject.call, leaves), grad_outputs)
        findings.compare("gradient", accumulated(leaves), [2 * g for g in first], inputs, "added up in .grad")


def accumulate(outputs: Sequence[Tensor], grad_outputs: Sequence[Tensor]) -> None:
    """Run the backward with copies of the incoming gradients, which adds to `.grad`."""
    copies = [g.clone() for t, g in zip(outputs, grad_outputs, strict=True) if t.requires_grad]
    torch.autograd.backward([t for t in outputs if t.requires_grad], copies)


def accumulated(leaves: Inputs) -> list[Tensor]:
    """The `.grad` of each input that requires a gradient, zero where there is none."""
    return [torch.zeros_like(t) if t.grad is None else t.grad for t in requiring_grad(leaves)]


@is_property(
    cause="The backward gives another result when saved-tensor, tensor or module hooks are registered.",
    fix="Save tensors with ctx.save_for_backward, and read them from ctx.saved_tensors.",
    needs=("unmutated",),
)
def hooks(subject: Subject, findings: Findings) -> None:
    """Hooks that copy saved tensors, as `save_on_cpu` does; hooks on tensors; a hook on a module around the call."""
    for inputs in subject.cases():
        grad_outputs = subject.grad_outputs(outputs_of(subject.call, inputs))
        expected = gradients(subject.call, inputs, grad_outputs)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (t.clone(), t.device), lambda kept: kept[0]):
            outputs = outputs_of(subject.call, inputs)
        grads = gradients_of(outputs, inputs, grad_outputs)
        findings.compare("gradient", grads, expected, inputs, "with saved-tensor hooks")

        module = CallModule(subject.call)
        calls: list[int] = []
        module.register_full_backward_hook(lambda *_, calls=calls: calls.append(1))
        leaves = new_leaves(inputs)
        for t in requiring_grad(leaves):
            t.register_hook(lambda g: g * 2)
        grads = gradients(module, leaves, grad_outputs)
        findings.compare("gradient", grads, [2 * g for g in expected], inputs, "with tensor hooks that double it")
        if not calls:
            findings.fail("a backward hook on a module around the call is never called", inputs)


@is_property(
    cause="The call gives another result when the backward repeats it, or without gradients.",
    fix="Save tensors with ctx.save_for_backward, keep no state outside ctx, and use the same formula under no_grad.",
    needs=("unmutated",),
)
def checkpointing(subject: Subject, findings: Findings) -> None:
    """`torch.utils.checkpoint`, which runs the forward a second time."""
    for inputs in subject.cases():
        grad_outputs = subject.grad_outputs(outputs_of(subject.call, inputs))
        expected = gradients(subject.call, inputs, grad_outputs)
        for reentrant in (False, True):
            call = lambda *i, reentrant=reentrant: checkpoint(CallModule(subject.call), *i, use_reentrant=reentrant)  # noqa: E731
            if reentrant:  # which works with .backward() only
                leaves = new_leaves(inputs)
                accumulate(outputs_of(call, leaves), grad_outputs)
                grads = accumulated(leaves)
            else:
                grads = gradients(call, inputs, grad_outputs)
            findings.compare("gradient", grads, expected, inputs, "with checkpointing")
            with torch.no_grad():
                plain = outputs_of(subject.call, inputs)
            findings.compare("value", plain, outputs_of(subject.call, inputs), inputs, "under no_grad")
