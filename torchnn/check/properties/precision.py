"""Autocast."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchnn.check.findings import Findings, is_property
from torchnn.check.judge import widest
from torchnn.check.nodes import functions, raw_backward
from torchnn.check.refusals import UNSAFE
from torchnn.check.subject import Subject
from torchnn.check.tensors import (
    Inputs,
    dtype_name,
    fresh,
    gradients,
    gradients_of,
    in_double,
    outputs_of,
    same,
)

LOWER = torch.bfloat16


@is_property(
    cause="The call does not cast as torch's operations do, or its backward mixes the dtypes that autocast leaves.",
    mend="Cast the inputs before apply as torch.nn.functional does, and run the backward with autocast off.",
    needs=("unmutated", "value", "gradient", "incoming_gradient", "dtypes"),
    refusals=(UNSAFE,),
)
def autocast(subject: Subject, findings: Findings) -> None:
    """With the backward inside autocast and outside of it."""
    device = torch.device(subject.device).type
    for inputs in subject.cases(torch.float32):
        plain = outputs_of(subject.call, inputs)
        with torch.autocast(device, dtype=LOWER):
            theirs = outputs_of(subject.reference, inputs)
            own = fresh(inputs)
            ours = outputs_of(subject.call, own)
        for position, (a, b, without) in enumerate(zip(ours, theirs, plain, strict=True), 1):
            is_wider, is_narrower = a.dtype.itemsize > b.dtype.itemsize, a.dtype.itemsize < b.dtype.itemsize
            # a + b of two dtypes is wide by chance; a value that is the same without autocast, or a narrow loss, is not
            if (is_wider and same(a, without) and not says_its_dtype(ours)) or (is_narrower and a.dim() == 0):
                findings.fail(
                    f"under autocast output {position} is {dtype_name(a.dtype)}, the reference's {dtype_name(b.dtype)}",
                    inputs,
                )
        if findings.failures:
            return
        incoming = subject.incoming(ours)
        wide = in_double(inputs)
        truth = subject.expected_gradients(wide, [widest(g) for g in incoming])
        truth_values = [t.detach() for t in outputs_of(subject.reference, wide)]
        findings.compare_rounded("the value", ours, theirs, truth_values, LOWER, inputs)
        of_reference = gradients_of(theirs, inputs, incoming)
        outside = gradients_of(ours, own, incoming)
        findings.compare_rounded("with the backward outside, gradient", outside, of_reference, truth, LOWER, inputs)
        with torch.autocast(device, dtype=LOWER):
            inside = gradients(subject.call, fresh(inputs), incoming)
        findings.compare_rounded("with the backward inside, gradient", inside, of_reference, truth, LOWER, inputs)
        own = fresh(inputs)
        plain = outputs_of(subject.call, own)
        note_raw_dtypes(subject, findings, inputs, device)
        with torch.autocast(device, dtype=LOWER):
            given = gradients_of(plain, own, of_plain := subject.incoming(plain))
        expected = gradients(subject.call, fresh(inputs), of_plain)
        findings.compare_rounded(
            "with the backward alone inside, gradient", given, expected, [widest(g) for g in expected], LOWER, inputs
        )


def says_its_dtype(outputs: Sequence[Tensor]) -> bool:
    """Whether a forward is declared to leave autocast: custom_fwd(cast_inputs=...)."""
    return any(getattr(node, "_fwd_used_autocast", True) is False for node in functions(outputs))


def note_raw_dtypes(subject: Subject, findings: Findings, inputs: Inputs, device: str) -> None:
    """A backward alone inside autocast, after a forward outside it, may let autocast lower it, as torch's own do."""
    usual = functions(outputs_of(subject.call, fresh(inputs)))
    for one, another in zip(usual, functions(outputs_of(subject.call, fresh(inputs))), strict=True):
        outside = raw_backward(one)
        with torch.autocast(device, dtype=LOWER):
            inside = raw_backward(another)
        for position, (a, b) in enumerate(zip(inside, outside, strict=True), 1):
            if a is not None and b is not None and a.dtype != b.dtype:
                findings.note(
                    f"with the backward alone inside autocast, gradient {position} is {dtype_name(a.dtype)} "
                    f"for {dtype_name(b.dtype)}: custom_bwd keeps autocast out"
                )
