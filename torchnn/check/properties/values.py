"""The value and the gradients equal those of the reference: for all incoming gradients, dtypes and numbers of rows."""

import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from torchnn.check.findings import Findings, is_property
from torchnn.check.gradients import (
    Inputs,
    NotApplicable,
    all_outputs_of,
    dtype_name,
    gradients,
    gradients_of,
    is_floating,
    new_leaves,
    outputs_of,
    random_like,
    to_double,
)
from torchnn.check.input_variants import other_shapes, reversed_inputs
from torchnn.check.refusals import error_line
from torchnn.check.subject import Subject, WrongUseError
from torchnn.check.tolerances import to_widest

# torch's errors for an operation that does not exist in a dtype.
NO_KERNEL = r"not implemented for '\w+'|[Ll]ow precision dtypes not supported"
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


@is_property(
    cause="The forward computes another function than the reference.",
    fix="Compare the formula of forward with the reference, term by term.",
    needs=(),
)
def value(subject: Subject, findings: Findings) -> None:
    """All outputs, integers included, equal those of the reference."""
    if not subject.has_reference:
        raise NotApplicable("there is no reference to compare with")
    for inputs in subject.cases():
        theirs, ours = all_outputs_of(subject.reference, new_leaves(inputs)), all_outputs_of(subject.call, inputs)
        given, expected = (list(filter(is_floating, tensors)) for tensors in (ours, theirs))
        findings.compare("value", given, expected, inputs)
        for a, b in zip(ours, theirs, strict=False):
            if not is_floating(b) and not torch.equal(a, b):
                findings.fail("an integer output is wrong", inputs)
        for a, b in zip(given, expected, strict=False):
            if a.dtype != b.dtype:
                findings.fail(
                    f"the output is {dtype_name(a.dtype)} but the reference's is {dtype_name(b.dtype)}", inputs
                )


@is_property(
    cause="The formula of the backward is wrong.",
    fix="Derive it again, and compare each factor with central differences on the smallest inputs.",
    needs=("unmutated", "value"),
)
def gradient(subject: Subject, findings: Findings) -> None:
    """The gradients are right for an incoming gradient of ones, on the inputs and on the inputs in reverse order."""
    for inputs in [*subject.cases(), *in_reverse(subject)]:
        ones = [torch.ones_like(t) for t in outputs_of(subject.call, new_leaves(inputs))]
        expected, given = subject.expected_gradients(inputs, ones), gradients(subject.call, inputs, ones)
        findings.compare("gradient", given, expected, inputs, is_numerical=not subject.has_reference)


def in_reverse(subject: Subject) -> Iterator[Inputs]:
    """The same shapes with other values: a backward that caches something for a shape is wrong for them."""
    for inputs in subject.cases():
        other = reversed_inputs(subject.reference, inputs)
        if other is not None:
            yield other


@is_property(
    cause="The backward does not multiply by the whole incoming gradient, element by element.",
    fix="Multiply grad_output itself by the derivative, and do not reduce, index or assume it.",
    needs=("gradient",),
)
def incoming_gradient(subject: Subject, findings: Findings) -> None:
    """The gradients are right for any incoming gradient, and if one of several outputs has none."""
    for inputs in subject.cases():
        outputs = outputs_of(subject.call, inputs)
        generator = subject.generator()
        random = [random_like(t, generator) for t in outputs]
        tried = {
            "-2.5 everywhere": [torch.full_like(t, -2.5) for t in outputs],
            "zeros": [torch.zeros_like(t) for t in outputs],
            "random numbers": random,
        }
        for name, grad_outputs in tried.items():
            expected = subject.expected_gradients(inputs, grad_outputs)
            given = gradients(subject.call, new_leaves(inputs), [g.clone() for g in grad_outputs])
            findings.compare(
                "gradient",
                given,
                expected,
                inputs,
                f"with an incoming gradient of {name}",
                is_numerical=not subject.has_reference,
            )
        differentiable = [i for i, t in enumerate(outputs) if t.requires_grad]
        for missing in differentiable if len(differentiable) > 1 else []:
            some: list[Tensor | None] = [None if i == missing else g for i, g in enumerate(random)]
            zeros = [torch.zeros_like(g) if i == missing else g for i, g in enumerate(random)]
            given, expected = gradients(subject.call, inputs, some), gradients(subject.call, inputs, zeros)
            findings.compare(
                "gradient", given, expected, inputs, f"without an incoming gradient for output {missing + 1}"
            )


@is_property(
    cause="The formula loses digits or overflows in this dtype, or the output has another dtype than the reference's.",
    fix="Avoid differences of nearly equal numbers and exponentials of large ones; sum in float32; keep the dtype of "
    "each input.",
)
def dtypes(subject: Subject, findings: Findings) -> None:
    """In float32, bfloat16 and float16 the error is at most four times the reference's own."""
    judged = 0
    for dtype in PRECISIONS:
        try:
            cases = subject.cases(dtype)
            expected_dtypes = [[t.dtype for t in outputs_of(subject.reference, inputs)] for inputs in cases]
        except (WrongUseError, RuntimeError) as error:
            if not subject.has_reference and not re.search(NO_KERNEL, str(error)):
                raise
            findings.note(f"not checked in {dtype_name(dtype)}, where the reference raises: {error_line(error)}")
            continue
        for inputs, of_reference in zip(cases, expected_dtypes, strict=True):
            judged += 1
            check_dtype(subject, findings, inputs, dtype, of_reference)
    if not judged:
        raise NotApplicable("the reference accepts only float64")


def check_dtype(
    subject: Subject, findings: Findings, inputs: Inputs, dtype: torch.dtype, of_reference: Sequence[torch.dtype]
) -> None:
    """Value and gradient in one dtype; `of_reference` are the dtypes of the reference's outputs."""
    what = dtype_name(dtype)
    outputs = outputs_of(subject.call, inputs)
    if [t.dtype for t in outputs] != of_reference and subject.has_reference:
        given = ", ".join(dtype_name(t.dtype) for t in outputs)
        expected = ", ".join(map(dtype_name, of_reference))
        findings.fail(f"with {what} inputs, the output is {given} but the reference's is {expected}", inputs)
        return
    grad_outputs = subject.grad_outputs(outputs)
    wide = to_double(inputs)
    truth = [t.detach() for t in outputs_of(subject.reference, wide)]
    true_grads = subject.expected_gradients(wide, [to_widest(g) for g in grad_outputs])
    theirs = outputs_of(subject.reference, inputs) if subject.has_reference else None
    their_grads = gradients(subject.reference, inputs, grad_outputs) if subject.has_reference else None
    findings.compare_rounded("value", outputs, theirs, truth, dtype, inputs, f"in {what}")
    grads = gradients_of(outputs, inputs, grad_outputs)
    findings.compare_rounded("gradient", grads, their_grads, true_grads, dtype, inputs, f"in {what}")


@is_property(
    cause="Something is right only for one number of rows or of dimensions.",
    fix="Count dimensions from the last one, sum over all leading ones, and divide by a count taken from the shape.",
)
def shapes(subject: Subject, findings: Findings) -> None:
    """No rows, one row, two more rows, one dimension less, one dimension more: as far as the reference accepts them."""
    met: list[str] = []
    for inputs in subject.cases():
        for name, changed in other_shapes(subject.reference, inputs):
            try:
                outputs = outputs_of(subject.call, changed)
            except Exception as error:
                if "dimension" in name:  # an error is not a wrong answer
                    findings.note(f"it raises an error for {name}")
                else:
                    findings.fail(f"with {name} it raises {type(error).__name__}: {error_line(error)}", changed)
                continue
            met.append(name)
            try:
                grads = gradients_of(outputs, changed, subject.grad_outputs(outputs), retain_graph=True)
            except Exception as error:
                if "dimension" in name:
                    findings.note(f"the backward raises an error for {name}")
                else:
                    findings.fail(f"with {name} it raises {type(error).__name__}: {error_line(error)}", changed)
                continue
            when = f"with {name}"
            findings.compare("value", outputs, outputs_of(subject.reference, changed), changed, when)
            expected = subject.expected_gradients(new_leaves(changed), subject.grad_outputs(outputs))
            findings.compare("gradient", grads, expected, changed, when, is_numerical=not subject.has_reference)
    if not met:
        raise NotApplicable("the reference accepts no other number of rows or dimensions")
    findings.note(", ".join(dict.fromkeys(met)))
