"""Strides: of the inputs, and of the incoming gradients. gradcheck feeds only contiguous ones."""

from itertools import product

from torch import Tensor

from torchnn.check.findings import Findings, is_property
from torchnn.check.subject import Subject
from torchnn.check.tensors import Inputs, NotApplicable, fresh, gradients, gradients_of, mapped, outputs_of
from torchnn.check.variants import LAYOUTS, Change


@is_property(
    cause="A view, or a stride, is taken of an input as if it were contiguous.",
    mend="Use reshape for view, and ask for contiguous() before reading memory.",
    needs=("unmutated",),
)
def input_strides(subject: Subject, findings: Findings) -> None:
    """Each layout gives what a contiguous copy of the same values gives."""
    if not any(map(has_layouts, subject.cases()[0])):
        raise NotApplicable("no input has more than one element")
    for inputs, (name, layout) in product(subject.cases(), LAYOUTS.items()):
        laid_out = mapped(inputs, in_layout(layout))
        plain = mapped(laid_out, lambda t: t.contiguous().clone())
        if not runs_on(subject, plain):  # a matrix whose elements are all the same has no inverse
            continue
        given, expected = outputs_of(subject.call, laid_out), outputs_of(subject.call, plain)
        incoming = subject.incoming(expected)
        findings.compare(f"with {name} inputs the value", given, expected, laid_out)
        given, expected = gradients_of(given, laid_out, incoming), gradients_of(expected, plain, incoming)
        findings.compare(f"with {name} inputs gradient", given, expected, laid_out)


@is_property(
    cause="The incoming gradient's memory is read as if it were contiguous: view, as_strided, data_ptr, numpy.",
    mend="Use reshape for view, and grad_output.contiguous() before anything that reads memory.",
    needs=("unmutated",),
)
def grad_strides(subject: Subject, findings: Findings) -> None:
    tried = False
    for inputs, (name, layout) in product(subject.cases(), LAYOUTS.items()):
        usual = subject.incoming(outputs_of(subject.call, inputs))
        tried |= any(map(has_layouts, usual))
        incoming = [in_layout(layout)(g) for g in usual]
        copies = [g.contiguous().clone() for g in incoming]
        given, expected = (gradients(subject.call, inputs, g, as_given=True) for g in (incoming, copies))
        findings.compare(f"with a {name} incoming gradient, gradient", given, expected, inputs)
    if not tried:
        raise NotApplicable("no output has more than one element")


def runs_on(subject: Subject, inputs: Inputs) -> bool:
    try:
        return all(bool(t.isfinite().all()) for t in outputs_of(subject.reference, fresh(inputs)))
    except Exception:  # whatever the reference refuses is not for the subject either
        return False


def has_layouts(t: object) -> bool:
    return isinstance(t, Tensor) and t.dim() > 0 and t.numel() > 1


def in_layout(layout: Change) -> Change:
    return lambda t: layout(t) if has_layouts(t) else t
