"""The network as SVG: its nodes and weighted connections, complete in the static markup, recoloured by the script."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchnn.explain.numbers import short, tiny
from torchnn.explain.render.page.markup import LONGEST_NAME, coloured, escaped, scale_of, share, shortened
from torchnn.explain.trace import Trace
from torchnn.explain.words import output_of, sum_of

LEAST_LEFT, MARGIN_RIGHT, MARGIN_TOP, BOTTOM = 44, 84, 44, 16
LETTER = 6.6  # width of a letter of a column's name
COLUMN, TALLEST = 158, 620
THICKEST = 6.0


@dataclass(frozen=True)
class Grid:
    """Where the nodes stand.

    Attributes:
        shown: how many neurons of each layer are drawn, the input first.
        hidden: how many are not.
        left: of the middle of the input nodes.
        pitch: distance between two nodes of a layer.
        radius: of a node.
        width: of the picture.
        height: of the picture.
    """

    shown: tuple[int, ...]
    hidden: tuple[int, ...]
    left: float
    pitch: float
    radius: float
    width: float
    height: float

    def place(self, layer: int, neuron: int) -> tuple[float, float]:
        """The middle of a node; layer 0 is the input, and place `shown[layer]` is that of "… more"."""
        rows = self.shown[layer] + (1 if self.hidden[layer] else 0)
        top = MARGIN_TOP + (self.height - MARGIN_TOP - BOTTOM) / 2 - (rows - 1) * self.pitch / 2
        return self.left + layer * COLUMN, top + neuron * self.pitch


def grid_of(trace: Trace, max_width: int) -> Grid:
    """A grid for at most `max_width` neurons a layer."""
    shown = tuple(min(n, max_width) for n in trace.sizes)
    hidden = tuple(n - drawn for n, drawn in zip(trace.sizes, shown, strict=True))
    rows = max(drawn + (1 if more else 0) for drawn, more in zip(shown, hidden, strict=True))
    pitch = min(84.0, TALLEST / rows)
    radius = min(28.0, pitch * 0.42)
    longest = max(min(len(name), LONGEST_NAME) for name in trace.columns[: shown[0]])
    left = max(LEAST_LEFT, radius + 10 + LETTER * longest)
    width = left + COLUMN * (len(trace.sizes) - 1) + MARGIN_RIGHT
    return Grid(shown, hidden, left, pitch, radius, width, MARGIN_TOP + BOTTOM + rows * pitch)


def network(trace: Trace, max_width: int) -> str:
    """The picture, showing the forward pass of the first example."""
    grid = grid_of(trace, max_width)
    parts = [edges(trace, grid, layer) for layer in range(1, len(trace.sizes))]
    parts += [nodes(trace, grid, layer) for layer in range(len(trace.sizes))]
    parts.append(targets(trace, grid))
    box = f"viewBox='0 0 {grid.width:.0f} {grid.height:.0f}' style='--w:{grid.width:.0f}px'"
    label = f"The network: {' to '.join(map(str, trace.sizes))} neurons, left to right"
    return f"<svg class=network {box} role=group aria-label='{label}'>{''.join(parts)}</svg>"


def edges(trace: Trace, grid: Grid, layer: int) -> str:
    """The connections into a layer: as thick as their weight is large, broken where it is negative."""
    weight = trace.layers[layer - 1].weight
    scale = scale_of(weight)
    drawn = []
    for i in range(grid.shown[layer]):
        for j in range(grid.shown[layer - 1]):
            (x1, y1), (x2, y2) = grid.place(layer - 1, j), grid.place(layer, i)
            value = float(weight[i, j])
            thickness = 0.6 + THICKEST * abs(share(value, scale)) * (grid.radius / 27)
            x1, x2 = x1 + grid.radius, x2 - grid.radius
            middle = (x1 + x2) / 2
            path = f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
            dashed = " stroke-dasharray='7 4'" if value < 0 else ""
            title = f"<title>weight {short(value)} into neuron {i + 1} of layer {layer}</title>"
            mark = coloured(value, scale).replace("class='v", "class='edge v")
            drawn.append(f"<path {mark} d='{path}' stroke-width='{thickness:.1f}'{dashed}>{title}</path>")
    return f"<g class=edges data-layer={layer}>{''.join(drawn)}</g>"


def nodes(trace: Trace, grid: Grid, layer: int) -> str:
    """The neurons of a layer, or the inputs, each with its name, its number, and how it came about."""
    values = trace.x if layer == 0 else trace.layers[layer - 1].a
    scale = scale_of(values)
    x, _ = grid.place(layer, 0)
    name = "input a[0]" if layer == 0 else f"a[{layer}]"
    drawn = [f"<text class='over head' x='{x:.0f}' y='{MARGIN_TOP - 22}'>{name}</text>"]
    for neuron in range(grid.shown[layer]):
        x, y = grid.place(layer, neuron)
        value = float(values[0, neuron])
        circle = f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{grid.radius:.1f}'/>"
        text = f"<text x='{x:.1f}' y='{y:.1f}' style='font-size:{grid.radius * 0.52:.1f}px'>{tiny(value)}</text>"
        label = described(trace, layer, neuron, max_terms=grid.shown[max(layer - 1, 0)])
        beside = ""
        if layer == 0:
            beside = (
                f"<text class=name x='{x - grid.radius - 8:.1f}' y='{y:.1f}'>{shortened(trace.columns[neuron])}</text>"
            )
        mark = coloured(value, scale).replace("class='v", "class='neuron v")
        place = f"data-layer={layer} data-neuron={neuron + 1}"
        drawn.append(
            f"<g {mark} {place} tabindex=0 role=button aria-label='{escaped(label)}'>"
            f"<title>{escaped(label)}</title>{circle}{text}{beside}</g>"
        )
    if grid.hidden[layer]:
        x, y = grid.place(layer, grid.shown[layer])
        drawn.append(f"<text class=over x='{x:.1f}' y='{y:.1f}'>… {grid.hidden[layer]} more</text>")
    return f"<g class=nodes data-layer={layer}>{''.join(drawn)}</g>"


def described(trace: Trace, layer: int, neuron: int, max_terms: int, example: int = 0) -> str:
    """One neuron and its weighted sum, in words that can be read aloud."""
    if layer == 0:
        return f"input {trace.columns[neuron]} is {short(float(trace.x[example, neuron]))}"
    one = trace.layers[layer - 1]
    written = sum_of(one.weighted_sum(example, neuron, max_terms))
    z = short(float(one.z[example, neuron]))
    return f"layer {layer}, neuron {neuron + 1}: z = {written} = {z}, a = {output_of(one, example, neuron)}"


def targets(trace: Trace, grid: Grid) -> str:
    """The targets beside the outputs."""
    drawn = []
    for neuron in range(grid.shown[-1]):
        x, y = grid.place(len(trace.sizes) - 1, neuron)
        value = short(float(trace.y[0, neuron]))
        drawn.append(
            f"<text class=target x='{x + grid.radius + 8:.1f}' y='{y:.1f}' data-neuron={neuron + 1}>y = {value}</text>"
        )
    return "".join(drawn)


def colours(trace: Trace, max_width: int, examples: int) -> dict[str, Any]:
    """What the script recolours the picture with, layer by layer: shares of the full colour, and the numbers as text.

    Everything is an entry for each example, but the gradients, which belong to all of them.
    """
    grid = grid_of(trace, max_width)
    inside = [(grid.shown[layer], grid.shown[layer - 1]) for layer in range(1, len(trace.sizes))]
    forward = [trace.x, *(layer.a for layer in trace.layers)]
    every = range(examples)

    def of_nodes(values: Tensor, layer: int) -> dict[str, Any]:
        cut = values[:examples, : grid.shown[layer]].tolist()
        return {"share": shares(cut, scale_of(values)), "text": [[tiny(value) for value in row] for row in cut]}

    def of_edges(values: Tensor, layer: int) -> list[float]:
        n, before = inside[layer - 1]
        return shares([values[:n, :before].flatten().tolist()], scale_of(values))[0]

    numbered = list(enumerate(trace.layers, 1))
    return {
        "a": [of_nodes(values, layer) for layer, values in enumerate(forward)],
        "delta": [of_nodes(one.delta, layer) for layer, one in numbered],
        "signal": [[of_edges(one.signal(example), layer) for example in every] for layer, one in numbered],
        "blame": [[of_edges(one.blame(example), layer) for example in every] for layer, one in numbered],
        "gradient": [of_edges(one.grad_weight.by_hand, layer) for layer, one in numbered],
        "y": [[f"y = {short(value)}" for value in row[: grid.shown[-1]]] for row in trace.y[:examples].tolist()],
        "loss": [f"𝓛 = {short(float(row.sum()))}" for row in trace.losses[:examples]],
        "labels": [
            [
                [
                    described(trace, layer, neuron, grid.shown[max(layer - 1, 0)], example)
                    for neuron in range(grid.shown[layer])
                ]
                for layer in range(len(trace.sizes))
            ]
            for example in every
        ],
    }


def shares(rows: list[list[float]], scale: float) -> list[list[float]]:
    return [[round(share(value, scale), 3) for value in row] for row in rows]
