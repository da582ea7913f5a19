"""torch.func: batches, gradients as functions, one gradient a sample, Jacobians and Hessians."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchnn.check.findings import Findings, is_property
from torchnn.check.properties.derivatives import detached
from torchnn.check.refusals import NO_SECOND_ORDER, TRANSFORMS
from torchnn.check.subject import Subject
from torchnn.check.tensors import (
    Call,
    Inputs,
    NotApplicable,
    fresh,
    gradients,
    is_number,
    numerical_gradients,
    outputs_of,
    size_of,
    weighted_sum,
)

MOST_ELEMENTS = 200  # of a Jacobian's inputs
SCALES = (1.0, 0.5, 0.9)  # three members of a batch, in the range of the inputs


def scalar_of(call: Call, weights: Sequence[Tensor]) -> Call:
    """The outputs weighted and summed, so that a gradient can be asked for."""
    return lambda *inputs: weighted_sum(outputs_of(call, inputs), weights)


def asked(inputs: Inputs) -> tuple[int, ...]:
    return tuple(i for i, t in enumerate(inputs) if isinstance(t, Tensor) and t.requires_grad)


def batched(inputs: Inputs, position: int) -> tuple[Inputs, tuple[int | None, ...], list[Inputs]]:
    """One argument in a batch of three along a dimension of its own; the dimensions for vmap; each member alone.

    The batch lies last, so that a rule that takes it to be first is found out.
    """
    plain = detached(inputs)
    members = [plain[position] * scale for scale in SCALES]
    together = tuple(torch.stack(members, dim=-1) if i == position else t for i, t in enumerate(plain))
    dims = tuple(together[i].dim() - 1 if i == position else None for i in range(len(plain)))
    return together, dims, [tuple(m if i == position else t for i, t in enumerate(plain)) for m in members]


@is_property(
    cause="The rule for batches mixes up dimensions, or the call looks at the values of its inputs.",
    mend="Set generate_vmap_rule = True, or move the batch to the front by in_dims; no Python branch on values.",
    needs=("unmutated", "input_strides", "grad_strides"),
    refusals=TRANSFORMS,
)
def vmap(subject: Subject, findings: Findings) -> None:
    """Over each argument, the value and the gradients, against one call after the other."""
    for inputs in subject.cases():
        for position in (i for i, t in enumerate(inputs) if is_number(t)):
            together, dims, members = batched(inputs, position)
            tuple_of: Any = lambda *i: tuple(outputs_of(subject.call, i))  # noqa: E731
            batch_of: Any = torch.func.vmap
            given = batch_of(tuple_of, dims)(*together)
            expected = [torch.stack(each) for each in zip(*(tuple_of(*m) for m in members), strict=True)]
            findings.compare(f"over argument {position + 1} the value", given, expected, inputs)
            weights = subject.incoming(outputs_of(subject.call, inputs))
            of_gradients = torch.func.grad(scalar_of(subject.call, weights), argnums=asked(inputs))
            given = batch_of(of_gradients, dims)(*together)
            each = [gradients(subject.call, as_leaves(m, inputs), weights) for m in members]
            expected = [torch.stack(member) for member in zip(*each, strict=True)]
            findings.compare(f"over argument {position + 1} gradient", given, expected, inputs)


def as_leaves(values: Inputs, like: Inputs) -> Inputs:
    return tuple(
        v.detach().clone().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t
        for v, t in zip(values, like, strict=True)
    )


@is_property(
    cause="torch.func.grad goes another way than autograd, and something is lost there.",
    mend="Give forward and setup_context apart, and save tensors by ctx.save_for_backward.",
    needs=("unmutated",),
    refusals=TRANSFORMS,
)
def func_grad(subject: Subject, findings: Findings) -> None:
    for inputs in subject.cases():
        weights = subject.incoming(outputs_of(subject.call, inputs))
        given = torch.func.grad(scalar_of(subject.call, weights), argnums=asked(inputs))(*detached(inputs))
        findings.compare("gradient", given, gradients(subject.call, inputs, weights), inputs)


@is_property(
    cause="A gradient for each sample is not what each sample alone gives: the batch is summed or divided too early.",
    mend="Let generate_vmap_rule = True make the rule, and take counts from the shape that forward sees.",
    needs=("value", "gradient", "vmap", "func_grad"),
    refusals=TRANSFORMS,
)
def per_sample_gradients(subject: Subject, findings: Findings) -> None:
    """vmap of the gradient over the rows of the first input and of all that have as many."""
    for inputs in subject.cases():
        rows, dims = rows_of(subject, inputs)
        ones = [torch.ones_like(t) for t in outputs_of(subject.call, row(inputs, dims, 0))]
        of_gradients = torch.func.grad(scalar_of(subject.call, ones), argnums=asked(inputs))
        given = torch.func.vmap(of_gradients, dims)(*detached(inputs))
        each = [subject.expected_gradients(as_leaves(row(inputs, dims, r), inputs), ones) for r in range(rows)]
        expected = [torch.stack(g) for g in zip(*each, strict=True)]
        findings.compare("gradient", given, expected, inputs, is_numerical=not subject.has_reference)


def rows_of(subject: Subject, inputs: Inputs) -> tuple[int, tuple[int | None, ...]]:
    """How many samples there are, and which inputs have them as their first dimension."""
    first = next((t for t in inputs if isinstance(t, Tensor) and t.dim() > 0), None)
    rows = 0 if first is None else len(first)
    lengths = [isinstance(t, Tensor) and t.dim() > 0 and len(t) == rows for t in inputs]
    alone = tuple(0 if t is first else None for t in inputs)
    alike = tuple(0 if has and t.dim() == first.dim() else None for has, t in zip(lengths, inputs, strict=True))  # type: ignore[union-attr]
    for dims in dict.fromkeys((tuple(0 if has else None for has in lengths), alike, alone)):
        try:
            if rows:
                outputs_of(subject.reference, row(inputs, dims, 0))
                gradients(subject.call, as_leaves(row(inputs, dims, 0), inputs))
                return rows, dims
        except Exception:  # whatever the reference refuses is no sample
            continue
    raise NotApplicable("it takes no sample alone")


def row(inputs: Inputs, dims: Sequence[int | None], number: int) -> Inputs:
    return tuple(t if d is None else t.detach()[number] for t, d in zip(inputs, dims, strict=True))


@is_property(
    cause="Many incoming gradients at once, as jacrev sends them, are not handled.",
    mend="Write the backward for one incoming gradient, in operations that vmap can batch, and into no buffer.",
    needs=("func_grad", "incoming_gradient"),
    refusals=TRANSFORMS,
)
def jacobian(subject: Subject, findings: Findings) -> None:
    """`torch.func.jacrev` and `torch.autograd.functional.jacobian(vectorize=True)`, against one row after the other."""
    for inputs in small(subject):
        call = flat_output(subject.call)
        plain = detached(inputs)
        count = len(call(*plain))
        expected = [torch.stack(g) for g in zip(*(by_row(call, inputs, r, count) for r in range(count)), strict=True)]
        given = torch.func.jacrev(call, argnums=asked(inputs))(*plain)
        findings.compare("Jacobian", given, expected, inputs)
        leaves = fresh(inputs)
        output = call(*leaves)
        wanted = [leaves[i] for i in asked(inputs)]
        rows = torch.eye(count, dtype=output.dtype, device=output.device)
        at_once = torch.autograd.grad(
            output, wanted, rows, is_grads_batched=True, allow_unused=True, materialize_grads=True
        )
        findings.compare("Jacobian by is_grads_batched", at_once, expected, inputs)


@is_property(
    cause="The second order is wrong or lost under torch.func.",
    mend="Write the backward in differentiable operations of what is saved.",
    needs=("value", "gradient", "incoming_gradient", "second_order", "func_grad", "jacobian"),
    refusals=(NO_SECOND_ORDER, *TRANSFORMS),
)
def hessian(subject: Subject, findings: Findings) -> None:
    """Of the weighted sum of the outputs, by two reverse passes."""
    for inputs in small(subject):
        weights = subject.incoming(outputs_of(subject.call, inputs))
        plain, numbers = detached(inputs), asked(inputs)

        def of(call: Call, weights: Sequence[Tensor] = weights, numbers: tuple[int, ...] = numbers) -> Call:
            return torch.func.jacrev(torch.func.grad(scalar_of(call, weights), argnums=numbers), argnums=numbers)

        given = [block for line in of(subject.call)(*plain) for block in line]
        if subject.has_reference:
            expected = [block for line in of(subject.reference)(*plain) for block in line]
        else:
            expected = numerical_hessian(subject.call, inputs, weights)
        findings.compare("block", given, expected, inputs, is_numerical=not subject.has_reference)


def numerical_hessian(call: Call, inputs: Inputs, weights: Sequence[Tensor]) -> list[Tensor]:
    blocks = []
    for number in range(len(asked(inputs))):
        shape = inputs[asked(inputs)[number]].shape

        def element(*i: object, index: int, number: int = number) -> Tensor:
            return gradients(call, i, weights)[number].reshape(-1)[index]

        lines = [
            numerical_gradients(lambda *i, index=index: element(*i, index=index), inputs)
            for index in range(shape.numel())
        ]
        blocks += [torch.stack(g).reshape((*shape, *g[0].shape)) for g in zip(*lines, strict=True)]
    return blocks


def small(subject: Subject) -> list[Inputs]:
    if any(t.is_complex() for inputs in subject.cases() for t in inputs if isinstance(t, Tensor)):
        raise NotApplicable("torch.func has Jacobians of real numbers only")
    cases = [inputs for inputs in subject.cases() if size_of(inputs) <= MOST_ELEMENTS]
    if not cases:
        raise NotApplicable(f"the inputs have more than {MOST_ELEMENTS} elements: give smaller ones")
    return cases


def flat_output(call: Call) -> Call:
    return lambda *inputs: torch.cat([t.reshape(-1) for t in outputs_of(call, inputs)])


def by_row(call: Call, inputs: Inputs, number: int, count: int) -> list[Tensor]:
    output = call(*inputs)
    one = torch.zeros(count, dtype=output.dtype, device=output.device)
    one[number] = 1
    return gradients(call, inputs, [one])
