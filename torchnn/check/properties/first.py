"""What all else rests on: that the call runs, forward and backward, twice alike, and leaves others' tensors alone."""

import re
from typing import Any

import torch
from torch import Tensor

from torchnn.check.findings import Findings, is_property
from torchnn.check.nodes import Seen, edges_with_gradients, functions, raw_backward, watched
from torchnn.check.refusals import first_line
from torchnn.check.subject import Subject
from torchnn.check.tensors import (
    Inputs,
    NotApplicable,
    dtype_name,
    fresh,
    gradients,
    gradients_of,
    outputs_of,
    same,
)
from torchnn.check.variants import turned

RAW_DTYPES = torch.float64, torch.float32, torch.bfloat16
NOT_IN_PLACE = r"returned an (invalid gradient|incorrect number of gradients)"  # what the engine says of raw gradients


@is_property(
    cause="The call does not take these inputs, or its backward cannot run.",
    mend="Make inputs that it takes, or mend what raises: the traceback of calling it on them names the line.",
    needs=(),
)
def runs(subject: Subject, findings: Findings) -> None:
    """The call takes the inputs, its outputs depend on them, and its backward comes to an end."""
    for inputs in subject.cases():
        outputs = outputs_of(subject.call, inputs)
        if any(t.requires_grad for t in outputs):
            try:
                gradients_of(outputs, inputs)
            except Exception as error:
                if not re.search(NOT_IN_PLACE, str(error)):  # which raw_gradients tells
                    findings.fail(f"the backward raises {type(error).__name__}: {first_line(error)}", inputs)
        else:
            findings.fail("no output has a gradient, so that there is no backward to check", inputs)
        theirs = outputs_of(subject.reference, fresh(inputs))
        if len(outputs) != len(theirs):
            findings.fail(f"it returns {len(outputs)} tensors where the reference returns {len(theirs)}", inputs)


@is_property(
    cause="backward returns another shape or dtype than its input has, and the engine silently sums or casts it.",
    mend="Sum over every dimension that was broadcast, and cast to the dtype of the input.",
    needs=(),
)
def raw_gradients(subject: Subject, findings: Findings) -> None:
    """A gradient for each argument, of its shape and dtype, before the engine has summed or cast it."""
    met = False
    for dtype in RAW_DTYPES:
        try:
            met |= compare_raw(subject, findings, subject.cases(dtype))
        except Exception:
            if dtype == torch.float64:
                raise
            # whether it takes other dtypes is told under dtypes
    if not met:
        raise NotApplicable("there is no autograd.Function in the graph")


def compare_raw(subject: Subject, findings: Findings, cases: list[Inputs]) -> bool:
    """Whether there is a Function to compare."""
    met = False
    for inputs in cases:
        with watched(subject) as seen:
            outputs = outputs_of(subject.call, inputs)
        for node in functions(outputs):
            met = True
            compare_with_edges(node, seen, findings, inputs)
    return met


def compare_with_edges(node: Any, seen: Seen, findings: Findings, inputs: Inputs) -> None:
    raw = raw_backward(node)
    if len(raw) < (count := len(seen.masks.get(node, ()))):
        findings.fail(f"backward returns {len(raw)} of the {count} gradients", inputs, stops=True)
        return
    for position, grad, (shape, dtype) in edges_with_gradients(node, raw, seen):
        if grad.shape != shape:
            is_refused = not can_be_summed(grad.shape, shape)
            findings.fail(
                f"gradient {position} has shape {tuple(grad.shape)} for {tuple(shape)}", inputs, stops=is_refused
            )
        if grad.dtype != dtype:
            findings.fail(f"gradient {position} is {dtype_name(grad.dtype)} for {dtype_name(dtype)}", inputs)


def can_be_summed(shape: torch.Size, to: torch.Size) -> bool:
    """Whether the engine takes a gradient of one shape for a tensor of another."""
    try:
        return bool(torch.broadcast_shapes(shape, to) == shape)
    except RuntimeError:
        return False


@is_property(
    cause="Two runs on the same numbers differ: unseeded random numbers, or sums in an order left to chance.",
    mend="Draw random numbers in the forward and keep them, and use operations that torch calls deterministic.",
    needs=(),
)
def determinism(subject: Subject, findings: Findings) -> None:
    for inputs in subject.cases():
        runs = []
        for leaves in (fresh(inputs) for _ in range(3)):
            outputs = outputs_of(subject.call, leaves)
            runs.append([*(t.detach() for t in outputs), *gradients_of(outputs, leaves, subject.incoming(outputs))])
        for again in runs[1:]:
            for a, b in zip(runs[0], again, strict=True):
                if not same(a, b):
                    findings.fail("two runs differ", inputs)
                    return


@is_property(
    cause="The backward, or the forward, writes in place into a tensor that belongs to somebody else.",
    mend="Write grad_output * a for grad_output.mul_(a); ctx.mark_dirty is for inputs that are meant to change.",
    needs=(),
)
def unmutated(subject: Subject, findings: Findings) -> None:
    """Inputs, outputs, incoming gradients; and what one call gave, by the next."""
    for inputs in subject.cases():
        before = fresh(inputs)
        outputs = outputs_of(subject.call, inputs)
        incoming = subject.incoming(outputs)
        kept = [g.clone() for g in incoming]
        values = [t.detach().clone() for t in outputs]
        gradients_of(outputs, inputs, incoming, as_given=True)
        for position, (g, old) in enumerate(zip(incoming, kept, strict=True), 1):
            if g._version or not torch.equal(g, old):
                findings.fail(f"incoming gradient {position} is changed by the backward", inputs)
        for position, (t, old) in enumerate(zip(inputs, before, strict=True), 1):
            if isinstance(t, Tensor) and not same(t, old):
                findings.fail(f"input {position} is changed", inputs)
        for position, (t, old) in enumerate(zip(outputs, values, strict=True), 1):
            if not same(t, old):
                findings.fail(f"output {position} is changed by the backward", inputs)
        if not findings.failures:
            check_next_call(subject, findings, inputs)


def check_next_call(subject: Subject, findings: Findings, inputs: Inputs) -> None:
    """What one call hands out, in its forward or its backward, the next one must not write again."""
    outputs = outputs_of(subject.call, inputs)
    grads = gradients_of(outputs, inputs, incoming := subject.incoming(outputs))
    before = [t.detach().clone() for t in (*outputs, *grads)]
    other = turned(subject.reference, inputs)
    gradients(subject.call, fresh(inputs) if other is None else other, [2 * g for g in incoming])
    names = ["an output"] * len(outputs) + ["a gradient"] * len(grads)
    for name, t, old in zip(names, (*outputs, *grads), before, strict=True):
        if not same(t.detach(), old):
            findings.fail(f"{name} of one call is changed by the next call", inputs)
