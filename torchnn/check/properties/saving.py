"""What a Function saves for its backward: where, for how long, and whether autograd notices changes of it."""

import gc
import re
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from torchnn.check.autograd_functions import FunctionCalls, function_nodes, is_once_differentiable, recorded_calls, walk
from torchnn.check.findings import Findings, is_property
from torchnn.check.gradients import (
    Inputs,
    NotApplicable,
    gradients,
    gradients_of,
    is_identical,
    new_leaves,
    outputs_of,
)
from torchnn.check.subject import Subject


@is_property(
    cause="The Function keeps tensors outside ctx.save_for_backward, or saves an intermediate result.",
    fix="Save only inputs and outputs, with ctx.save_for_backward. If you need an intermediate, return it as one more "
    "output.",
    needs=(),
)
def saved_tensors(subject: Subject, findings: Findings) -> None:
    """Tensors are kept in save_for_backward only, are inputs or outputs, and are released afterwards."""
    found = False
    for inputs in subject.cases():
        with recorded_calls(subject) as calls:
            outputs = outputs_of(subject.call, inputs)
        bytes_saved = 0
        for node in function_nodes(outputs):
            found = True
            for name in attributes_with_tensors(node):
                findings.fail(f"ctx.{name} holds a tensor", inputs)
            saved = [t for t in node.saved_tensors if t is not None]
            bytes_saved += sum(map(size_in_bytes, saved))
            if not is_once_differentiable(node) and any(is_intermediate(t, calls) for t in saved):
                findings.fail("a saved tensor is neither an input nor an output", inputs)
        if found:
            bytes_of_inputs = sum(size_in_bytes(t) for t in inputs if isinstance(t, Tensor))
            findings.note(f"it saves {bytes_saved:,} bytes; the inputs take {bytes_of_inputs:,}")
            check_versions(subject, findings, inputs)
            check_leaks(subject, findings, inputs)
    if not found:
        raise NotApplicable("it uses no custom autograd.Function")


def size_in_bytes(t: Tensor) -> int:
    return t.numel() * t.element_size()


def attributes_with_tensors(node: Any) -> Iterator[str]:
    """The attributes of a ctx that contain tensors, nested ones included."""
    for name, value in vars(node).items():
        if any(isinstance(t, Tensor) for t in walk(value)):
            yield name


def is_intermediate(t: Tensor, calls: FunctionCalls) -> bool:
    """Whether a saved tensor is neither an argument nor a result of a Function."""
    return t.numel() > 0 and t.untyped_storage().data_ptr() not in calls.storages


def check_versions(subject: Subject, findings: Findings, inputs: Inputs) -> None:
    """If an input is changed in place between forward and backward, the backward raises or stays right."""
    grad_outputs = subject.grad_outputs(outputs_of(subject.call, inputs))
    expected = gradients(subject.call, inputs, grad_outputs)
    for position, t in enumerate(inputs):
        if not isinstance(t, Tensor) or not t.is_floating_point() or t.numel() == 0:
            continue
        leaves = new_leaves(inputs)
        outputs = outputs_of(subject.call, leaves)
        with torch.no_grad():
            leaves[position].add_(1)
        try:
            given = gradients_of(outputs, leaves, grad_outputs)
        except RuntimeError as error:
            if not re.search(r"modified (by an )?inplace", str(error)):
                raise
            continue
        if not all(is_identical(a, b) for a, b in zip(given, expected, strict=True)):
            findings.fail(
                f"if input {position + 1} is changed in place before the backward, autograd does not notice and the "
                "gradient is wrong",
                inputs,
            )


def check_leaks(subject: Subject, findings: Findings, inputs: Inputs) -> None:
    """When the outputs and the graph are gone, nothing keeps the inputs alive."""
    leaves = new_leaves(inputs)
    references = [weakref.ref(t) for t in leaves if isinstance(t, Tensor)]
    outputs = outputs_of(subject.call, leaves)
    gradients_of(outputs, leaves, subject.grad_outputs(outputs))
    del outputs, leaves
    if any(reference() is not None for reference in references):
        gc.collect()
        is_cycle = all(reference() is None for reference in references)
        findings.fail(
            "a reference cycle keeps the inputs in memory until the garbage collector runs"
            if is_cycle
            else "something keeps the inputs in memory after the backward",
            inputs,
        )
