"""An explanation as one page for a browser: no network, no outside address, readable without its script."""

import json
from collections.abc import Sequence
from pathlib import Path

from torchnn.explain import words
from torchnn.explain.numbers import short
from torchnn.explain.render.page import charts, picture
from torchnn.explain.render.page.backward import backward
from torchnn.explain.render.page.forward import MOST_EXAMPLES, Step, forward, inputs, loss, steps_of, update
from torchnn.explain.render.page.markup import escaped
from torchnn.explain.render.page.results import descent, known, three_times
from torchnn.explain.trace import Trace

GENERATOR = "<meta name=generator content='torchnn explain'>"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
HERE = Path(__file__).parent


def page(trace: Trace, max_width: int = 8, layer: int | None = None) -> str:
    """The whole page.

    Args:
        trace: what is explained.
        max_width: how many neurons and columns of a wide layer are drawn and written out.
        layer: the layer whose sections are open; None for all.
    """
    examples = min(trace.num_examples, MOST_EXAMPLES)
    steps = steps_of(trace)
    data = {
        "steps": [{"id": one.id, "title": one.title, "phase": one.phase, "layer": one.layer} for one in steps],
        "start": next((n for n, one in enumerate(steps) if one.layer == layer), 0) if layer else 0,
        "colours": picture.colours(trace, max_width, examples),
        "frames": charts.frames(trace.descent) if trace.descent else [],
    }
    embedded = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    title = escaped(f"Backpropagation, number by number: {'-'.join(map(str, trace.sizes))}")
    return (
        f"<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n{GENERATOR}\n"
        f'<meta http-equiv=Content-Security-Policy content="{POLICY}">\n'
        "<meta name=viewport content='width=device-width, initial-scale=1'>\n"
        "<meta name=color-scheme content='light dark'>\n"
        f"<title>{title}</title>\n<style>{(HERE / 'page.css').read_text()}</style>\n</head>\n<body>\n"
        f"{masthead(trace)}\n<main>\n<div class=stage>\n{figure(trace, max_width, examples)}\n"
        f"<div class=story>\n{story(trace, steps, max_width, layer)}\n</div>\n</div>\n"
        f"{three_times(trace, max_width)}\n{descent(trace)}\n{known(trace)}\n</main>\n"
        "<footer><p>Written by <code>torchnn explain</code>. Every number on this page is one that the network's own "
        "forward and backward gave.</p></footer>\n"
        f"<script type=application/json id=data>{embedded}</script>\n"
        f"<script>{(HERE / 'page.js').read_text()}</script>\n</body>\n</html>\n"
    )


def story(trace: Trace, steps: Sequence[Step], most: int, layer: int | None) -> str:
    """Every step as a section; of a chosen layer only its own stand open."""
    parts = []
    for step in steps:
        if step.phase == "forward":
            inner = forward(trace, trace.layers[step.layer - 1], most)
        elif step.phase == "backward":
            inner = backward(trace, trace.layers[step.layer - 1], most)
        else:
            inner = {"input": inputs, "loss": loss, "update": update}[step.phase](trace, most)
        is_open = layer is None or step.layer == layer
        parts.append(
            f"<details class='step {step.phase}' id={step.id}{' open' if is_open else ''}>"
            f"<summary><h2>{step.title}</h2></summary>{inner}</details>"
        )
    return "\n".join(parts)


def masthead(trace: Trace) -> str:
    facts = [
        ("loss", short(trace.value), f"J, the mean over {words.counted(trace.num_examples, 'example')}"),
        ("after one step", short(trace.value_after), f"of gradient descent, η = {short(trace.lr)}"),
        ("gradients", "✓ agree" if trace.agrees else "✗ differ", "by hand, autograd, central differences"),
        ("to know", str(len(trace.findings)), "warnings below" if len(trace.findings) != 1 else "warning below"),
    ]
    cards = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><dd class=note>{note}</dd></div>" for name, value, note in facts
    )
    return (
        "<header class=masthead><p class=eyebrow>torchnn explain</p><h1>Backpropagation, number by number</h1>"
        f"<p class=lede>{escaped(words.network(trace))}.</p><dl class=facts>{cards}</dl>"
        f"<details class=notation><summary>How to read the symbols</summary><p>{escaped(words.notation(trace))}</p>"
        "</details></header>"
    )


def figure(trace: Trace, max_width: int, examples: int) -> str:
    """The network with its controls, which the script shows."""
    return (
        "<aside class=board><figure aria-label='The network'>"
        f"<div class=controls hidden>{controls(examples)}</div>"
        f"<div class=scroll>{picture.network(trace, max_width)}</div>"
        "<figcaption><p class=legend><span>−</span><i class=ramp></i><span>+</span>"
        "<span class=note>colour: share of the largest in its layer; line: thick where the weight is large, broken "
        "where it is negative</span></p>"
        "<div id=said role=status aria-live=polite><p class=hint>The picture shows the forward pass of example 1. The "
        "steps are written out beside it.</p></div></figcaption></figure></aside>"
    )


def controls(examples: int) -> str:
    choices: Sequence[str] = [
        f"<label><input type=radio name=example value={n}{' checked' if n == 0 else ''}><span>{n + 1}</span></label>"
        for n in range(examples)
    ]
    chooser = f"<fieldset class=chooser><legend>example</legend>{''.join(choices)}</fieldset>" if examples > 1 else ""
    return (
        "<div class=stepper><button type=button id=back aria-label='Step back' title='Left arrow key'>←</button>"
        "<p id=where><b></b><span></span></p>"
        "<button type=button id=next aria-label='Next step' title='Right arrow key'>→</button></div>"
        f"<div class=below><progress id=progress value=0 max=1 aria-label='Steps'></progress>{chooser}</div>"
    )
