"""Check the chosen properties one after the other, and make the report."""

import dataclasses
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torchnn._torch import function_of
from torchnn.check import properties
from torchnn.check.autograd_functions import function_nodes
from torchnn.check.findings import PROPERTIES, Findings, Property
from torchnn.check.gradients import MOST_NUMERICAL, Inputs, NotApplicable, outputs_of, requiring_grad
from torchnn.check.refusals import NO_VMAP, error_line, refusal
from torchnn.check.report import FAIL, NOT_APPLICABLE, PASS, Report, Row
from torchnn.check.subject import Subject, WrongUseError

Progress = Callable[[str], None]
FEW_ROWS = (1, 2)
EVERYTHING = "everything"  # the key in `failed` when no other property can be judged
REQUIRED = ("runs", "raw_gradients", "determinism")  # checked first, whatever was chosen

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
    """Check a hand-written backward: its gradients, and everything else that autograd and torch.func expect of it.

    Args:
        fn: a `torch.autograd.Function`, a function of tensors, a module (its parameters follow its inputs), or a
            `torch.library.custom_op`.
        reference: the same function in plain torch operations; None to compare with central differences in float64.
        make_inputs: called as `make_inputs(dtype=…, device=…, generator=…)` with a generator on the CPU. It returns the
            tensors of one call as a tuple, or a list of such tuples for several calls. Small inputs whose sizes all
            differ find most mistakes.
        quick: leave out torch.compile, export, ONNX, two processes, time and memory, and use the first call only.
        only: names of the properties to check.
        skip: names of properties to leave out.
        device: where the inputs are made.
        seed: of the inputs.
        progress: called with the name of each property before it is checked.

    Returns:
        A report; print it, show it in a notebook, or read `report.ok`, `report.failures` and `report.rows`.

    Raises:
        WrongUseError: a property is unknown, the inputs cannot be made, or the reference does not run on them.

    >>> def inputs(dtype, device, generator):
    ...     return (torch.randn(5, 4, dtype=dtype, device=device, generator=generator),)
    >>> report = check_backward(torch.sigmoid, lambda z: 1 / (1 + torch.exp(-z)), inputs, only=["value", "gradient"])
    >>> report.ok, [row.property for row in report.rows]
    (True, ['value', 'gradient'])
    """
    if make_inputs is None:
        raise WrongUseError("make_inputs is missing: pass a function of dtype, device and generator.")
    chosen = chosen_properties(only, skip, quick)
    subject = Subject(fn, reference, make_inputs, device=device, seed=seed, quick=quick)
    start = time.perf_counter()
    report = Report(subject=subject.name, seed=seed)
    with restored_state(device):
        check_inputs(subject)
        failed: dict[str, str] = {}  # each property that fails or is not judged, with the failing one behind it
        rows = []
        for prop in with_requirements(chosen):
            progress(prop.name)
            rows.append(check_property(prop, subject, failed))
    names = {prop.name for prop in chosen}
    names |= {failed[name] for name in names if name in failed}  # show why a chosen one was not judged
    report.rows = [row for row in rows if row.property in names]
    report.seconds = time.perf_counter() - start
    return report


def assert_backward(fn: Any, *args: Any, **options: Any) -> Report:
    """`check_backward` for a test suite: raises AssertionError with the failing rows.

    >>> def inputs(dtype, device, generator):
    ...     return (torch.randn(5, 4, dtype=dtype, device=device, generator=generator),)
    >>> assert_backward(torch.sigmoid, None, inputs, only=["gradient"]).ok
    True
    """
    report = check_backward(fn, *args, **options)
    if not report.ok:
        failing = [row for row in report.rows if row.status == FAIL]
        raise AssertionError(str(dataclasses.replace(report, rows=failing)))
    return report


def chosen_properties(only: Iterable[str] | None, skip: Iterable[str] | None, quick: bool) -> list[Property]:
    """The properties to check, in the order of the registry."""
    only, skip = (None if names is None else list(names) for names in (only, skip))
    if only == []:
        raise WrongUseError("the argument only is empty, so nothing would be checked: leave it out or name a property.")
    for argument, names in (("only", only), ("skip", skip)):
        for name in names or ():
            if name not in PROPERTIES:
                raise WrongUseError(
                    f"{argument} contains {name!r}, which is not a property: choose from {', '.join(PROPERTIES)}."
                )
    if only is not None:
        return [p for p in PROPERTIES.values() if p.name in only and p.name not in (skip or ())]
    return [p for p in PROPERTIES.values() if p.name not in (skip or ()) and not (quick and p.is_slow)]


def with_requirements(chosen: list[Property]) -> list[Property]:
    """The chosen properties and those that they need, in the order of the registry."""
    names = {*REQUIRED, *(p.name for p in chosen)}
    for prop in reversed(PROPERTIES.values()):
        if prop.name in names:
            names.update(prop.needs)
    return [p for p in PROPERTIES.values() if p.name in names]


def check_inputs(subject: Subject) -> None:
    """Raise WrongUseError unless inputs can be made and the reference runs on them."""
    for inputs in subject.cases():
        if not subject.has_reference:
            check_size(inputs)
            continue
        try:
            reference_outputs = outputs_of(subject.reference, inputs)
        except Exception as error:
            raise WrongUseError(
                f"the reference does not run on the inputs ({type(error).__name__}: {error_line(error)})."
            ) from error
        if subject.call is subject.reference or shares_function(subject, inputs, reference_outputs):
            raise WrongUseError(
                "the reference uses the same Function as the target, so comparing them proves nothing: write it in "
                "plain torch operations, or leave it out to compare with central differences."
            )


def check_size(inputs: Inputs) -> None:
    """Raise WrongUseError if central differences would take too long."""
    if (count := sum(t.numel() for t in requiring_grad(inputs))) > MOST_NUMERICAL:
        raise WrongUseError(
            f"without a reference the gradient is compared with central differences, which are limited to "
            f"{MOST_NUMERICAL:,} elements, and the inputs have {count:,}: make smaller inputs or give a reference."
        )


def shares_function(subject: Subject, inputs: Inputs, reference_outputs: Sequence[Tensor]) -> bool:
    """Whether the graph of the reference contains a Function of the subject."""
    try:
        outputs = outputs_of(subject.call, inputs)
    except Exception:  # the property `runs` reports that the subject does not run
        return False
    return any(
        function_of(a) is function_of(b) for a in function_nodes(outputs) for b in function_nodes(reference_outputs)
    )


def check_property(prop: Property, subject: Subject, failed: dict[str, str]) -> Row:
    """Check one property, unless one that it needs has failed; record in `failed` if it fails or is not judged."""
    if before := [name for name in (EVERYTHING, *prop.needs) if name in failed]:
        failed[prop.name] = failed[before[0]]
        return not_applicable(prop, f"not judged, because {failed[prop.name]} fails")
    findings = Findings(subject)
    try:
        prop.check(subject, findings)
    except WrongUseError:
        raise
    except NotApplicable as why:
        return not_applicable(prop, str(why))
    except Exception as error:
        if reason := refusal(f"{type(error).__name__}: {error}", prop.refusals):
            return not_applicable(prop, reason)
        if NO_VMAP in prop.refusals and not function_nodes(outputs_of(subject.call, subject.cases()[0])):
            return not_applicable(prop, f"torch refuses it for its own operations ({error_line(error)})")
        findings.fail(f"it raises {type(error).__name__}: {error_line(error)}")
    if findings.failures:
        failed[prop.name] = prop.name
        if findings.is_fatal or prop.name in ("runs", "determinism"):
            failed[EVERYTHING] = prop.name
    return row_from(prop, findings, subject)


def not_applicable(prop: Property, reason: str) -> Row:
    """A row for a property that is not judged."""
    return Row(property=prop.name, status=NOT_APPLICABLE, message=reason)


def row_from(prop: Property, findings: Findings, subject: Subject) -> Row:
    """The row for what a check has found."""
    worst = findings.worst
    if findings.failures:
        smallest = on_fewer_rows(prop, subject, findings)
        worst = smallest.worst or worst
        failure = smallest.smallest_failure
        message = f"{failure.message}, for {failure.inputs}." if failure.inputs else f"{failure.message}."
        status, cause, fix = FAIL, prop.cause, prop.fix
    else:
        message = "; ".join(findings.notes)
        status, cause, fix = PASS if prop.is_judged else NOT_APPLICABLE, "", ""
    return Row(
        property=prop.name,
        status=status,
        worst_ulp=worst.ulp if worst else None,
        worst_relative=worst.relative if worst else None,
        message=message,
        cause=cause,
        fix=fix,
    )


def on_fewer_rows(prop: Property, subject: Subject, found: Findings) -> Findings:
    """The findings on inputs with one or two rows, if they show the same failure: small inputs are easier to read."""
    for count in FEW_ROWS if not prop.is_slow else ():
        smaller = Findings(subject.with_rows(count))
        try:
            prop.check(smaller.subject, smaller)
        except Exception:  # another mistake than the one to be shown
            continue
        if smaller.failures and kind_of(smaller) == kind_of(found):
            return smaller
    return found


def kind_of(findings: Findings) -> str:
    """The smallest failure without its numbers."""
    return re.split(r" \(", findings.smallest_failure.message)[0]


@contextmanager
def restored_state(device: str) -> Iterator[None]:
    """Restore random states, warning filters and the gradient mode after the check."""
    devices = [device] if torch.device(device).type == "cuda" else []
    with warnings.catch_warnings(), torch.enable_grad(), torch.random.fork_rng(devices):
        warnings.simplefilter("ignore")
        yield
