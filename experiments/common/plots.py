"""The style of the plots: no display, colours for colour-blind readers, a different marker for each line."""

import io
from pathlib import Path
from typing import Any

# Okabe and Ito (2008), without yellow, which is hard to see on white.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
)
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKS = ("o", "s", "^", "D", "v", "P", "X")
DPI = 110


def new_figure(
    num_columns: int,
    num_rows: int = 1,
    size: tuple[float, float] = (5, 4),
    share_x: bool = False,
    share_y: bool = False,
) -> tuple[Any, Any]:
    """A figure and its axes, an array of `num_rows` × `num_columns`; `size` is the size of one of them in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * num_columns, size[1] * num_rows), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(num_rows, num_columns, squeeze=False, sharex=share_x, sharey=share_y)


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG with a palette of 128 colours, which takes a third of the bytes."""
    from PIL import Image

    with io.BytesIO() as drawn:
        figure.savefig(drawn, format="png")
        with Image.open(drawn) as picture:
            picture.convert("RGB").quantize(128).save(path, format="PNG", optimize=True)
