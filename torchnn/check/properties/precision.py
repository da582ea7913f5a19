"""Autocast."""

import torch

from torchnn.check.findings import Findings, is_property
from torchnn.check.judge import widest
from torchnn.check.nodes import functions, raw_backward
from torchnn.check.refusals import UNSAFE
from torchnn.check.subject import Subject
from torchnn.check.tensors import (
    dtype_name,
    fresh,
    gradients,
    gradients_of,
    in_double,
    outputs_of,
)

LOWER = torch.bfloat16


@is_property(
    cause="The call does not cast as torch's operations do, or its gradients come back in another dtype.",
    mend="Cast the inputs before apply as torch.nn.functional does, and run the backward with autocast off.",
    refusals=(UNSAFE,),
)
def autocast(subject: Subject, findings: Findings) -> None:
    """With the backward inside autocast and outside of it."""
    device = torch.device(subject.device).type
    for inputs in subject.cases(torch.float32):
        with torch.autocast(device, dtype=LOWER):
            theirs = outputs_of(subject.reference, inputs)
            own = fresh(inputs)
            ours = outputs_of(subject.call, own)
        for position, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
            is_wider, is_narrower = a.dtype.itemsize > b.dtype.itemsize, a.dtype.itemsize < b.dtype.itemsize
            if is_wider or (is_narrower and a.dim() == 0):  # a + b of two dtypes is wide by chance, a loss is not
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
        check_raw_dtypes(subject, findings, inputs, device)
        with torch.autocast(device, dtype=LOWER):
            given = gradients_of(plain, own, of_plain := subject.incoming(plain))
        expected = gradients(subject.call, fresh(inputs), of_plain)
        findings.compare_rounded(
            "with the backward alone inside, gradient", given, expected, [widest(g) for g in expected], LOWER, inputs
        )


def check_raw_dtypes(subject: Subject, findings: Findings, inputs: tuple[object, ...], device: str) -> None:
    """A backward alone inside autocast, after a forward outside it, returns what it returns outside."""
    for usual, node in zip(
        functions(outputs_of(subject.call, fresh(inputs))),
        functions(outputs_of(subject.call, fresh(inputs))),
        strict=True,
    ):
        outside = raw_backward(usual)
        with torch.autocast(device, dtype=LOWER):
            inside = raw_backward(node)
        for position, (a, b) in enumerate(zip(inside, outside, strict=True), 1):
            if a is not None and b is not None and a.dtype != b.dtype:
                findings.fail(
                    f"gradient {position} is {dtype_name(a.dtype)} for {dtype_name(b.dtype)} "
                    "with the backward alone inside autocast",
                    inputs,
                )
