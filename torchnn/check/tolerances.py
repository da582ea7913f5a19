"""How far a result may be from the expected one, and how a wrong result is described.

Tensors are compared by norm. In float64 the difference may be 1e-9 of the norm. Where rounding in another dtype is the
question, the error against float64 may be four times the reference's own error in that dtype, plus a few units in the
last place (ulp) of the largest element: a result is not wrong because it is rounded. NaN or infinity where the expected
number is finite is always wrong.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RELATIVE = 1e-9  # of the norm in float64; torch's own second order of the clamped loss is 1e-10 away
RELATIVE_NUMERICAL = 1e-6  # where only central differences are there to compare with
TIMES_REFERENCE = 4.0
ULPS = 4.0
NEAR_ZERO = 1e-3  # of the scale, for sums of large terms that cancel


@dataclass(frozen=True, kw_only=True)
class Error:
    """How far a tensor is from the expected one.

    Attributes:
        ulp: the largest difference, in units in the last place of the largest element (or of the scale).
        relative: norm of the difference, divided by the norm of the expected tensor (or by the scale if it is larger).
        is_allowed: whether the error is within the tolerance.
        looks_like: for a wrong tensor, how it is related to the right one, if that is simple; otherwise "".
    """

    ulp: float
    relative: float
    is_allowed: bool
    looks_like: str = ""


NO_ERROR = Error(ulp=0.0, relative=0.0, is_allowed=True)


def measure_error(
    given: Tensor,
    expected: Tensor,
    dtype: torch.dtype | None = None,
    scale: float = 0.0,
    relative: float = RELATIVE,
    error_of_reference: float | None = None,
) -> Error:
    """Compare a tensor with the expected one.

    Args:
        given: the result to judge.
        expected: what it should be; in float64 if `error_of_reference` is given.
        dtype: the dtype whose units in the last place count; None for that of `given`.
        scale: size of the numbers in the call. A result may be a sum of such numbers that comes out near zero.
        relative: the allowed difference, as a part of the norm of `expected`.
        error_of_reference: norm of the reference's own error in `dtype`. If given, `relative` is not used.
    """
    if given.shape != expected.shape:
        return never_allowed(f"its shape is {tuple(given.shape)} and should be {tuple(expected.shape)}")
    if given.numel() == 0:
        return NO_ERROR
    eps = torch.finfo(dtype or given.dtype).eps
    given, expected = to_widest(given), to_widest(expected)
    finite = expected.isfinite()
    if not bool(given[finite].isfinite().all()):
        return never_allowed("it is NaN or infinite where the right one is finite")
    right, difference = expected[finite], (given - expected)[finite]
    if right.numel() == 0:
        return NO_ERROR
    largest, norm, off = float(right.abs().max()), float(right.norm()), float(difference.norm())
    if off == 0:
        return NO_ERROR
    size = max(largest, scale)
    rounding = ULPS * eps * math.sqrt(right.numel()) * size
    if error_of_reference is None:
        allowed = relative * (norm + NEAR_ZERO * scale) + rounding
    else:
        allowed = TIMES_REFERENCE * error_of_reference + rounding
    return Error(
        ulp=float(difference.abs().max()) / (eps * size) if size else math.inf,
        relative=off / max(norm, scale) if size else math.inf,
        is_allowed=off <= allowed,
        looks_like="" if off <= allowed else describe_mistake(given, expected),
    )


def never_allowed(reason: str) -> Error:
    """The error of a tensor that is wrong whatever the tolerance."""
    return Error(ulp=math.inf, relative=math.inf, is_allowed=False, looks_like=reason)


def describe_mistake(given: Tensor, expected: Tensor) -> str:
    """How a wrong tensor is related to the right one, or "" if there is no simple relation."""
    if not given.any():
        return "it is zero"
    if given.dim() == 2 and given.shape[0] == given.shape[1] and torch.allclose(given.T, expected, rtol=1e-5):
        return "it is the transpose of the right one"
    nonzero = expected.abs() > 1e-6 * expected.abs().max()
    if bool(nonzero.any()):
        ratios = (given[nonzero] / expected[nonzero]).real
        ratio = float(ratios.median())
        if bool((ratios - ratio).abs().max() < 1e-7 * max(1.0, abs(ratio))):
            return f"every element is {ratio:.6g} times the right one"
    return ""


def to_widest(t: Tensor) -> Tensor:
    """The tensor in float64, or in complex128 if it is complex."""
    t = t.detach().resolve_conj()
    return t.to(torch.complex128 if t.is_complex() else torch.float64)
