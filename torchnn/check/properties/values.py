"""Value and gradients, against the reference: the incoming gradient, precisions, and numbers of rows."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from torchnn.check.findings import Findings, is_property
from torchnn.check.judge import widest
from torchnn.check.refusals import first_line
from torchnn.check.subject import Subject, WrongUseError
from torchnn.check.tensors import (
    Inputs,
    NotApplicable,
    dtype_name,
    fresh,
    gradients,
    gradients_of,
    in_double,
    is_number,
    outputs_of,
    random_like,
    tensors_of,
)
from torchnn.check.variants import other_shapes, turned

# What torch says of an operation that it lacks in a dtype.
NO_KERNEL = r"not implemented for '\w+'|[Ll]ow precision dtypes not supported"
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


@is_property(
    cause="The forward is another function than the reference.",
    mend="Compare the formula of forward with the reference, term by term.",
    needs=(),
)
def value(subject: Subject, findings: Findings) -> None:
    if not subject.has_reference:
        raise NotApplicable("there is no reference")
    for inputs in subject.cases():
        theirs, ours = tensors_of(subject.reference, fresh(inputs)), tensors_of(subject.call, inputs)
        given, expected = (list(filter(is_number, tensors)) for tensors in (ours, theirs))
        findings.compare("the value", given, expected, inputs)
        for a, b in zip(ours, theirs, strict=False):
            if not is_number(b) and not torch.equal(a, b):
                findings.fail("an output of whole numbers is wrong", inputs)
        for a, b in zip(given, expected, strict=False):
            if a.dtype != b.dtype:
                findings.fail(f"the output is {dtype_name(a.dtype)}, the reference's {dtype_name(b.dtype)}", inputs)


@is_property(
    cause="The formula of the backward is wrong.",
    mend="Derive it again on the smallest inputs, and compare each factor with central differences.",
    needs=("unmutated", "value"),
)
def gradient(subject: Subject, findings: Findings) -> None:
    """From an incoming gradient of ones, the one that most backwards are written for."""
    for inputs in [*subject.cases(), *flipped(subject)]:
        ones = [torch.ones_like(t) for t in outputs_of(subject.call, fresh(inputs))]
        expected, given = subject.expected_gradients(inputs, ones), gradients(subject.call, inputs, ones)
        findings.compare("gradient", given, expected, inputs, is_numerical=not subject.has_reference)


def flipped(subject: Subject) -> Iterator[Inputs]:
    """The same shapes with other values: what is remembered of a call by its shapes is wrong for them."""
    for inputs in subject.cases():
        other = turned(subject.reference, inputs)
        if other is not None:
            yield other


@is_property(
    cause="The backward does not multiply by the whole incoming gradient, element by element.",
    mend="Start the backward with grad_output, as it is, times the derivative.",
    needs=("gradient",),
)
def incoming_gradient(subject: Subject, findings: Findings) -> None:
    for inputs in subject.cases():
        outputs = outputs_of(subject.call, inputs)
        generator = subject.generator()
        per_element = [random_like(t, generator) for t in outputs]
        tried = {
            "a number": [torch.full_like(t, -2.5) for t in outputs],
            "zeros": [torch.zeros_like(t) for t in outputs],
            "another number for each element": per_element,
        }
        for name, incoming in tried.items():
            expected = subject.expected_gradients(inputs, incoming)
            given = gradients(subject.call, fresh(inputs), [g.clone() for g in incoming])
            findings.compare(
                f"with an incoming gradient of {name}, gradient",
                given,
                expected,
                inputs,
                is_numerical=not subject.has_reference,
            )
        differentiable = [i for i, t in enumerate(outputs) if t.requires_grad]
        for missing in differentiable if len(differentiable) > 1 else []:
            some: list[Tensor | None] = [None if i == missing else g for i, g in enumerate(per_element)]
            none = [torch.zeros_like(g) if i == missing else g for i, g in enumerate(per_element)]
            given, expected = gradients(subject.call, inputs, some), gradients(subject.call, inputs, none)
            findings.compare(f"without an incoming gradient of output {missing + 1}, gradient", given, expected, inputs)


@is_property(
    cause="The formula loses digits or overflows in this dtype, or the result has another dtype than the reference's.",
    mend="Avoid differences of nearly equal numbers and large exponentials; sum in float32; keep each input's dtype.",
)
def dtypes(subject: Subject, findings: Findings) -> None:
    judged = 0
    for dtype in PRECISIONS:
        try:
            cases = subject.cases(dtype)
            expected_dtypes = [[t.dtype for t in outputs_of(subject.reference, inputs)] for inputs in cases]
        except (WrongUseError, RuntimeError) as error:
            if not subject.has_reference and not re.search(NO_KERNEL, str(error)):
                raise
            findings.note(f"{dtype_name(dtype)} is left out: the reference does not take it ({first_line(error)})")
            continue
        for inputs, of_outputs in zip(cases, expected_dtypes, strict=True):
            judged += 1
            what = dtype_name(dtype)
            outputs = outputs_of(subject.call, inputs)
            if [t.dtype for t in outputs] != of_outputs and subject.has_reference:
                dtypes_given = ", ".join(dtype_name(t.dtype) for t in outputs)
                findings.fail(
                    f"in {what} the output is {dtypes_given}, the reference's {dtype_name(of_outputs[0])}", inputs
                )
                continue
            incoming = subject.incoming(outputs)
            wide = in_double(inputs)
            true_incoming = [widest(g) for g in incoming]
            truth = [t.detach() for t in outputs_of(subject.reference, wide)]
            true_grads = subject.expected_gradients(wide, true_incoming)
            theirs = outputs_of(subject.reference, inputs) if subject.has_reference else None
            their_grads = gradients(subject.reference, inputs, incoming) if subject.has_reference else None
            findings.compare_rounded(f"in {what} the value", outputs, theirs, truth, dtype, inputs)
            grads = gradients_of(outputs, inputs, incoming)
            findings.compare_rounded(f"in {what} gradient", grads, their_grads, true_grads, dtype, inputs)
    if not judged:
        raise NotApplicable("the reference takes no dtype but float64")


@is_property(
    cause="Something is only right for the number of rows or dimensions that it was written for.",
    mend="Index from the last dimension, sum over all leading ones, and divide by a count taken from the shape.",
)
def shapes(subject: Subject, findings: Findings) -> None:
    met: list[str] = []
    for inputs in subject.cases():
        for name, changed in other_shapes(subject.reference, inputs):
            try:
                outputs = outputs_of(subject.call, changed)
            except Exception as error:
                if "dimension" in name:  # said aloud, that is no wrong answer
                    findings.note(f"it refuses {name}")
                else:
                    findings.fail(f"with {name} it raises {type(error).__name__}: {first_line(error)}", changed)
                continue
            met.append(name)
            try:
                grads = gradients_of(outputs, changed, subject.incoming(outputs), retain_graph=True)
            except Exception as error:
                if "dimension" in name:
                    findings.note(f"the backward refuses {name}")
                else:
                    findings.fail(f"with {name} it raises {type(error).__name__}: {first_line(error)}", changed)
                continue
            findings.compare(f"with {name} the value", outputs, outputs_of(subject.reference, changed), changed)
            expected = subject.expected_gradients(fresh(changed), subject.incoming(outputs))
            findings.compare(f"with {name} gradient", grads, expected, changed, is_numerical=not subject.has_reference)
    if not met:
        raise NotApplicable("the reference takes these inputs with no other number of rows or dimensions")
    findings.note(", ".join(dict.fromkeys(met)))
