"""What the check of one property collects, and the registry of properties."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchnn.check.judge import RELATIVE, RELATIVE_NUMERICAL, Error, judge, widest
from torchnn.check.refusals import Refusal
from torchnn.check.subject import Subject
from torchnn.check.tensors import Inputs, describe, size_of

WITHOUT_REFERENCE = 16.0  # last places of the norm that a result may be off where nothing says how exact it can be


class Findings:
    """The largest errors met, what fails, and what is worth telling although nothing does.

    Attributes:
        stops: whether nothing else can be judged, for the engine refuses every backward.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.worst: Error | None = None
        self.failures: list[tuple[int, str]] = []
        self.notes: list[str] = []
        self.stops = False
        self.sizes: dict[tuple[int, ...], tuple[Inputs, list[tuple[torch.Size, float]]]] = {}

    def fail(self, message: str, inputs: Inputs = (), stops: bool = False) -> None:
        """Something is wrong, on these inputs."""
        self.stops |= stops
        message = message.rstrip(".")
        self.failures.append((size_of(inputs), f"{message}, on {describe(inputs)}." if inputs else f"{message}."))

    def note(self, message: str) -> None:
        if message not in self.notes:
            self.notes.append(message)

    def compare(
        self,
        what: str,
        given: Sequence[Tensor],
        expected: Sequence[Tensor],
        inputs: Inputs = (),
        is_numerical: bool = False,
    ) -> bool:
        """Whether tensors in float64 are what they should be; a failure is noted."""
        relative = RELATIVE_NUMERICAL if is_numerical else RELATIVE
        pairs = zip(given, expected, strict=True)
        errors = [judge(a, b, b.dtype, self.scale(b, inputs), relative) for a, b in pairs]
        return self.record(what, errors, inputs)

    def scale(self, expected: Tensor, inputs: Inputs) -> float:
        """How large a result usually is: rounding is of that size where it is zero, as a softmax's gradient from ones.

        That of the outputs and gradients of the same shape; a gradient of gradients is compared with all of them.
        """
        key = tuple(map(id, inputs))
        if key not in self.sizes:
            try:
                sizes = self.subject.sizes(inputs) if inputs else []
            except Exception:  # a reference that does not run on these inputs is somebody else's to tell
                sizes = []
            self.sizes[key] = inputs, sizes  # kept, so that nothing else gets their identity
        sizes = self.sizes[key][1]
        alike = [size for shape, size in sizes if shape == expected.shape]
        return max(alike or [size for _, size in sizes], default=0.0)

    def compare_rounded(
        self,
        what: str,
        given: Sequence[Tensor],
        of_reference: Sequence[Tensor] | None,
        truth: Sequence[Tensor],
        dtype: torch.dtype,
        inputs: Inputs,
    ) -> bool:
        """Whether tensors are no further from float64 truth than the reference in their dtype allows."""
        errors = []
        for position, (a, t) in enumerate(zip(given, truth, strict=True)):
            theirs = None if of_reference is None else of_reference[position]
            if theirs is not None and theirs.shape == t.shape and not bool(theirs.isfinite().all()):
                t = torch.where(theirs.isfinite(), t, torch.full_like(t, torch.nan))  # not judged where it overflows
            error = WITHOUT_REFERENCE * torch.finfo(dtype).eps * float(widest(t).norm())
            if theirs is not None:
                error = _norm(theirs, t)
            errors.append(judge(a, t, dtype, error_of_reference=error))
        return self.record(what, errors, inputs)

    def record(self, what: str, errors: Sequence[Error], inputs: Inputs) -> bool:
        for position, error in enumerate(errors):
            if self.worst is None or error.relative > self.worst.relative:
                self.worst = error
            if not error.is_allowed:
                which = f"{what} {position + 1}" if len(errors) > 1 else what
                looks = f" ({error.looks_like})" if error.looks_like else f" (relative error {error.relative:.2g})"
                self.fail(which + " is wrong" + looks, inputs)
        return all(error.is_allowed for error in errors)

    @property
    def smallest_failure(self) -> str:
        return min(self.failures, key=lambda failure: failure[0])[1]


def _norm(given: Tensor, truth: Tensor) -> float:
    if given.shape != truth.shape:
        return 0.0
    difference = widest(given) - widest(truth)
    return float(difference[difference.isfinite()].norm())


Check = Callable[[Subject, Findings], None]


@dataclass(frozen=True)
class Property:
    """Something that a backward has to get right.

    Attributes:
        name: as `only` and `skip` take it.
        check: finds out.
        cause: the likely cause of a failure.
        mend: what to change.
        needs: properties without which a failure here says nothing new.
        is_slow: left out of a quick check.
        refusals: of torch's, that mean that the property does not apply.
        is_judged: False for figures that are reported only.
    """

    name: str
    check: Check
    cause: str
    mend: str
    needs: tuple[str, ...] = ("unmutated", "value", "gradient", "incoming_gradient")
    is_slow: bool = False
    refusals: tuple[Refusal, ...] = ()
    is_judged: bool = True


PROPERTIES: dict[str, Property] = {}


def is_property(cause: str, mend: str, **options: Any) -> Callable[[Check], Check]:
    """Register a check under the name of its function."""

    def register(check: Check) -> Check:
        PROPERTIES[check.__name__] = Property(check.__name__, check, cause, mend, **options)
        return check

    return register
