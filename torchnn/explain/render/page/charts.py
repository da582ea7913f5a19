"""The steps of gradient descent as pictures: the loss, and the surface of the output over two inputs."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from contourpy import contour_generator
from torch import Tensor

from torchnn.explain.numbers import short, tiny
from torchnn.explain.parts import Descent, Frame
from torchnn.explain.render.page.markup import escaped, shortened
from torchnn.explain.trace import Trace

WIDTH, HEIGHT, LEFT, BOTTOM, EDGE = 520, 310, 54, 50, 14
SIDE = 380
BANDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MOST_POINTS = 400


def loss_curve(descent: Descent) -> str:
    """J by step, with a mark that the slider moves."""
    finite = [value for value in descent.losses if math.isfinite(value)]
    high, last = max([*finite, 1e-12]), len(descent.losses) - 1
    top = nice_above(high)
    every = max(1, (last + MOST_POINTS) // MOST_POINTS)
    points = " ".join(
        f"{across(step, last):.1f},{down(value, top):.1f}"
        for step, value in enumerate(descent.losses)
        if (step % every == 0 or step == last) and math.isfinite(value)
    )
    ticks = "".join(
        f"<line class=grid x1='{LEFT}' x2='{WIDTH - EDGE}' y1='{down(value, top):.1f}' y2='{down(value, top):.1f}'/>"
        f"<text class=tick x='{LEFT - 8}' y='{down(value, top):.1f}' text-anchor=end>{tiny(value)}</text>"
        for value in (0, top / 2, top)
    )
    steps = "".join(
        f"<text class=tick x='{across(step, last):.1f}' y='{HEIGHT - BOTTOM + 18}' text-anchor=middle>{step}</text>"
        for step in (0, last // 2, last)
    )
    x, y = across(last, last), down(descent.losses[-1], top)
    middle, name = (LEFT + WIDTH) // 2, "loss J by step of gradient descent"
    axis = f"<text class=tick text-anchor=middle x={middle} y={HEIGHT - 10}>{name}</text>"
    label = f"Loss J by step: {short(descent.losses[0])} at first, {short(descent.losses[-1])} after {last} steps"
    return (
        f"<svg class=chart viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{label}'>{ticks}{steps}{axis}"
        f"<polyline class=curve points='{points}'/><circle id=mark class=mark cx='{x:.1f}' cy='{y:.1f}' r=6 /></svg>"
    )


def nice_above(value: float) -> float:
    """A round number that is not far above."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(times * power for times in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if times * power >= value)


def across(step: int, last: int) -> float:
    return LEFT + (WIDTH - LEFT - EDGE) * step / max(last, 1)


def down(value: float, top: float) -> float:
    drawn = min(value, top) if math.isfinite(value) else top  # above the picture
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - EDGE) * drawn / top


def surface(trace: Trace, descent: Descent, frame: Frame) -> str:
    """The output over the two inputs: bands a tenth apart, the boundary at one half, and the examples."""
    assert descent.horizontal is not None
    assert descent.vertical is not None
    points = []
    for (x1, x2), target in zip(trace.x.tolist(), trace.y[:, 0].tolist(), strict=True):
        x, y = place(x1, descent.horizontal), SIDE - place(x2, descent.vertical)
        mark = "+" if target >= 0.5 else "−"
        kind = "pos" if target >= 0.5 else "neg"
        title = f"<title>({short(x1)}, {short(x2)}), target {short(target)}</title>"
        points.append(
            f"<g class='point {kind}'>{title}<circle cx='{x:.1f}' cy='{y:.1f}' r=11 />"
            f"<text x='{x:.1f}' y='{y:.1f}'>{mark}</text></g>"
        )
    names = [shortened(name) for name in trace.columns]
    label = escaped(
        f"Output over {trace.columns[0]} (across) and {trace.columns[1]} (up); the line is where it is one half"
    )
    return (
        f"<svg class='chart surface' viewBox='-34 -8 {SIDE + 48} {SIDE + 46}' role=img aria-label='{label}'>"
        f"<g id=surface>{bands(descent, frame)}</g><rect class=frame width={SIDE} height={SIDE} />{''.join(points)}"
        f"<text class=tick x={SIDE / 2} y={SIDE + 24} text-anchor=middle>{names[0]}</text>"
        f"<text class=tick text-anchor=middle transform='translate(-14 {SIDE / 2}) rotate(-90)'>{names[1]}</text></svg>"
    )


def place(value: float, axis: Tensor) -> float:
    low, high = float(axis[0]), float(axis[-1])
    return SIDE * (value - low) / (high - low)


def bands(descent: Descent, frame: Frame) -> str:
    """The paths of one surface, inside the picture of `surface`."""
    assert frame.surface is not None
    values = frame.surface.clamp(0, 1).nan_to_num(0.5).numpy()
    axis = [SIDE * number / (len(values) - 1) for number in range(len(values))]
    contours: Any = contour_generator(axis, axis[::-1], values, fill_type="OuterCode")
    paths = []
    for number, (low, high) in enumerate(pairwise(BANDS)):
        polygons, codes = contours.filled(low - 1e-9 if low == 0 else low, high + 1e-9 if high == 1 else high)
        data = "".join(path_of(points, code) for points, code in zip(polygons, codes, strict=True))
        if data:
            paths.append(f"<path class=band{number} d='{data}'/>")
    line = "".join(path_of(points, None) for points in contours.lines(0.5))
    return "".join(paths) + (f"<path class=boundary d='{line}'/>" if line else "")


def path_of(points: Any, codes: Any) -> str:
    """A polygon with holes, or a line, as the data of a path."""
    drawn = []
    for number, (x, y) in enumerate(points.tolist()):
        starts = number == 0 if codes is None else codes[number] == 1
        closes = codes is not None and codes[number] == 79
        drawn.append("Z" if closes else f"{'M' if starts else 'L'}{x:.1f} {y:.1f}")
    return "".join(drawn)


def frames(descent: Descent) -> list[dict[str, Any]]:
    """What the slider shows: the step, its loss, where the mark stands, and the surface."""
    last, top = len(descent.losses) - 1, nice_above(max([*filter(math.isfinite, descent.losses), 1e-12]))
    return [
        {
            "step": frame.step,
            "loss": short(frame.loss),
            "x": round(across(frame.step, last), 1),
            "y": round(down(frame.loss, top), 1),
            "surface": bands(descent, frame) if frame.surface is not None else None,
        }
        for frame in descent.frames
    ]


def legend() -> str:
    """The bands of a surface, from 0 to 1."""
    swatches: Sequence[str] = [f"<i class=band{number}></i>" for number in range(len(BANDS) - 1)]
    return f"<p class=legend><span>output 0</span><span class=swatches>{''.join(swatches)}</span><span>1</span></p>"
