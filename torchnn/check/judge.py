"""How far a result may be from what it should be, and what a wrong one looks like.

Tensors are judged by norm. In float64 the difference may be 1e-9 of the norm. Where the dtype is the subject, the error
against float64 may be four times the reference's own in that dtype, and a few units in the last place (ulp) of the
largest element: a result is not wrong because it is rounded. NaN or infinity where it should be finite is always wrong.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RELATIVE = 1e-9  # of the norm in float64; torch's own second order of the clamped loss is 1e-10 away
RELATIVE_NUMERICAL = 1e-6  # where central differences are all that there is to compare with
TIMES_REFERENCE = 4.0
ULPS = 4.0
NEAR_ZERO = 1e-3  # of the scale: sums of large terms that cancel


@dataclass(frozen=True)
class Error:
    """How far a tensor is from what it should be.

    Attributes:
        ulp: the largest difference, in units in the last place of the largest element, or of the scale.
        relative: norm of the difference by norm of what it should be, or by the scale where that is larger.
        is_allowed: whether that is near enough.
        looks_like: what the wrong tensor has to do with the right one, or "".
    """

    ulp: float
    relative: float
    is_allowed: bool
    looks_like: str = ""


EXACT = Error(0.0, 0.0, True)


def judge(
    given: Tensor,
    expected: Tensor,
    dtype: torch.dtype | None = None,
    scale: float = 0.0,
    relative: float = RELATIVE,
    error_of_reference: float | None = None,
) -> Error:
    """Compare a tensor with what it should be.

    Args:
        given: what the subject gave.
        expected: what it should be; in float64 where `error_of_reference` is given.
        dtype: whose last place is meant; that of `given` if None.
        scale: size of the numbers that met in the call; a result may be a sum of such and come out near zero.
        relative: of the norm of `expected`, how much is allowed.
        error_of_reference: norm of the reference's own error in `dtype`; None to allow `relative` instead.
    """
    if given.shape != expected.shape:
        return Error(math.inf, math.inf, False, f"its shape is {tuple(given.shape)} for {tuple(expected.shape)}")
    if given.numel() == 0:
        return EXACT
    eps = torch.finfo(dtype or given.dtype).eps
    given, expected = widest(given), widest(expected)
    finite = expected.isfinite()
    if not bool(given[finite].isfinite().all()):
        return Error(math.inf, math.inf, False, "NaN or infinity where it should be a number")
    right, difference = expected[finite], (given - expected)[finite]
    if right.numel() == 0:
        return EXACT
    largest, norm, off = float(right.abs().max()), float(right.norm()), float(difference.norm())
    if off == 0:
        return EXACT
    size = max(largest, scale)
    in_ulp = float(difference.abs().max()) / (eps * size) if size else math.inf
    last_places = ULPS * eps * math.sqrt(right.numel()) * size
    if error_of_reference is None:
        allowed = relative * (norm + NEAR_ZERO * scale) + last_places
    else:
        allowed = TIMES_REFERENCE * error_of_reference + last_places
    is_allowed = off <= allowed
    in_norm = off / max(norm, scale) if size else math.inf
    return Error(in_ulp, in_norm, is_allowed, "" if is_allowed else likeness(given, expected))


def likeness(given: Tensor, expected: Tensor) -> str:
    """What a wrong tensor has to do with the right one."""
    if not given.any():
        return "it is zero"
    if given.dim() == 2 and given.shape[0] == given.shape[1] and torch.allclose(given.T, expected, rtol=1e-5):
        return "it is the transpose of the right one"
    there = expected.abs() > 1e-6 * expected.abs().max()
    if bool(there.any()):
        ratios = (given[there] / expected[there]).real
        ratio = float(ratios.median())
        if bool((ratios - ratio).abs().max() < 1e-7 * max(1.0, abs(ratio))):
            return f"every element is {ratio:.6g} times the right one"
    return ""


def widest(t: Tensor) -> Tensor:
    """In float64, or in its complex or unchanged where it is no floating-point number."""
    t = t.detach().resolve_conj()
    return t.to(torch.complex128 if t.is_complex() else torch.float64)
