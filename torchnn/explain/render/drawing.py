"""The geometry of the network's picture, and the numbers with which the script recolours it."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from torchnn.explain.records import LayerTrace, Trace
from torchnn.explain.render.numbers import short, tiny
from torchnn.explain.render.words import output_of, sum_of

MAX_NAME = 22  # letters of a column's name
LETTER_WIDTH = 6.6
MIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 44, 84, 44, 16
LAYER_DISTANCE, MAX_HEIGHT = 158, 620
MAX_THICKNESS = 6.0


def shortened(name: str) -> str:
    """A name that fits next to a circle."""
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"


def scale_of(values: Tensor) -> float:
    """The number that gets the full colour: the largest finite absolute value."""
    finite = values[values.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def share(value: float, scale: float) -> float:
    """A number as a share of the full colour, with its sign, from −1 to 1."""
    if math.isnan(value) or scale == 0:
        return 0.0
    return max(-1.0, min(1.0, value / scale))


class Edge(NamedTuple):
    """A connection: its weight, the number of the neuron it leads to, its SVG path and its thickness."""

    weight: float
    neuron: int
    path: str
    thickness: float


class Drawing:
    """The network with at most `max_width` neurons per layer; layer 0 is the input.

    Attributes:
        shown: how many neurons of each layer are drawn.
        hidden: how many neurons of each layer are not drawn.
        radius: radius of a node.
        width: width of the picture.
        height: height of the picture.
        head: vertical position of the headings.
    """

    head = MARGIN_TOP - 22

    def __init__(self, trace: Trace, max_width: int) -> None:
        self.trace = trace
        self.shown = [min(n, max_width) for n in trace.sizes]
        self.hidden = [n - shown for n, shown in zip(trace.sizes, self.shown, strict=True)]
        rows = max(map(self._rows, range(len(trace.sizes))))
        self._pitch = min(84.0, MAX_HEIGHT / rows)  # distance between two nodes of a layer
        self.radius = min(28.0, self._pitch * 0.42)
        longest = max(len(shortened(name)) for name in trace.columns[: self.shown[0]])
        self._left = max(MIN_LEFT, self.radius + 10 + LETTER_WIDTH * longest)
        self.width = self._left + LAYER_DISTANCE * (len(trace.sizes) - 1) + MARGIN_RIGHT
        self.height = MARGIN_TOP + MARGIN_BOTTOM + rows * self._pitch

    def _rows(self, layer: int) -> int:
        return self.shown[layer] + (1 if self.hidden[layer] else 0)

    def place(self, layer: int, neuron: int) -> tuple[float, float]:
        """The centre of a node. The place after the last one, `shown[layer]`, belongs to "… more"."""
        middle = MARGIN_TOP + (self.height - MARGIN_TOP - MARGIN_BOTTOM) / 2
        top = middle - (self._rows(layer) - 1) * self._pitch / 2
        return self._left + layer * LAYER_DISTANCE, top + neuron * self._pitch

    def values(self, layer: int) -> Tensor:
        """a[layer] of every example, (m, n)."""
        return self.trace.x if layer == 0 else self.trace.layers[layer - 1].a

    def edges(self, layer: LayerTrace) -> Iterator[Edge]:
        """The connections into a layer; a large weight makes a thick line."""
        scale = scale_of(layer.weight)
        for i in range(self.shown[layer.number]):
            for j in range(self.shown[layer.number - 1]):
                (x1, y1), (x2, y2) = self.place(layer.number - 1, j), self.place(layer.number, i)
                x1, x2 = x1 + self.radius, x2 - self.radius
                middle, weight = (x1 + x2) / 2, float(layer.weight[i, j])
                yield Edge(
                    weight=weight,
                    neuron=i + 1,
                    path=f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}",
                    thickness=0.6 + MAX_THICKNESS * abs(share(weight, scale)) * (self.radius / 27),
                )

    def label(self, layer: int, neuron: int, example: int) -> str:
        """One neuron and its weighted sum, in words that a screen reader can read aloud."""
        if layer == 0:
            return f"input {self.trace.columns[neuron]} is {short(float(self.trace.x[example, neuron]))}"
        record = self.trace.layers[layer - 1]
        written = sum_of(record.forward_sum(example, neuron, self.shown[layer - 1]))
        z = short(float(record.z[example, neuron]))
        return f"layer {layer}, neuron {neuron + 1}: z = {written} = {z}, a = {output_of(record, example, neuron)}"

    def colours(self, examples: int) -> dict[str, Any]:
        """What the script needs to recolour the picture: shares of the full colour, and the numbers as text.

        Everything has one entry per example, except the gradients, which belong to all examples together.
        """
        trace, every = self.trace, range(examples)
        layers, last = list(enumerate(trace.layers, 1)), self.shown[-1]
        return {
            "a": [self._nodes(self.values(layer), layer, examples) for layer in range(len(trace.sizes))],
            "delta": [self._nodes(record.delta, layer, examples) for layer, record in layers],
            "forward": [
                [self._edge_shares(record.forward_products(example), layer) for example in every]
                for layer, record in layers
            ],
            "backward": [
                [self._edge_shares(record.backward_products(example), layer) for example in every]
                for layer, record in layers
            ],
            "gradient": [self._edge_shares(record.grad_weight.by_hand, layer) for layer, record in layers],
            "y": [[f"y = {short(value)}" for value in row[:last]] for row in trace.y[:examples].tolist()],
            "loss": [f"𝓛 = {short(float(row.sum()))}" for row in trace.losses[:examples]],
            "labels": [
                [
                    [self.label(layer, neuron, example) for neuron in range(shown)]
                    for layer, shown in enumerate(self.shown)
                ]
                for example in every
            ],
        }

    def _nodes(self, values: Tensor, layer: int, examples: int) -> dict[str, Any]:
        rows = values[:examples, : self.shown[layer]].tolist()
        scale = scale_of(values)
        return {
            "share": [_shares(row, scale) for row in rows],
            "text": [[tiny(value) for value in row] for row in rows],
        }

    def _edge_shares(self, values: Tensor, layer: int) -> list[float]:
        drawn = values[: self.shown[layer], : self.shown[layer - 1]]
        return _shares(drawn.flatten().tolist(), scale_of(values))


def _shares(values: list[float], scale: float) -> list[float]:
    return [round(share(value, scale), 3) for value in values]
