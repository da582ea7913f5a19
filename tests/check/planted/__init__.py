"""Planted errors: wrong backwards, each with one mistake that people make, and the properties in which it must fail."""

from tests.check.planted import autograd, formulas, transforms
from tests.check.planted.register import PLANTED, Planted, Square, apply, square

__all__ = ["PLANTED", "Planted", "Square", "apply", "autograd", "formulas", "square", "transforms"]
