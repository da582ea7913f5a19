"""The results of checking one property, and the registry of all properties."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchnn.check.gradients import Inputs, count_elements, describe
from torchnn.check.refusals import Refusal
from torchnn.check.subject import Subject
from torchnn.check.tolerances import RELATIVE, RELATIVE_NUMERICAL, Error, measure_error, to_widest

WITHOUT_REFERENCE = (
    16.0  # allowed error in units in the last place of the norm, where no reference shows what is possible
)


class Failure(NamedTuple):
    """Something wrong, and the number of elements of the inputs that show it."""

    size: int
    message: str
    inputs: str


class Findings:
    """What the check of one property found: failures, notes, and the largest error.

    Attributes:
        worst: the largest error met, allowed or not; None if nothing was compared.
        failures: what is wrong.
        notes: worth reporting, but not wrong.
        is_fatal: no other property can be judged, because autograd refuses every backward of the subject.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.worst: Error | None = None
        self.failures: list[Failure] = []
        self.notes: list[str] = []
        self.is_fatal = False
        self._sizes: dict[tuple[int, ...], tuple[Inputs, list[tuple[torch.Size, float]]]] = {}

    def fail(self, message: str, inputs: Inputs = (), is_fatal: bool = False) -> None:
        """Add a failure on these inputs."""
        self.is_fatal |= is_fatal
        described = describe(inputs) if inputs else ""
        self.failures.append(Failure(size=count_elements(inputs), message=message.rstrip("."), inputs=described))

    def note(self, message: str) -> None:
        """Add a note, once."""
        if message not in self.notes:
            self.notes.append(message)

    def compare(
        self,
        what: str,
        given: Sequence[Tensor],
        expected: Sequence[Tensor],
        inputs: Inputs,
        when: str = "",
        is_numerical: bool = False,
    ) -> bool:
        """Compare tensors in float64, and add a failure for each that is wrong.

        Args:
            what: a noun for one of the tensors, such as "gradient".
            given: the results of the subject.
            expected: what they should be.
            inputs: of the call.
            when: under which condition, such as "under autocast"; "" for none.
            is_numerical: `expected` comes from central differences.
        """
        relative = RELATIVE_NUMERICAL if is_numerical else RELATIVE
        pairs = zip(given, expected, strict=True)
        errors = [measure_error(a, b, b.dtype, self._scale(b, inputs), relative) for a, b in pairs]
        return self._record(what, errors, inputs, when)

    def _scale(self, expected: Tensor, inputs: Inputs) -> float:
        """The usual size of such a result. A result that is exactly zero, as a softmax's gradient from ones, is rounded
        relative to this size.

        This is the largest element of the outputs and gradients of the same shape, or of all of them if none has this
        shape (as for gradients of gradients).
        """
        key = tuple(map(id, inputs))
        if key not in self._sizes:
            try:
                sizes = self.subject.sizes(inputs)
            except Exception:  # another property reports that the reference does not run on these inputs
                sizes = []
            self._sizes[key] = inputs, sizes  # keeps the inputs alive, so that no other object gets their id
        sizes = self._sizes[key][1]
        same_shape = [size for shape, size in sizes if shape == expected.shape]
        return max(same_shape or [size for _, size in sizes], default=0.0)

    def compare_rounded(
        self,
        what: str,
        given: Sequence[Tensor],
        of_reference: Sequence[Tensor] | None,
        truth: Sequence[Tensor],
        dtype: torch.dtype,
        inputs: Inputs,
        when: str = "",
    ) -> bool:
        """Compare tensors in `dtype` with the truth in float64, allowing for the reference's own error in `dtype`.

        Args:
            what: a noun for one of the tensors, such as "gradient".
            given: the results of the subject in `dtype`.
            of_reference: the results of the reference in `dtype`; None if there is no reference.
            truth: the results of the reference in float64.
            dtype: of the computation.
            inputs: of the call.
            when: under which condition.
        """
        errors = []
        for position, (a, t) in enumerate(zip(given, truth, strict=True)):
            theirs = None if of_reference is None else of_reference[position]
            if theirs is not None and theirs.shape == t.shape and not bool(theirs.isfinite().all()):
                t = torch.where(theirs.isfinite(), t, torch.full_like(t, torch.nan))  # not judged where it overflows
            if theirs is None:
                allowed = WITHOUT_REFERENCE * torch.finfo(dtype).eps * float(to_widest(t).norm())
            else:
                allowed = _norm_of_error(theirs, t)
            errors.append(measure_error(a, t, dtype, error_of_reference=allowed))
        return self._record(what, errors, inputs, when)

    def _record(self, what: str, errors: Sequence[Error], inputs: Inputs, when: str) -> bool:
        """Keep the largest error, and add a failure for each that is not allowed."""
        for position, error in enumerate(errors):
            if self.worst is None or error.relative > self.worst.relative:
                self.worst = error
            if not error.is_allowed:
                which = f"{what} {position + 1}" if len(errors) > 1 else f"the {what}"
                detail = error.looks_like or f"relative error {error.relative:.2g}"
                self.fail(f"{when}{', ' if when else ''}{which} is wrong ({detail})", inputs)
        return all(error.is_allowed for error in errors)

    @property
    def smallest_failure(self) -> Failure:
        """The failure on the smallest inputs."""
        return min(self.failures, key=lambda failure: failure.size)


def _norm_of_error(given: Tensor, truth: Tensor) -> float:
    if given.shape != truth.shape:
        return 0.0
    difference = to_widest(given) - to_widest(truth)
    return float(difference[difference.isfinite()].norm())


Check = Callable[[Subject, Findings], None]


@dataclass(frozen=True, kw_only=True)
class Property:
    """Something that a backward has to get right.

    Attributes:
        name: as `only` and `skip` take it.
        check: the function that checks it.
        cause: the likely cause of a failure.
        fix: what to change.
        needs: properties that have to pass first; if one fails, this one is not judged.
        is_slow: whether `quick` leaves it out.
        refusals: errors of torch which mean that the property does not apply.
        is_judged: False for figures that are only reported.
    """

    name: str
    check: Check
    cause: str
    fix: str
    needs: tuple[str, ...] = ("unmutated", "value", "gradient", "incoming_gradient")
    is_slow: bool = False
    refusals: tuple[Refusal, ...] = ()
    is_judged: bool = True


PROPERTIES: dict[str, Property] = {}


def is_property(cause: str, fix: str, **options: Any) -> Callable[[Check], Check]:
    """Register a check as a property with the name of the function."""

    def register(check: Check) -> Check:
        PROPERTIES[check.__name__] = Property(name=check.__name__, check=check, cause=cause, fix=fix, **options)
        return check

    return register
