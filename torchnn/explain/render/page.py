"""The explanation as one HTML page, which loads nothing from elsewhere and can be read without its script."""

import math
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from torchnn.explain import derivation, formula
from torchnn.explain.records import Trace
from torchnn.explain.render import charts, drawing, numbers, words

GENERATOR = "<meta name=generator content='torchnn explain'>"  # by which the command recognises its own pages
TEMPLATES = Path(__file__).parent / "templates"

environment = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
environment.filters |= {
    "short": numbers.short,
    "tiny": numbers.tiny,
    "full": numbers.full,
    "factor": numbers.factor,
    "signed": numbers.signed,
    "units": numbers.units,
    "relative": numbers.relative,
    "size": numbers.size,
    "lines": numbers.lines,
    "scale_of": drawing.scale_of,
    "share": drawing.share,
    "shortened": drawing.shortened,
    "pixels": "{:.1f}".format,
    "side": lambda length: f"{1 + 0.65 * math.log2(length):.2f}",  # of a matrix drawn as a rectangle
}
environment.globals |= {
    "words": words,
    "more": numbers.more,
    "row": formula.row,
    "symbol": formula.symbol,
    "derivative": formula.derivative,
    "update_rule": derivation.update_rule,
    "ACTIVATION_SYMBOLS": derivation.ACTIVATION_SYMBOLS,
    "bands": charts.bands,
    "points_on_map": charts.points_on_map,
    "map_side": charts.MAP_SIDE,
    "generator": Markup(GENERATOR),
}


class Section(NamedTuple):
    """One section of the page. The phase is input, forward, loss, backward or update. Layer 0 means all layers."""

    title: str
    phase: str
    layer: int = 0

    @property
    def id(self) -> str:
        """The id of the section."""
        return f"{self.phase}-{self.layer}" if self.layer else self.phase


def steps_of(trace: Trace) -> list[Section]:
    """The steps in their order."""
    forward = [Section(f"Forward, layer {layer.number}", "forward", layer.number) for layer in trace.layers]
    backward = [
        Section(f"Backward, layer {layer.number}", "backward", layer.number) for layer in reversed(trace.layers)
    ]
    update = Section("One step of gradient descent", "update")
    return [Section("The input", "input"), *forward, Section("The loss", "loss"), *backward, update]


def columns_of(trace: Trace, layer: int) -> list[str]:
    """The names of the inputs of a layer."""
    return list(trace.columns) if layer == 1 else [f"a{number}" for number in range(1, trace.sizes[layer - 1] + 1)]


def page(trace: Trace, max_width: int = 8, layer: int | None = None) -> str:
    """The whole page.

    Args:
        trace: the explanation.
        max_width: how many neurons and columns of a wide layer are drawn and written out.
        layer: the layer whose sections are open; None for all.
    """
    examples = range(min(trace.num_examples, words.MAX_EXAMPLES))
    steps = steps_of(trace)
    picture = drawing.Drawing(trace, max_width)
    curve = charts.LossCurve(trace.descent) if trace.descent else None
    data = {
        "steps": [{"id": step.id, **step._asdict()} for step in steps],
        "start": next((n for n, step in enumerate(steps) if step.layer == layer), 0) if layer else 0,
        "colours": picture.colours(len(examples)),
        "frames": curve.frames() if curve else [],
    }
    return environment.get_template("page.html").render(
        trace=trace,
        max_width=max_width,
        open_layer=layer,
        examples=examples,
        steps=steps,
        columns_of=columns_of,
        drawing=picture,
        curve=curve,
        data=data,
        css=Markup((TEMPLATES / "page.css").read_text()),
        script=Markup((TEMPLATES / "page.js").read_text()),
    )
