"""torch.func: vmap, gradients as functions, per-sample gradients, Jacobians and Hessians."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchnn.check.findings import Findings, is_property
from torchnn.check.gradients import (
    Call,
    Inputs,
    NotApplicable,
    count_elements,
    detached,
    gradients,
    is_floating,
    new_leaves,
    numerical_gradients,
    outputs_of,
    positions_requiring_grad,
    requiring_grad,
    weighted_outputs,
)
from torchnn.check.refusals import NO_SECOND_ORDER, TRANSFORMS
from torchnn.check.subject import Subject

MOST_ELEMENTS = 200  # of the inputs of a Jacobian
SCALES = (1.0, 0.5, 0.9)  # the three samples of a batch stay in the range of the inputs


def scalar_of(call: Call, weights: Sequence[Tensor]) -> Call:
    """The weighted sum of the outputs, a scalar that torch.func.grad can differentiate."""
    return lambda *inputs: weighted_outputs(outputs_of(call, inputs), weights)


def batched(inputs: Inputs, position: int) -> tuple[Inputs, tuple[int | None, ...], list[Inputs]]:
    """Make a batch of three samples of one argument.

    The batch is the last dimension, so that a rule which assumes the first one fails.

    Returns:
        The inputs with that argument batched, the in_dims for vmap, and the inputs of each sample.
    """
    plain = detached(inputs)
    samples = [plain[position] * scale for scale in SCALES]
    together = tuple(torch.stack(samples, dim=-1) if i == position else t for i, t in enumerate(plain))
    dims = tuple(together[i].dim() - 1 if i == position else None for i in range(len(plain)))
    return together, dims, [tuple(s if i == position else t for i, t in enumerate(plain)) for s in samples]


@is_property(
    cause="The vmap rule mixes up dimensions, or the call branches on the values of its inputs.",
    fix="Set generate_vmap_rule = True, or use in_dims to move the batch to the front; do not branch on values.",
    needs=("unmutated", "input_strides", "grad_strides"),
    refusals=TRANSFORMS,
)
def vmap(subject: Subject, findings: Findings) -> None:
    """vmap over each argument gives the same values and gradients as one call for each sample."""
    for inputs in subject.cases():
        for position in (i for i, t in enumerate(inputs) if is_floating(t)):
            together, dims, samples = batched(inputs, position)
            when = f"with vmap over argument {position + 1}"
            tuple_of: Any = lambda *i: tuple(outputs_of(subject.call, i))  # noqa: E731
            batch_of: Any = torch.func.vmap
            given = batch_of(tuple_of, dims)(*together)
            expected = [torch.stack(each) for each in zip(*(tuple_of(*s) for s in samples), strict=True)]
            findings.compare("value", given, expected, inputs, when)
            weights = subject.grad_outputs(outputs_of(subject.call, inputs))
            of_gradients = torch.func.grad(scalar_of(subject.call, weights), argnums=positions_requiring_grad(inputs))
            given = batch_of(of_gradients, dims)(*together)
            each = [gradients(subject.call, leaves_with(s, inputs), weights) for s in samples]
            expected = [torch.stack(sample) for sample in zip(*each, strict=True)]
            findings.compare("gradient", given, expected, inputs, when)


def leaves_with(values: Inputs, like: Inputs) -> Inputs:
    """Leaves with these values that require a gradient where `like` does."""
    return tuple(
        v.detach().clone().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t
        for v, t in zip(values, like, strict=True)
    )


@is_property(
    cause="Under torch.func.grad the call takes another path than under autograd, or loses something that it saves.",
    fix="Write forward and setup_context separately, and save tensors with ctx.save_for_backward.",
    needs=("unmutated",),
    refusals=TRANSFORMS,
)
def func_grad(subject: Subject, findings: Findings) -> None:
    """torch.func.grad gives the same as autograd."""
    for inputs in subject.cases():
        weights = subject.grad_outputs(outputs_of(subject.call, inputs))
        of_gradients = torch.func.grad(scalar_of(subject.call, weights), argnums=positions_requiring_grad(inputs))
        given = of_gradients(*detached(inputs))
        findings.compare("gradient", given, gradients(subject.call, inputs, weights), inputs, "with torch.func.grad")


@is_property(
    cause="Each sample's gradient differs from that of the sample by itself: the backward sums or averages too early.",
    fix="Set generate_vmap_rule = True, and take counts from the shape that the forward receives.",
    needs=("value", "gradient", "vmap", "func_grad"),
    refusals=TRANSFORMS,
)
def per_sample_gradients(subject: Subject, findings: Findings) -> None:
    """vmap of the gradient over the rows of the first input and of all inputs with the same number of rows."""
    for inputs in subject.cases():
        rows, dims = rows_of(subject, inputs)
        ones = [torch.ones_like(t) for t in outputs_of(subject.call, sample(inputs, dims, 0))]
        of_gradients = torch.func.grad(scalar_of(subject.call, ones), argnums=positions_requiring_grad(inputs))
        given = torch.func.vmap(of_gradients, dims)(*detached(inputs))
        each = [subject.expected_gradients(leaves_with(sample(inputs, dims, r), inputs), ones) for r in range(rows)]
        expected = [torch.stack(g) for g in zip(*each, strict=True)]
        when = "computed for each sample"
        findings.compare("gradient", given, expected, inputs, when, is_numerical=not subject.has_reference)


def rows_of(subject: Subject, inputs: Inputs) -> tuple[int, tuple[int | None, ...]]:
    """The number of samples, and the in_dims of the inputs that have samples as rows.

    Nothing says which inputs do, so this tries three choices: all with the same number of rows, those of them with the
    same number of dimensions, the first one only.
    """
    first = next((t for t in inputs if isinstance(t, Tensor) and t.dim() > 0), None)
    rows = 0 if first is None else len(first)
    same_length = [isinstance(t, Tensor) and t.dim() > 0 and len(t) == rows for t in inputs]
    same_dimensions = [is_one and t.dim() == first.dim() for is_one, t in zip(same_length, inputs, strict=True)]  # type: ignore[union-attr]
    first_only = [t is first for t in inputs]
    for chosen in (same_length, same_dimensions, first_only):
        dims = tuple(0 if is_one else None for is_one in chosen)
        try:
            if rows:
                outputs_of(subject.reference, sample(inputs, dims, 0))
                gradients(subject.call, leaves_with(sample(inputs, dims, 0), inputs))
                return rows, dims
        except Exception:  # not a way to choose a sample
            continue
    raise NotApplicable("it does not accept a single sample")


def sample(inputs: Inputs, dims: Sequence[int | None], number: int) -> Inputs:
    """The inputs of one sample."""
    return tuple(t if d is None else t.detach()[number] for t, d in zip(inputs, dims, strict=True))


@is_property(
    cause="The backward cannot handle many incoming gradients at once, as jacrev sends them.",
    fix="Write the backward for one incoming gradient, in operations that vmap can batch, and without buffers.",
    needs=("func_grad", "incoming_gradient"),
    refusals=TRANSFORMS,
)
def jacobian(subject: Subject, findings: Findings) -> None:
    """`torch.func.jacrev` and `torch.autograd.grad(is_grads_batched=True)` give the gradients of one row at a time."""
    for inputs in small_cases(subject):
        call = flat_output(subject.call)
        plain = detached(inputs)
        count = len(call(*plain))
        rows = zip(*(jacobian_row(call, inputs, r, count) for r in range(count)), strict=True)
        expected = [torch.stack(g) for g in rows]
        given = torch.func.jacrev(call, argnums=positions_requiring_grad(inputs))(*plain)
        findings.compare("Jacobian", given, expected, inputs, "with torch.func.jacrev")
        leaves = new_leaves(inputs)
        output = call(*leaves)
        directions = torch.eye(count, dtype=output.dtype, device=output.device)
        at_once = torch.autograd.grad(
            output,
            requiring_grad(leaves),
            directions,
            is_grads_batched=True,
            allow_unused=True,
            materialize_grads=True,
        )
        findings.compare("Jacobian", at_once, expected, inputs, "with is_grads_batched")


@is_property(
    cause="The second order is wrong or lost under torch.func.",
    fix="Write the backward in differentiable operations on what is saved.",
    needs=("value", "gradient", "incoming_gradient", "second_order", "func_grad", "jacobian"),
    refusals=(NO_SECOND_ORDER, *TRANSFORMS),
)
def hessian(subject: Subject, findings: Findings) -> None:
    """The Hessian of the weighted sum of the outputs, by two reverse passes of torch.func."""
    for inputs in small_cases(subject):
        weights = subject.grad_outputs(outputs_of(subject.call, inputs))
        plain, argnums = detached(inputs), positions_requiring_grad(inputs)

        def of(call: Call, weights: Sequence[Tensor] = weights, argnums: tuple[int, ...] = argnums) -> Call:
            return torch.func.jacrev(torch.func.grad(scalar_of(call, weights), argnums=argnums), argnums=argnums)

        given = [block for blocks in of(subject.call)(*plain) for block in blocks]
        if subject.has_reference:
            expected = [block for blocks in of(subject.reference)(*plain) for block in blocks]
        else:
            expected = numerical_hessian(subject.call, inputs, weights)
        findings.compare("block", given, expected, inputs, is_numerical=not subject.has_reference)


def numerical_hessian(call: Call, inputs: Inputs, weights: Sequence[Tensor]) -> list[Tensor]:
    """The blocks of the Hessian, by central differences of the gradients."""
    blocks = []
    for number, asked in enumerate(requiring_grad(inputs)):

        def element(*i: object, index: int, number: int = number) -> Tensor:
            return gradients(call, i, weights)[number].reshape(-1)[index]

        lines = [
            numerical_gradients(lambda *i, index=index: element(*i, index=index), inputs)
            for index in range(asked.numel())
        ]
        blocks += [torch.stack(g).reshape((*asked.shape, *g[0].shape)) for g in zip(*lines, strict=True)]
    return blocks


def small_cases(subject: Subject) -> list[Inputs]:
    """The inputs that are small enough for a Jacobian."""
    if any(t.is_complex() for inputs in subject.cases() for t in inputs if isinstance(t, Tensor)):
        raise NotApplicable("torch.func computes Jacobians of real numbers only")
    cases = [inputs for inputs in subject.cases() if count_elements(inputs) <= MOST_ELEMENTS]
    if not cases:
        raise NotApplicable(f"the inputs have more than {MOST_ELEMENTS} elements: make smaller ones")
    return cases


def flat_output(call: Call) -> Call:
    """All outputs in one vector."""
    return lambda *inputs: torch.cat([t.reshape(-1) for t in outputs_of(call, inputs)])


def jacobian_row(call: Call, inputs: Inputs, number: int, count: int) -> list[Tensor]:
    """The gradients of one of the `count` elements of the output."""
    output = call(*inputs)
    direction = torch.zeros(count, dtype=output.dtype, device=output.device)
    direction[number] = 1
    return gradients(call, inputs, [direction])
