"""Autocast: dtypes of outputs, and a backward inside and outside of it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchnn._torch import leaves_autocast
from torchnn.check.autograd_functions import function_nodes, raw_backward
from torchnn.check.findings import Findings, is_property
from torchnn.check.gradients import (
    Inputs,
    dtype_name,
    gradients,
    gradients_of,
    is_identical,
    new_leaves,
    outputs_of,
    to_double,
)
from torchnn.check.refusals import UNSAFE
from torchnn.check.subject import Subject
from torchnn.check.tolerances import to_widest

LOWER = torch.bfloat16


@is_property(
    cause="The call does not cast its inputs as torch's operations do, or its backward mixes the dtypes that autocast "
    "leaves.",
    fix="Cast the inputs before apply, as torch.nn.functional does, and run the backward with autocast disabled.",
    needs=("unmutated", "value", "gradient", "incoming_gradient", "dtypes"),
    refusals=(UNSAFE,),
)
def autocast(subject: Subject, findings: Findings) -> None:
    """The forward under autocast, with the backward inside and outside of it."""
    device = torch.device(subject.device).type
    for inputs in subject.cases(torch.float32):
        without = outputs_of(subject.call, inputs)
        with torch.autocast(device, dtype=LOWER):
            theirs = outputs_of(subject.reference, inputs)
            leaves = new_leaves(inputs)
            ours = outputs_of(subject.call, leaves)
        compare_dtypes(findings, inputs, ours, theirs, without)
        if findings.failures:
            return
        grad_outputs = subject.grad_outputs(ours)
        wide = to_double(inputs)
        truth = subject.expected_gradients(wide, [to_widest(g) for g in grad_outputs])
        true_values = [t.detach() for t in outputs_of(subject.reference, wide)]
        findings.compare_rounded("value", ours, theirs, true_values, LOWER, inputs, "under autocast")
        their_grads = gradients_of(theirs, inputs, grad_outputs)
        outside = gradients_of(ours, leaves, grad_outputs)
        when = "with the forward under autocast and the backward outside"
        findings.compare_rounded("gradient", outside, their_grads, truth, LOWER, inputs, when)
        with torch.autocast(device, dtype=LOWER):
            inside = gradients(subject.call, new_leaves(inputs), grad_outputs)
        when = "with forward and backward under autocast"
        findings.compare_rounded("gradient", inside, their_grads, truth, LOWER, inputs, when)
        check_backward_only(subject, findings, inputs, device)


def compare_dtypes(
    findings: Findings,
    inputs: Inputs,
    ours: Sequence[Tensor],
    theirs: Sequence[Tensor],
    without: Sequence[Tensor],
) -> None:
    """An output must not be wider than the reference's because it ignores autocast, and a loss not narrower.

    A wider output whose value differs from that `without` autocast is allowed: it may be a sum of two dtypes.
    """
    for position, (a, b, plain) in enumerate(zip(ours, theirs, without, strict=True), 1):
        is_wider, is_narrower = a.dtype.itemsize > b.dtype.itemsize, a.dtype.itemsize < b.dtype.itemsize
        ignores_autocast = is_wider and is_identical(a, plain) and not declares_its_dtype(ours)
        if ignores_autocast or (is_narrower and a.dim() == 0):
            findings.fail(
                f"under autocast, output {position} is {dtype_name(a.dtype)} but the reference's is "
                f"{dtype_name(b.dtype)}",
                inputs,
            )


def declares_its_dtype(outputs: Sequence[Tensor]) -> bool:
    """Whether a forward is declared to leave autocast, with custom_fwd(cast_inputs=...)."""
    return any(map(leaves_autocast, function_nodes(outputs)))


def check_backward_only(subject: Subject, findings: Findings, inputs: Inputs, device: str) -> None:
    """A backward inside autocast after a forward outside of it, as torch's own operations allow."""
    leaves = new_leaves(inputs)
    outputs = outputs_of(subject.call, leaves)
    note_raw_dtypes(subject, findings, inputs, device)
    with torch.autocast(device, dtype=LOWER):
        given = gradients_of(outputs, leaves, grad_outputs := subject.grad_outputs(outputs))
    expected = gradients(subject.call, new_leaves(inputs), grad_outputs)
    truth = [to_widest(g) for g in expected]
    when = "with the backward under autocast and the forward outside"
    findings.compare_rounded("gradient", given, expected, truth, LOWER, inputs, when)


def note_raw_dtypes(subject: Subject, findings: Findings, inputs: Inputs, device: str) -> None:
    """Note a gradient whose dtype autocast changes in such a backward. That happens to torch's own operations too."""
    usual = function_nodes(outputs_of(subject.call, new_leaves(inputs)))
    for one, another in zip(usual, function_nodes(outputs_of(subject.call, new_leaves(inputs))), strict=True):
        outside = raw_backward(one)
        with torch.autocast(device, dtype=LOWER):
            inside = raw_backward(another)
        for position, (a, b) in enumerate(zip(inside, outside, strict=True), 1):
            if a is not None and b is not None and a.dtype != b.dtype:
                findings.note(
                    f"if only the backward runs under autocast, gradient {position} is {dtype_name(a.dtype)} instead "
                    f"of {dtype_name(b.dtype)}; custom_bwd prevents that"
                )
