"""Gradient descent in pictures: the loss by step, and a map of the output over two inputs."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from contourpy import contour_generator
from markupsafe import Markup
from torch import Tensor

from torchnn.explain.records import Descent, Trace
from torchnn.explain.render.numbers import short

BANDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MAP_SIDE = 380
MAX_POINTS = 400
NEW_POLYGON, CLOSE_POLYGON = 1, 79  # codes of contourpy


class LossCurve:
    """J by step: the geometry of the curve and of the mark that the slider moves.

    Attributes:
        last: the last step.
        top: the largest value on the vertical axis.
    """

    width, height, left, bottom, right = 520, 310, 54, 260, 506
    _upper = 14

    def __init__(self, descent: Descent) -> None:
        self.descent = descent
        self.last = len(descent.losses) - 1
        self.top = round_up(max([*filter(math.isfinite, descent.losses), 1e-12]))

    def x(self, step: int) -> float:
        return self.left + (self.right - self.left) * step / max(self.last, 1)

    def y(self, value: float) -> float:
        """The height of a loss. One that is not finite is drawn at the top."""
        drawn = min(value, self.top) if math.isfinite(value) else self.top
        return self.bottom - (self.bottom - self._upper) * drawn / self.top

    @property
    def points(self) -> str:
        """The curve as the points of an SVG polyline."""
        every = max(1, (self.last + MAX_POINTS) // MAX_POINTS)
        return " ".join(
            f"{self.x(step):.1f},{self.y(value):.1f}"
            for step, value in enumerate(self.descent.losses)
            if (step % every == 0 or step == self.last) and math.isfinite(value)
        )

    def frames(self) -> list[dict[str, Any]]:
        """What the slider shows: a step, its loss, the place of the mark, and the map."""
        return [
            {
                "step": frame.step,
                "loss": short(frame.loss),
                "x": round(self.x(frame.step), 1),
                "y": round(self.y(frame.loss), 1),
                "surface": None if frame.surface is None else bands(frame.surface),
            }
            for frame in self.descent.frames
        ]


def round_up(value: float) -> float:
    """A round number that is equal or slightly larger."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(times * power for times in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if times * power >= value)


def points_on_map(trace: Trace) -> Iterator[tuple[float, float, float, float, float]]:
    """Each example: its two inputs, its place on the map, its target."""
    assert trace.descent is not None
    assert trace.descent.horizontal is not None
    assert trace.descent.vertical is not None
    for (x1, x2), target in zip(trace.x.tolist(), trace.y[:, 0].tolist(), strict=True):
        yield x1, x2, _place(x1, trace.descent.horizontal), MAP_SIDE - _place(x2, trace.descent.vertical), target


def _place(value: float, axis: Tensor) -> float:
    low, high = float(axis[0]), float(axis[-1])
    return MAP_SIDE * (value - low) / (high - low)


def bands(surface: Tensor) -> Markup:
    """The map of an output as SVG paths: bands of a tenth, and the boundary at one half."""
    values = surface.clamp(0, 1).nan_to_num(0.5).numpy()
    axis = [MAP_SIDE * number / (len(values) - 1) for number in range(len(values))]
    contours: Any = contour_generator(axis, axis[::-1], values, fill_type="OuterCode")
    paths = Markup()
    for number, (low, high) in enumerate(pairwise(BANDS)):
        # A little wider at both ends, so that outputs of exactly 0 and 1 are inside.
        polygons, codes = contours.filled(low - 1e-9 if low == 0 else low, high + 1e-9 if high == 1 else high)
        data = "".join(_path_data(points, code) for points, code in zip(polygons, codes, strict=True))
        if data:
            paths += Markup("<path class=band{} d='{}'/>").format(number, data)
    line = "".join(_path_data(points, None) for points in contours.lines(0.5))
    return paths + Markup("<path class=boundary d='{}'/>").format(line) if line else paths


def _path_data(points: Any, codes: Any) -> str:
    """A polygon with holes, or a line if `codes` is None, as the data of an SVG path."""
    data = []
    for number, (x, y) in enumerate(points.tolist()):
        starts = number == 0 if codes is None else codes[number] == NEW_POLYGON
        closes = codes is not None and codes[number] == CLOSE_POLYGON
        data.append("Z" if closes else f"{'M' if starts else 'L'}{x:.1f} {y:.1f}")
    return "".join(data)
