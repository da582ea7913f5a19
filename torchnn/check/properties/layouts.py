"""The strides of inputs and of incoming gradients make no difference. gradcheck uses only contiguous ones."""

from itertools import product

from torch import Tensor

from torchnn.check.findings import Findings, is_property
from torchnn.check.gradients import NotApplicable, gradients, gradients_of, map_tensors, outputs_of
from torchnn.check.input_variants import LAYOUTS, TensorChange, is_finite
from torchnn.check.subject import Subject


@is_property(
    cause="The code reads the memory of an input as if it were contiguous.",
    fix="Use reshape instead of view, and call contiguous() before anything that reads memory directly.",
    needs=("unmutated",),
)
def input_strides(subject: Subject, findings: Findings) -> None:
    """Inputs in each layout give the same results as contiguous copies of them."""
    if not any(map(has_layouts, subject.cases()[0])):
        raise NotApplicable("no input has more than one element")
    for inputs, (name, layout) in product(subject.cases(), LAYOUTS.items()):
        laid_out = map_tensors(inputs, in_layout(layout))
        plain = map_tensors(laid_out, lambda t: t.contiguous().clone())
        if not is_finite(subject.reference, plain):  # for example, the expanded layout makes a matrix singular
            continue
        given, expected = outputs_of(subject.call, laid_out), outputs_of(subject.call, plain)
        grad_outputs = subject.grad_outputs(expected)
        when = f"with inputs in the layout {name!r}"
        findings.compare("value", given, expected, laid_out, when)
        given, expected = gradients_of(given, laid_out, grad_outputs), gradients_of(expected, plain, grad_outputs)
        findings.compare("gradient", given, expected, laid_out, when)


@is_property(
    cause="The code reads the memory of the incoming gradient as if it were contiguous: view, as_strided, data_ptr, "
    "numpy.",
    fix="Use reshape instead of view, and call grad_output.contiguous() before anything that reads memory directly.",
    needs=("unmutated",),
)
def grad_strides(subject: Subject, findings: Findings) -> None:
    """Incoming gradients in each layout give the same results as contiguous copies of them."""
    tried = False
    for inputs, (name, layout) in product(subject.cases(), LAYOUTS.items()):
        usual = subject.grad_outputs(outputs_of(subject.call, inputs))
        tried |= any(map(has_layouts, usual))
        grad_outputs = [in_layout(layout)(g) for g in usual]
        contiguous = [g.contiguous().clone() for g in grad_outputs]
        given, expected = (gradients(subject.call, inputs, g, copies=False) for g in (grad_outputs, contiguous))
        when = f"with an incoming gradient in the layout {name!r}"
        findings.compare("gradient", given, expected, inputs, when)
    if not tried:
        raise NotApplicable("no output has more than one element")


def has_layouts(t: object) -> bool:
    """Whether a tensor has enough elements to have more than one layout."""
    return isinstance(t, Tensor) and t.dim() > 0 and t.numel() > 1


def in_layout(layout: TensorChange) -> TensorChange:
    """Change the layout of tensors that can have more than one."""
    return lambda t: layout(t) if has_layouts(t) else t
