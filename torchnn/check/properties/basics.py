"""What all other properties rely on: the call runs, gives the same result again, and does not change its arguments."""

import re
from typing import Any

import torch
from torch import Tensor

from torchnn._torch import version_of
from torchnn.check.autograd_functions import (
    FunctionCalls,
    function_nodes,
    gradients_with_inputs,
    raw_backward,
    recorded_calls,
)
from torchnn.check.findings import Findings, is_property
from torchnn.check.gradients import (
    Inputs,
    NotApplicable,
    dtype_name,
    gradients,
    gradients_of,
    is_identical,
    new_leaves,
    outputs_of,
)
from torchnn.check.input_variants import reversed_inputs
from torchnn.check.refusals import error_line
from torchnn.check.subject import Subject

RAW_DTYPES = torch.float64, torch.float32, torch.bfloat16
WRONG_GRADIENTS = r"returned an (invalid gradient|incorrect number of gradients)"  # autograd's own errors


@is_property(
    cause="The call does not accept these inputs, or its backward raises an error.",
    fix="Make inputs that it accepts, or correct the line that raises; calling it on them shows the traceback.",
    needs=(),
)
def runs(subject: Subject, findings: Findings) -> None:
    """The call accepts the inputs, its outputs have a graph, and its backward runs."""
    for inputs in subject.cases():
        outputs = outputs_of(subject.call, inputs)
        if any(t.requires_grad for t in outputs):
            try:
                gradients_of(outputs, inputs)
            except Exception as error:
                if not re.search(WRONG_GRADIENTS, str(error)):  # raw_gradients reports these
                    findings.fail(f"the backward raises {type(error).__name__}: {error_line(error)}", inputs)
        else:
            findings.fail("no output requires a gradient, so there is no backward to check", inputs)
        expected = outputs_of(subject.reference, new_leaves(inputs))
        if len(outputs) != len(expected):
            findings.fail(f"it returns {len(outputs)} tensors and the reference returns {len(expected)}", inputs)


@is_property(
    cause="backward returns a gradient with another shape or dtype than its input, and autograd silently converts it.",
    fix="Sum over every dimension that was broadcast, and convert to the dtype of the input.",
    needs=(),
)
def raw_gradients(subject: Subject, findings: Findings) -> None:
    """backward returns a gradient of the right shape and dtype for each argument, before autograd converts it."""
    found = False
    for dtype in RAW_DTYPES:
        try:
            found |= compare_raw(subject, findings, subject.cases(dtype))
        except Exception:
            if dtype == torch.float64:
                raise
            # the property dtypes reports whether it accepts other dtypes
    if not found:
        raise NotApplicable("it uses no custom autograd.Function")


def compare_raw(subject: Subject, findings: Findings, cases: list[Inputs]) -> bool:
    """Compare shapes and dtypes of all gradients; return whether there is a custom Function."""
    found = False
    for inputs in cases:
        with recorded_calls(subject) as calls:
            outputs = outputs_of(subject.call, inputs)
        for node in function_nodes(outputs):
            found = True
            compare_with_inputs(node, calls, findings, inputs)
    return found


def compare_with_inputs(node: Any, calls: FunctionCalls, findings: Findings, inputs: Inputs) -> None:
    """Compare the gradients of one Function with its arguments."""
    raw = raw_backward(node)
    if len(raw) < (count := len(calls.tensor_arguments.get(node, ()))):
        findings.fail(f"backward returns {len(raw)} of the {count} gradients", inputs, is_fatal=True)
        return
    for position, grad, (shape, dtype) in gradients_with_inputs(node, raw, calls):
        if grad.shape != shape:
            is_refused = not can_be_summed(grad.shape, shape)
            findings.fail(
                f"gradient {position} has shape {tuple(grad.shape)} but should have {tuple(shape)}",
                inputs,
                is_fatal=is_refused,
            )
        if grad.dtype != dtype:
            findings.fail(
                f"gradient {position} has dtype {dtype_name(grad.dtype)} but should have {dtype_name(dtype)}", inputs
            )


def can_be_summed(shape: torch.Size, to: torch.Size) -> bool:
    """Whether autograd accepts a gradient of one shape for a tensor of another."""
    try:
        return bool(torch.broadcast_shapes(shape, to) == shape)
    except RuntimeError:
        return False


@is_property(
    cause="Two runs on the same numbers differ: it uses unseeded random numbers, or sums in an order that varies.",
    fix="Draw random numbers in the forward and save them; use operations that torch documents as deterministic.",
    needs=(),
)
def determinism(subject: Subject, findings: Findings) -> None:
    """Three runs on the same numbers give the same bits."""
    for inputs in subject.cases():
        runs = []
        for leaves in (new_leaves(inputs) for _ in range(3)):
            outputs = outputs_of(subject.call, leaves)
            runs.append([*(t.detach() for t in outputs), *gradients_of(outputs, leaves, subject.grad_outputs(outputs))])
        for again in runs[1:]:
            for a, b in zip(runs[0], again, strict=True):
                if not is_identical(a, b):
                    findings.fail("two runs on the same inputs differ", inputs)
                    return


@is_property(
    cause="The forward or the backward writes in place into a tensor that it does not own.",
    fix="Write grad_output * a instead of grad_output.mul_(a). Use ctx.mark_dirty only for inputs that are meant to "
    "change.",
    needs=(),
)
def unmutated(subject: Subject, findings: Findings) -> None:
    """Inputs, outputs and incoming gradients stay unchanged, and the results of one call survive the next call."""
    for inputs in subject.cases():
        before = new_leaves(inputs)
        outputs = outputs_of(subject.call, inputs)
        grad_outputs = subject.grad_outputs(outputs)
        grad_outputs_before = [g.clone() for g in grad_outputs]
        outputs_before = [t.detach().clone() for t in outputs]
        gradients_of(outputs, inputs, grad_outputs, copies=False)
        for position, (g, old) in enumerate(zip(grad_outputs, grad_outputs_before, strict=True), 1):
            if version_of(g) or not torch.equal(g, old):
                findings.fail(f"the backward changes incoming gradient {position}", inputs)
        for position, (t, old) in enumerate(zip(inputs, before, strict=True), 1):
            if isinstance(t, Tensor) and not is_identical(t, old):
                findings.fail(f"input {position} is changed", inputs)
        for position, (t, old) in enumerate(zip(outputs, outputs_before, strict=True), 1):
            if not is_identical(t, old):
                findings.fail(f"the backward changes output {position}", inputs)
        if not findings.failures:
            check_next_call(subject, findings, inputs)


def check_next_call(subject: Subject, findings: Findings, inputs: Inputs) -> None:
    """The next call must not write into the tensors that this one returned."""
    outputs = outputs_of(subject.call, inputs)
    grads = gradients_of(outputs, inputs, grad_outputs := subject.grad_outputs(outputs))
    before = [t.detach().clone() for t in (*outputs, *grads)]
    other = reversed_inputs(subject.reference, inputs)
    gradients(subject.call, new_leaves(inputs) if other is None else other, [2 * g for g in grad_outputs])
    names = ["an output"] * len(outputs) + ["a gradient"] * len(grads)
    for name, t, old in zip(names, (*outputs, *grads), before, strict=True):
        if not is_identical(t.detach(), old):
            findings.fail(f"the next call changes {name} of the previous call", inputs)
