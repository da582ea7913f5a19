"""The sections below the story: the gradients three times, many steps, and the warnings."""

from collections.abc import Sequence

from torchnn.explain import words
from torchnn.explain.numbers import full, more, relative, short, units
from torchnn.explain.parts import Comparison, Descent
from torchnn.explain.render.page import charts
from torchnn.explain.render.page.markup import escaped, inline
from torchnn.explain.trace import Trace

COLUMNS = ("by hand", "autograd", "central differences", "hand − autograd")


def three_times(trace: Trace, most: int) -> str:
    """Each gradient by hand, by autograd and by central differences."""
    bodies = "".join(compared(one, most) for layer in reversed(trace.layers) for one in layer.comparisons)
    head = f"<thead><tr><td></td>{''.join(f'<th scope=col>{name}</th>' for name in COLUMNS)}</tr></thead>"
    kind = "yes" if trace.agrees else "no"
    return (
        f"<section id=gradients class=wide><h2>Every gradient, three times</h2><p>{escaped(words.COMPARED)}</p>"
        f"<p class='verdict {kind}'>{escaped(words.agreement(trace))}</p>"
        f"<div class=scroll><table class=gradients>{head}{bodies}</table></div></section>"
    )


def compared(one: Comparison, most: int) -> str:
    mark = "<b class=yes>✓ agree</b>" if one.agrees else "<b class=no>✗ differ</b>"
    off = relative(one.relative_differences), relative(one.relative)
    totals = [inline(one.formula), mark, *(f"off by {number}" for number in off)]
    shown = words.elements(one, most)
    left = more(one.by_hand.numel(), len(shown), "elements")
    return (
        f"<tbody>{line(one.name, totals, 'total', 'rowgroup')}"
        + "".join(line(name, [*map(full, gradients), units(ulp)]) for name, *gradients, ulp in shown)
        + (f"<tr><td class=more colspan=5>{left}</td></tr>" if left else "")
        + "</tbody>"
    )


def line(name: str, cells: Sequence[str], kind: str = "", scope: str = "row") -> str:
    return f"<tr class='{kind}'><th scope={scope}>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def descent(trace: Trace) -> str:
    """Many steps: a slider over the loss and, for two inputs, the boundary."""
    shown = trace.descent
    if shown is None:
        return ""
    last = shown.frames[-1]
    drawn = last.surface is not None
    moving = " The line is the decision boundary, where the output is one half." if drawn else ""
    picture = f"<figure>{charts.surface(trace, shown, last)}{charts.legend()}</figure>" if drawn else ""
    return (
        "<section id=descent class=wide><h2>Many steps</h2>"
        f"<p>{escaped(words.many_steps(trace, shown))}{moving}</p>{slider(shown)}"
        f"<div class=charts><figure>{charts.loss_curve(shown)}</figure>{picture}</div></section>"
    )


def slider(shown: Descent) -> str:
    """The control over the steps, which the script shows; it starts at the last one, which is in the static page."""
    last, end = shown.frames[-1], len(shown.frames) - 1
    return (
        "<div class=slider hidden><button type=button id=play aria-label='Play the steps'>▶</button>"
        f"<input type=range id=time min=0 max={end} value={end} step=1 aria-label='Step of gradient descent'>"
        f"<output id=when for=time>step {last.step}, loss {short(last.loss)}</output></div>"
    )


def known(trace: Trace) -> str:
    """The warnings."""
    items = "".join(f"<li><b>{words.KINDS[one.kind]}</b> {escaped(one.sentence)}</li>" for one in trace.findings)
    inner = f"<ul class=findings>{items}</ul>" if items else f"<p>{escaped(words.HEALTHY)}</p>"
    return f"<section id=known class=wide><h2>What to know about these numbers</h2>{inner}</section>"
