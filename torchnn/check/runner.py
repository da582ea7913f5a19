"""Checking: one property after the other, and what became of it."""

import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torchnn.check import properties
from torchnn.check.findings import PROPERTIES, Findings, Property
from torchnn.check.nodes import functions
from torchnn.check.refusals import NO_VMAP, first_line, refusal
from torchnn.check.report import FAIL, NOT_APPLICABLE, PASS, Report, Row
from torchnn.check.subject import Subject, WrongUseError
from torchnn.check.tensors import MOST_NUMERICAL, Inputs, NotApplicable, outputs_of, wanted

Progress = Callable[[str], None]
FEW_ROWS = (1, 2)
EVERYTHING = "everything"  # that cannot be judged
FIRST = ("runs", "raw_gradients", "determinism")  # what all others need, the second only where the engine refuses it

assert PROPERTIES, properties.__doc__  # importing them fills the registry


def check_backward(
    fn: Any,
    reference: Any = None,
    make_inputs: Callable[..., Any] | None = None,
    quick: bool = False,
    only: Iterable[str] | None = None,
    skip: Iterable[str] | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: Progress = lambda name: None,
) -> Report:
    """Find out whether a hand-written backward is right in every way that matters.

    Args:
        fn: a `torch.autograd.Function`, a function of tensors, a module (its parameters follow its inputs), or a
            `torch.library.custom_op`.
        reference: the same in plain torch operations; None for central differences in float64.
        make_inputs: `make_inputs(dtype, device, generator)`, which gives the tensors of one call as a tuple, or a list
            of such. Arguments go by name; the generator is the CPU's. Small inputs, their sizes all different, find
            most.
        quick: leave out torch.compile, export, ONNX, two processes, time and memory, and take the first call only.
        only: names of the properties to check.
        skip: names of properties to leave out.
        device: where the inputs are made.
        seed: of the inputs.
        progress: told the name of each property before it is checked.

    Returns:
        A report, true to `print` and to a notebook; `report.ok`, `report.failures`, `report.rows`.

    Raises:
        WrongUseError: an unknown property, no inputs, or a reference that cannot run on them.

    >>> def inputs(dtype, device, generator):
    ...     return (torch.randn(5, 4, dtype=dtype, device=device, generator=generator),)
    >>> report = check_backward(torch.sigmoid, lambda z: 1 / (1 + torch.exp(-z)), inputs, only=["value", "gradient"])
    >>> report.ok, [row.property for row in report.rows]
    (True, ['value', 'gradient'])
    """
    if make_inputs is None:
        raise WrongUseError("make_inputs is missing: give a function of dtype, device and generator.")
    chosen = chosen_properties(only, skip, quick)
    subject = Subject(fn, reference, make_inputs, device, seed, quick)
    start = time.perf_counter()
    report = Report(subject.name, seed=seed)
    with as_it_was(device):
        check_inputs(subject)
        failed: dict[str, str] = {}  # what fails or is not judged, with what fails
        rows = []
        for prop in needed_first(chosen):
            progress(prop.name)
            rows.append(row_of(prop, subject, failed))
    names = {prop.name for prop in chosen}
    names |= {failed[name] for name in names if name in failed}  # what keeps a chosen one from being judged
    report.rows = [row for row in rows if row.property in names]
    report.seconds = time.perf_counter() - start
    return report


def assert_backward(fn: Any, *args: Any, **options: Any) -> Report:
    """`check_backward` for a test suite: AssertionError with the table of what fails.

    >>> def inputs(dtype, device, generator):
    ...     return (torch.randn(5, 4, dtype=dtype, device=device, generator=generator),)
    >>> assert_backward(torch.sigmoid, None, inputs, only=["gradient"]).ok
    True
    """
    report = check_backward(fn, *args, **options)
    if not report.ok:
        failing = [row for row in report.rows if row.status == FAIL]
        raise AssertionError(str(Report(report.subject, failing, report.seed, report.seconds)))
    return report


def chosen_properties(only: Iterable[str] | None, skip: Iterable[str] | None, quick: bool) -> list[Property]:
    only, skip = (None if names is None else list(names) for names in (only, skip))
    if only == []:
        raise WrongUseError("only names no property: nothing would be checked.")
    for argument, names in (("only", only), ("skip", skip)):
        for name in names or ():
            if name not in PROPERTIES:
                raise WrongUseError(
                    f"{argument} names {name!r}, which is no property: choose of {', '.join(PROPERTIES)}."
                )
    if only is not None:
        return [p for p in PROPERTIES.values() if p.name in only and p.name not in (skip or ())]
    return [p for p in PROPERTIES.values() if p.name not in (skip or ()) and not (quick and p.is_slow)]


def needed_first(chosen: list[Property]) -> list[Property]:
    """The chosen, and what a verdict on them depends on, in the order of the registry."""
    names = {*FIRST, *(p.name for p in chosen)}
    for prop in reversed(PROPERTIES.values()):
        if prop.name in names:
            names.update(prop.needs)
    return [p for p in PROPERTIES.values() if p.name in names]


def check_inputs(subject: Subject) -> None:
    """Inputs can be made, and the reference runs on them."""
    for inputs in subject.cases():
        if not subject.has_reference:
            check_size(inputs)
            continue
        try:
            theirs = outputs_of(subject.reference, inputs)
        except Exception as error:
            raise WrongUseError(
                f"the reference cannot run on the inputs ({type(error).__name__}: {first_line(error)})."
            ) from error
        if subject.call is subject.reference or made_by_the_same(subject, inputs, theirs):
            raise WrongUseError(
                "the reference has the backward that is to be checked: give plain torch operations, or no reference "
                "for central differences."
            )


def check_size(inputs: Inputs) -> None:
    if (count := sum(t.numel() for t in wanted(inputs))) > MOST_NUMERICAL:
        raise WrongUseError(
            f"without a reference it takes central differences, and {count:,} elements are more than "
            f"{MOST_NUMERICAL:,}: give smaller inputs or a reference."
        )


def made_by_the_same(subject: Subject, inputs: Inputs, theirs: Sequence[Tensor]) -> bool:
    """Whether a Function of the subject is in the graph of the reference too."""
    try:
        ours = outputs_of(subject.call, inputs)
    except Exception:  # that it does not run is a finding, not a matter of use
        return False
    return any(a._forward_cls is b._forward_cls for a in functions(ours) for b in functions(theirs))


def row_of(prop: Property, subject: Subject, failed: dict[str, str]) -> Row:
    """Check one property, and note in `failed` if others cannot be judged without it."""
    if before := [name for name in (EVERYTHING, *prop.needs) if name in failed]:
        failed[prop.name] = failed[before[0]]
        return Row(prop.name, NOT_APPLICABLE, message=f"not judged while {failed[prop.name]} fails")
    findings = Findings(subject)
    try:
        prop.check(subject, findings)
    except WrongUseError:
        raise
    except NotApplicable as why:
        return Row(prop.name, NOT_APPLICABLE, message=str(why))
    except Exception as error:
        if reason := refusal(f"{type(error).__name__}: {error}", prop.refusals):
            return Row(prop.name, NOT_APPLICABLE, message=reason)
        if NO_VMAP in prop.refusals and not functions(outputs_of(subject.call, subject.cases()[0])):
            return Row(prop.name, NOT_APPLICABLE, message=f"torch's own operations refuse it ({first_line(error)})")
        findings.fail(f"it raises {type(error).__name__}: {first_line(error)}")
    ulp, relative = (findings.worst.ulp, findings.worst.relative) if findings.worst else (None, None)
    if findings.failures:
        failed[prop.name] = prop.name
        if findings.stops or prop.name in ("runs", "determinism"):
            failed[EVERYTHING] = prop.name
        findings = on_fewer_rows(prop, subject, findings)
        if findings.worst:
            ulp, relative = findings.worst.ulp, findings.worst.relative
        return Row(prop.name, FAIL, ulp, relative, findings.smallest_failure, prop.cause, prop.mend)
    status = PASS if prop.is_judged else NOT_APPLICABLE
    return Row(prop.name, status, ulp, relative, "; ".join(findings.notes))


def on_fewer_rows(prop: Property, subject: Subject, found: Findings) -> Findings:
    """What fails on fewer rows, if something does: the smallest inputs tell most."""
    for count in FEW_ROWS if not prop.is_slow else ():
        smaller = Findings(subject.with_rows(count))
        try:
            prop.check(smaller.subject, smaller)
        except Exception:  # a failure of another kind is no smaller form of this one
            continue
        if smaller.failures and kind_of(smaller) == kind_of(found):
            return smaller
    return found


def kind_of(findings: Findings) -> str:
    """The smallest failure without its inputs and numbers."""
    return re.split(r" \(|, on ", findings.smallest_failure)[0]


@contextmanager
def as_it_was(device: str) -> Iterator[None]:
    """Whatever the check does, random states, warnings and the mode of autograd are left as they were."""
    devices = [device] if torch.device(device).type == "cuda" else []
    with warnings.catch_warnings(), torch.enable_grad(), torch.random.fork_rng(devices):
        warnings.simplefilter("ignore")
        yield
