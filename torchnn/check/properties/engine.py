"""What the engine may ask of a node: fewer gradients, a second backward, hooks, checkpoints."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from torchnn.check.findings import Findings, is_property
from torchnn.check.subject import Subject
from torchnn.check.tensors import (
    Around,
    Call,
    Inputs,
    NotApplicable,
    fresh,
    gradients,
    gradients_of,
    leaf,
    outputs_of,
    wanted,
)
from torchnn.check.variants import turned

MOST_SUBSETS = 16
SKIPPED = 0.9  # of the products that the reference skips for a frozen input


@is_property(
    cause="The backward computes gradients that nobody asks for, or gives others when some are not asked for.",
    mend="Ask ctx.needs_input_grad before each product, and return None where it is False.",
    needs=("unmutated",),
)
def frozen_inputs(subject: Subject, findings: Findings) -> None:
    for inputs in subject.cases():
        asked = [i for i, t in enumerate(inputs) if isinstance(t, Tensor) and t.requires_grad]
        if len(asked) < 2:
            raise NotApplicable("only one input is differentiable")
        incoming = subject.incoming(outputs_of(subject.call, inputs))
        full, cost = counted(subject.call, inputs, incoming)
        _, least = counted(subject.reference, inputs, incoming)
        uses = []
        for kept in kept_of(asked):
            some = tuple(leaf(t, i in kept) if isinstance(t, Tensor) else t for i, t in enumerate(inputs))
            try:
                grads, used = counted(subject.call, some, incoming)
            except Exception as error:
                findings.fail(f"with {frozen(asked, kept)} frozen it raises {type(error).__name__}: {error}", some)
                continue
            uses.append(used)
            expected = [g for i, g in zip(asked, full, strict=True) if i in kept]
            findings.compare(f"with {frozen(asked, kept)} frozen, gradient", grads, expected, some)
            _, enough = counted(subject.reference, some, incoming)
            if cost and cost - used < SKIPPED * (least - enough):  # 0 where torch counts nothing of a fused kernel
                findings.fail(
                    f"with {frozen(asked, kept)} frozen the backward still multiplies {used:,} times, "
                    f"where {max(cost - least + enough, 0):,} would do",
                    some,
                )
        if not subject.has_reference and cost and set(uses) == {cost}:
            findings.fail(f"whatever is frozen, the backward multiplies {cost:,} times", inputs)


def kept_of(asked: Sequence[int]) -> list[tuple[int, ...]]:
    """What is left when some are frozen: first one frozen alone, then all but one, then others."""
    order = sorted(range(1, len(asked)), key=lambda count: (min(count, len(asked) - count), -count))
    return [kept for count in order for kept in combinations(asked, count)][:MOST_SUBSETS]


def frozen(asked: Sequence[int], kept: Sequence[int]) -> str:
    names = [str(i + 1) for i in asked if i not in kept]
    return f"input{'s' if len(names) > 1 else ''} {', '.join(names)}"


def counted(call: Call, inputs: Inputs, incoming: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    """The gradients, and the multiplications and additions of the matrix products of the backward."""
    outputs = outputs_of(call, inputs)
    with FlopCounterMode(display=False) as counter:
        grads = gradients_of(outputs, inputs, incoming)
    return grads, counter.get_total_flops()


@is_property(
    cause="The backward uses up or changes what it keeps, so that a second one through the same graph differs.",
    mend="Change nothing that is kept on ctx, keep no counters there, and nothing at all outside of it.",
    needs=("unmutated",),
)
def backward_twice(subject: Subject, findings: Findings) -> None:
    """With `retain_graph`, adding up in `.grad`, and after another call has been made."""
    for inputs in subject.cases():
        outputs = outputs_of(subject.call, inputs)
        incoming = subject.incoming(outputs)
        first = gradients_of(outputs, inputs, incoming, retain_graph=True)
        first = [g.clone() for g in first]
        findings.compare("the second time gradient", gradients_of(outputs, inputs, incoming), first, inputs)
        outputs = outputs_of(subject.call, inputs)
        if (other := turned(subject.reference, inputs)) is not None:
            outputs_of(subject.call, other)
            given = gradients_of(outputs, inputs, incoming)
            findings.compare("after another call, gradient", given, first, inputs)
        leaves = fresh(inputs)
        for _ in range(2):
            again = outputs_of(subject.call, leaves)
            torch.autograd.backward([t for t in again if t.requires_grad], copies_for(again, incoming))
        summed = [torch.zeros_like(t) if t.grad is None else t.grad for t in wanted(leaves)]
        findings.compare("added up in .grad, gradient", summed, [2 * g for g in first], inputs)


def copies_for(outputs: Sequence[Tensor], incoming: Sequence[Tensor]) -> list[Tensor]:
    return [g.clone() for t, g in zip(outputs, incoming, strict=True) if t.requires_grad]


@is_property(
    cause="The backward gives something else while saved-tensor, tensor or module hooks look on.",
    mend="Keep tensors by ctx.save_for_backward, and read them from ctx.saved_tensors.",
    needs=("unmutated",),
)
def hooks(subject: Subject, findings: Findings) -> None:
    """Saved tensors packed into copies, as `save_on_cpu` does; hooks on tensors and on a module around the call."""
    for inputs in subject.cases():
        expected = gradients(subject.call, inputs, incoming := subject.incoming(outputs_of(subject.call, inputs)))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (t.clone(), t.device), lambda kept: kept[0]):
            outputs = outputs_of(subject.call, inputs)
        findings.compare("with saved-tensor hooks, gradient", gradients_of(outputs, inputs, incoming), expected, inputs)

        inside = Around(subject.call)
        seen: list[int] = []
        inside.register_full_backward_hook(lambda *_, seen=seen: seen.append(1))
        leaves = fresh(inputs)
        for t in wanted(leaves):
            t.register_hook(lambda g: g * 2)
        grads = gradients(inside, leaves, incoming)
        findings.compare("with hooks that double it, gradient", grads, [2 * g for g in expected], inputs)
        if not seen:
            findings.fail("a backward hook of the module around it is never called", inputs)


@is_property(
    cause="The call gives something else when it is made again in the backward, or without gradients.",
    mend="Keep tensors by ctx.save_for_backward, and no state outside ctx.",
    needs=("unmutated",),
)
def checkpointing(subject: Subject, findings: Findings) -> None:
    """`torch.utils.checkpoint`, which runs the forward a second time."""
    for inputs in subject.cases():
        incoming = subject.incoming(outputs_of(subject.call, inputs))
        expected = gradients(subject.call, inputs, incoming)
        for reentrant in (False, True):
            again = lambda *i, reentrant=reentrant: checkpoint(Around(subject.call), *i, use_reentrant=reentrant)  # noqa: E731
            if reentrant:
                leaves = fresh(inputs)
                outputs = outputs_of(again, leaves)
                torch.autograd.backward([t for t in outputs if t.requires_grad], copies_for(outputs, incoming))
                grads = [torch.zeros_like(t) if t.grad is None else t.grad for t in wanted(leaves)]
            else:
                grads = gradients(again, inputs, incoming)
            findings.compare("checkpointed, gradient", grads, expected, inputs)
            with torch.no_grad():
                plain = outputs_of(subject.call, inputs)
            findings.compare("without gradients the value", plain, outputs_of(subject.call, inputs), inputs)
