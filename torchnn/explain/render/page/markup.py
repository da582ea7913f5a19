"""Small pieces of the page: escaped text, formulas, numbers, heat maps, the shapes of matrices."""

import html
import math
from collections.abc import Sequence

from torch import Tensor

from torchnn.explain.formula import Formula
from torchnn.explain.numbers import lines, short, size, tiny

LONGEST_NAME = 22


def escaped(text: str) -> str:
    """Text of anybody's, as text and nothing else, inside an element or an attribute."""
    return html.escape(text)


def shortened(name: str) -> str:
    """A name that fits beside a circle, escaped."""
    return escaped(name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…")


def block(formula: Formula) -> str:
    """A formula on a line of its own; a long one scrolls by itself."""
    label = f"aria-label='{escaped(formula.text)}'"
    return f"<div class=formula><math display=block {label}>{formula.mathml}</math></div>"


def inline(formula: Formula) -> str:
    """A formula in a line of text."""
    return f"<math aria-label='{escaped(formula.text)}'>{formula.mathml}</math>"


def scale_of(value: Tensor) -> float:
    """The size that gets the full colour: the largest finite one."""
    finite = value[value.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def share(value: float, scale: float) -> float:
    """A number as a share of the full colour, with its sign, from −1 to 1."""
    if math.isnan(value) or scale == 0:
        return 0.0
    return max(-1.0, min(1.0, value / scale))


def coloured(value: float, scale: float) -> str:
    """The class and style that give an element the colour of a number."""
    part = share(value, scale)
    classes = ("neg" if part < 0 else "pos") + (" strong" if abs(part) > 0.55 else "")
    return f"class='v {classes}' style='--v:{abs(part):.2f}'"


def number(value: float) -> str:
    return f"<span class=n>{short(value)}</span>"


def row_of_numbers(values: Sequence[float], most: int) -> str:
    """Some numbers of a row, and how many more there are."""
    shown = " ".join(f"<span class=n>{short(value)}</span>" for value in values[:most])
    rest = f" <span class=more>… {len(values) - most} more</span>" if len(values) > most else ""
    return f"<span class=row>{shown}{rest}</span>"


def shape(sizes: tuple[int, int], name: str = "") -> str:
    """A matrix as a rectangle of its proportions, with its shape written out."""
    rows, columns = (1 + 0.65 * math.log2(side) for side in sizes)
    label = f"<b>{name}</b> " if name else ""
    return f"<span class=shape><i style='--r:{rows:.2f};--c:{columns:.2f}'></i><span>{label}{size(sizes)}</span></span>"


def heat_map(
    caption: str, weight: Tensor, bias: Tensor | None, columns: Sequence[str], most: int, bias_name: str
) -> str:
    """A matrix as a table of coloured numbers, a row for each neuron, and the bias as a last column.

    The colour goes from the most negative to the most positive number; the sign stands before each number as well.
    """
    scale = max(scale_of(weight), 0.0 if bias is None else scale_of(bias))
    rows, width = lines(weight), weight.shape[1]
    biases = None if bias is None else bias.tolist()
    shown = range(min(width, most))
    head = "".join(f"<th scope=col title='{escaped(columns[j])}'>{shortened(columns[j])}</th>" for j in shown)
    head += "<th scope=col class=more>…</th>" if width > most else ""
    head += f"<th scope=col class=bias>{bias_name}</th>" if biases else ""
    body = []
    for i, values in enumerate(rows[:most]):
        cells = "".join(f"<td {coloured(values[j], scale)}>{signed(values[j])}</td>" for j in shown)
        cells += "<td class=more>…</td>" if width > most else ""
        if biases is not None:
            own = i if len(biases) > 1 else 0
            is_drawn = len(biases) > 1 or i == 0
            span = f" rowspan={min(len(rows), most)}" if len(biases) == 1 and len(rows) > 1 else ""
            kind = coloured(biases[own], scale).replace("class='v", "class='bias v")
            cells += f"<td {kind}{span}>{signed(biases[own])}</td>" if is_drawn else ""
        body.append(f"<tr><th scope=row>{i + 1}</th>{cells}</tr>")
    left = [
        f"{width - most} more columns" if width > most else "",
        f"{len(rows) - most} more rows" if len(rows) > most else "",
    ]
    rest = f"<p class=more>… {' and '.join(filter(None, left))}</p>" if any(left) else ""
    legend = f"<p class=legend><span>{signed(-scale)}</span><i class=ramp></i><span>{signed(scale)}</span></p>"
    table = f"<table class=heat><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    scrolled = f"<div class=scroll>{table}</div>"
    return f"<figure class=map><figcaption>{caption}</figcaption>{scrolled}{legend}{rest}</figure>"


def signed(value: float) -> str:
    """A short number with its sign, positive ones too."""
    return tiny(value) if value < 0 or value == 0 or math.isnan(value) else f"+{tiny(value)}"
