"""What a Function keeps for its backward: where, what, for how long, and whether changes of it are noticed."""

import gc
import re
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from torchnn.check.findings import Findings, is_property
from torchnn.check.nodes import Seen, functions, is_once_differentiable, watched, within
from torchnn.check.subject import Subject
from torchnn.check.tensors import Inputs, NotApplicable, fresh, gradients, gradients_of, outputs_of, same


@is_property(
    cause="The backward keeps tensors outside ctx.save_for_backward, or something computed in between.",
    mend="Save inputs and outputs only, by ctx.save_for_backward; return an intermediate as one more output.",
    needs=(),
)
def saved_tensors(subject: Subject, findings: Findings) -> None:
    met = False
    for inputs in subject.cases():
        with watched(subject) as calls:
            outputs = outputs_of(subject.call, inputs)
        bytes_kept = 0
        for node in functions(outputs):
            met = True
            for name in kept_on(node):
                findings.fail(f"ctx.{name} holds a tensor", inputs)
            saved = [t for t in node.saved_tensors if t is not None]
            bytes_kept += sum(t.numel() * t.element_size() for t in saved)
            if not is_once_differentiable(node) and any(is_intermediate(t, calls) for t in saved):
                findings.fail("a tensor is saved that is neither an input nor an output", inputs)
        if met:
            findings.note(f"{bytes_kept:,} bytes kept of {describe_bytes(inputs)} of inputs")
            check_versions(subject, findings, inputs)
            check_leaks(subject, findings, inputs)
    if not met:
        raise NotApplicable("there is no autograd.Function in the graph")


def describe_bytes(inputs: Inputs) -> str:
    return f"{sum(t.numel() * t.element_size() for t in inputs if isinstance(t, Tensor)):,}"


def kept_on(node: Any) -> Iterator[str]:
    """The attributes of a ctx that hold tensors, however deep."""
    for name, value in vars(node).items():
        if any(isinstance(t, Tensor) for t in within(value)):
            yield name


def is_intermediate(t: Tensor, seen: Seen) -> bool:
    return t.numel() > 0 and t.untyped_storage().data_ptr() not in seen.storages


def check_versions(subject: Subject, findings: Findings, inputs: Inputs) -> None:
    """An input changed in place between forward and backward raises, or changes no gradient."""
    expected = gradients(subject.call, inputs, incoming := subject.incoming(outputs_of(subject.call, inputs)))
    for position, t in enumerate(inputs):
        if not isinstance(t, Tensor) or not t.is_floating_point() or t.numel() == 0:
            continue
        leaves = fresh(inputs)
        outputs = outputs_of(subject.call, leaves)
        with torch.no_grad():
            leaves[position].add_(1)
        try:
            given = gradients_of(outputs, leaves, incoming)
        except RuntimeError as error:
            if not re.search(r"modified (by an )?inplace", str(error)):
                raise
            continue
        if not all(same(a, b) for a, b in zip(given, expected, strict=True)):
            findings.fail(
                f"input {position + 1} is changed in place before the backward, which does not notice", inputs
            )


def check_leaks(subject: Subject, findings: Findings, inputs: Inputs) -> None:
    """When output and graph are gone, nothing that the call was given is still held."""
    leaves = fresh(inputs)
    references = [weakref.ref(t) for t in leaves if isinstance(t, Tensor)]
    outputs = outputs_of(subject.call, leaves)
    gradients_of(outputs, leaves, subject.incoming(outputs))
    del outputs, leaves
    if any(reference() is not None for reference in references):
        gc.collect()
        cycle = all(reference() is None for reference in references)
        findings.fail(
            "memory is given back only by the garbage collector" if cycle else "inputs are held for ever", inputs
        )
