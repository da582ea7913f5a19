"""The steps of the story, and the sections of the way forward."""

from collections.abc import Sequence
from dataclasses import dataclass

from torchnn.explain import words
from torchnn.explain.formula import row, symbol
from torchnn.explain.numbers import lines, more, short
from torchnn.explain.parts import WeightedSum
from torchnn.explain.render.page.markup import block, escaped, heat_map, inline, number, row_of_numbers
from torchnn.explain.story import DEFINITIONS, NAMES
from torchnn.explain.story import descent as descent_formula
from torchnn.explain.trace import LayerTrace, Trace

MOST_EXAMPLES = 4


@dataclass(frozen=True)
class Step:
    """One step of the story.

    Attributes:
        id: of its section.
        title: what happens.
        phase: "input", "forward", "loss", "backward" or "update".
        layer: number of the layer, 0 where all are meant.
    """

    id: str
    title: str
    phase: str
    layer: int = 0


def steps_of(trace: Trace) -> list[Step]:
    """The steps in order: in, forward, loss, backward, update."""
    forward = [
        Step(f"forward-{one.number}", f"Forward, layer {one.number}", "forward", one.number) for one in trace.layers
    ]
    back = [
        Step(f"backward-{one.number}", f"Backward, layer {one.number}", "backward", one.number) for one in trace.layers
    ]
    ends = Step("loss", "The loss", "loss"), Step("update", "One step of gradient descent", "update")
    return [Step("input", "The input", "input"), *forward, ends[0], *reversed(back), ends[1]]


def by_example(trace: Trace, parts: Sequence[str]) -> str:
    """One part for each example, of which the script shows one at a time."""
    many = trace.num_examples > 1
    shown = [
        f"<div class=example data-example={n}>{f'<h3>example {n + 1}</h3>' if many else ''}{part}</div>"
        for n, part in enumerate(parts)
    ]
    left = more(trace.num_examples, len(parts), "examples, which count in every gradient")
    return "".join(shown) + (f"<p class=more>{left}</p>" if left else "")


def examples_of(trace: Trace) -> range:
    return range(min(trace.num_examples, MOST_EXAMPLES))


def inputs(trace: Trace, most: int) -> str:
    parts = []
    for example in examples_of(trace):
        values = trace.x[example].tolist()[:most]
        named = zip(trace.columns, values, strict=False)
        pairs = "".join(f"<div><dt>{escaped(name)}</dt><dd>{number(value)}</dd></div>" for name, value in named)
        rest = f"<p class=more>{more(trace.sizes[0], most, 'inputs')}</p>" if trace.sizes[0] > most else ""
        target = row_of_numbers(trace.y[example].tolist(), most)
        parts.append(f"<dl class=inputs>{pairs}</dl>{rest}<p>target y = {target}</p>")
    x_is_a0 = inline(row(symbol("x"), "=", symbol("a", 0)))
    lead = f"<p>The input neurons do nothing but pass the numbers on; they are not counted as a layer. {x_is_a0}.</p>"
    return lead + by_example(trace, parts)


def forward(trace: Trace, layer: LayerTrace, most: int) -> str:
    at, n = layer.number, min(len(layer.weight), most)
    names = trace.columns if at == 1 else [f"a{j + 1}" for j in range(layer.weight.shape[1])]
    parts = []
    for example in examples_of(trace):
        sums = "".join(
            f"<p class=sum id=f-{at}-{i + 1}-{example}>{weighted(layer, example, i, most)}</p>" for i in range(n)
        )
        parts.append(sums)
    left = f"<p class=more>{more(len(layer.weight), most, 'neurons')}</p>" if len(layer.weight) > most else ""
    rows = f"<p>All examples at once, one a row: {inline(layer.forward[1])}</p>" if trace.num_examples > 1 else ""
    return (
        "<p>Each neuron adds up its weighted inputs, adds its bias, and applies the activation function.</p>"
        f"{block(layer.forward[0])}{block(layer.forward[2])}"
        f"<p class=note>{inline(DEFINITIONS[layer.activation])}. &ensp;{escaped(words.forward_shapes(layer))}.</p>"
        f"{by_example(trace, parts)}{left}{rows}"
        + heat_map(
            f"Weights {inline(symbol('W', at))}, a row for each neuron", layer.weight, layer.bias, names, most, "b"
        )
    )


def weighted(layer: LayerTrace, example: int, neuron: int, most: int) -> str:
    """z and a of one neuron, written out."""
    z, a = float(layer.z[example, neuron]), float(layer.a[example, neuron])
    total = products(layer.weighted_sum(example, neuron, most))
    g = NAMES[layer.activation]
    which = f"<sub>{neuron + 1}</sub>"
    return (
        f"<span class=lhs><i>z</i>{which} =</span> {total} = <b class=n>{short(z)}</b>"
        f"<br><span class=lhs><i>a</i>{which} =</span> {g}({short(z)}) = <b class='n result'>{short(a)}</b>"
    )


def products(written: WeightedSum) -> str:
    """A sum of products: weights and what they multiply in two colours."""
    terms = [
        f"<span class=term><span class=w>{bracket(left)}</span>·<span class=x>{bracket(right)}</span></span>"
        for left, right in written.terms
    ]
    if written.more:
        terms.append(f"<span class='term more'>… {written.more} more ({short(written.rest)})</span>")
    if written.bias is not None:
        terms.append(f"<span class='term b'>{bracket(written.bias)}</span>")
    return " + ".join(terms)


def bracket(value: float) -> str:
    return f"({short(value)})" if value < 0 else short(value)


def loss(trace: Trace, most: int) -> str:
    last = trace.layers[-1]
    parts = []
    for example in examples_of(trace):
        of_outputs = (values[example].tolist()[:most] for values in (last.a, trace.y, trace.losses))
        parts.append("".join(one_loss(*numbers) for numbers in zip(*of_outputs, strict=True)))
    examples = words.counted(trace.num_examples, "example")
    mean = f"<p>J, the mean over {examples}: <b class=n>{short(trace.value)}</b></p>"
    lead = f"<p>How wrong the output is, by {words.LOSSES[trace.loss]}.</p>"
    return f"{lead}{block(trace.loss_formula)}{by_example(trace, parts)}{mean}"


def one_loss(output: float, target: float, value: float) -> str:
    result = f"<b class='n result'>{short(value)}</b>"
    return f"<p class=sum>output {number(output)}, target {number(target)}: &ensp;𝓛 = {result}</p>"


def update(trace: Trace, most: int) -> str:
    rows = []
    for layer in trace.layers:
        pairs = [("W", layer.weight, layer.new_weight)]
        if layer.bias is not None and layer.new_bias is not None:
            pairs.append(("b", layer.bias, layer.new_bias))
        for letter, before, after in pairs:
            name = inline(symbol(letter, layer.number))
            both = list(zip(lines(before), lines(after), strict=True))[:most]
            rows += [
                f"<tr><th scope=row>{name if n == 0 else ''}</th><td>{row_of_numbers(old, most)}</td>"
                f"<td>{row_of_numbers(new, most)}</td></tr>"
                for n, (old, new) in enumerate(both)
            ]
            if len(lines(before)) > most:
                rows.append(f"<tr><td></td><td class=more>{more(len(lines(before)), most, 'rows')}</td><td></td></tr>")
    head = "<thead><tr><td></td><th scope=col>before</th><th scope=col>after</th></tr></thead>"
    letters = "W" if trace.layers[0].bias is None else "Wb"
    formulas = "".join(block(descent_formula(letter, 1)) for letter in letters)
    eta = f"<p>η = {short(trace.lr)}. Every parameter takes a small step against its gradient.</p>"
    return (
        f"{formulas}{eta}"
        f"<div class=scroll><table class=plain>{head}<tbody>{''.join(rows)}</tbody></table></div>"
        f"<p class=verdict>{escaped(words.step(trace))}</p>"
    )
