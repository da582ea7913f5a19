"""How numbers are written, in the terminal and on the page."""

import math
from collections.abc import Sequence

from torch import Tensor

MINUS = "−"


def short(value: float) -> str:
    """Four decimals, or scientific notation for very small and very large numbers.

    >>> short(0.5), short(-0.25), short(1.5e-7), short(12345.6)
    ('0.5', '−0.25', '1.5e−7', '1.235e4')
    """
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: f"{MINUS}∞"}.get(value, "NaN")
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}".rstrip("0").rstrip(".").replace("-", MINUS)
    return scientific(value, 3)


def tiny(value: float) -> str:
    """At most two decimals, for the inside of a circle or a cell.

    >>> tiny(0.68469), tiny(-12.3), tiny(0.000123)
    ('0.68', '−12.3', '1e−4')
    """
    if not math.isfinite(value) or value == 0:
        return short(value)
    if 0.01 <= abs(value) < 100:
        return f"{value:.2f}".replace("-", MINUS) if abs(value) < 10 else f"{value:.1f}".replace("-", MINUS)
    return scientific(value, 0)


def full(value: float) -> str:
    """Twelve digits, enough to compare two numbers. A dash for NaN."""
    if math.isnan(value):
        return "–"
    if not math.isfinite(value) or value == 0:
        return short(value)
    if 1e-4 <= abs(value) < 1e4:
        return f"{value:.12f}".replace("-", MINUS)
    return scientific(value, 11, trim=False)


def scientific(value: float, decimals: int, trim: bool = True) -> str:
    """A number in scientific notation, such as 1.5e−7."""
    digits, exponent = f"{value:.{decimals}e}".split("e")
    digits = digits.rstrip("0").rstrip(".") if trim and "." in digits else digits
    return f"{digits}e{int(exponent)}".replace("-", MINUS)


def factor(value: float) -> str:
    """A number inside a product, with brackets if it is negative."""
    return f"({short(value)})" if value < 0 else short(value)


def signed(value: float) -> str:
    """Two decimals with a sign, also for positive numbers."""
    return tiny(value) if value < 0 or value == 0 or math.isnan(value) else f"+{tiny(value)}"


def units(ulp: float) -> str:
    """A difference in units in the last place."""
    if not math.isfinite(ulp):
        return "∞ ulp"
    return "exact" if ulp == 0 else f"{ulp:.0f} ulp" if ulp < 1e6 else f"{scientific(ulp, 0)} ulp"


def relative(value: float) -> str:
    """A relative difference with two digits. A dash for NaN."""
    if math.isnan(value):
        return "–"
    return scientific(value, 1) if math.isfinite(value) and value else short(value)


def size(shape: Sequence[int]) -> str:
    """A shape, such as 3 × 2."""
    return " × ".join(map(str, shape))


def lines(value: Tensor) -> list[list[float]]:
    """The rows of a matrix as lists. A vector is one row."""
    rows: list[list[float]] = value.reshape(-1, value.shape[-1]).tolist()
    return rows


def bracketed(row: Sequence[float], max_width: int) -> str:
    """The first numbers of a row, and how many more there are."""
    shown = "  ".join(short(value) for value in row[:max_width])
    return f"[ {shown}  … {len(row) - max_width} more ]" if len(row) > max_width else f"[ {shown} ]"


def more(total: int, shown: int, noun: str) -> str:
    """How many are not shown, or an empty string if all are."""
    return f"… {total - shown} more {noun}" if total > shown else ""
