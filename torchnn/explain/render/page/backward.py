"""The sections of the way back: every factor of the chain rule, and what does not fit."""

from collections.abc import Sequence

from torch import Tensor

from torchnn.explain import words
from torchnn.explain.formula import derivative, row, symbol
from torchnn.explain.numbers import lines, short
from torchnn.explain.parts import DimensionCheck, Factor
from torchnn.explain.render.page.forward import MOST_EXAMPLES, by_example, examples_of, products
from torchnn.explain.render.page.markup import block, escaped, heat_map, inline, row_of_numbers, shape
from torchnn.explain.trace import LayerTrace, Trace


def backward(trace: Trace, layer: LayerTrace, most: int) -> str:
    number = layer.number
    split = next(n for n, one in enumerate(layer.factors) if one.role == "delta")
    head, tail = layer.factors[:split], layer.factors[split:]
    names = trace.columns if number == 1 else [f"a{j + 1}" for j in range(layer.weight.shape[1])]
    bias = None if layer.grad_bias is None else layer.grad_bias.by_hand
    lead = words.BACKWARD_LAST if number == len(trace.layers) else words.BACKWARD_HIDDEN
    caption = f"Gradient {inline(derivative('J', symbol('W', number)))}, coloured as the weights are"
    return (
        f"<p>{lead}</p>{block(layer.chain)}"
        f"{factors(trace, head, most)}{cancelled(layer, most)}{dimensions(layer)}"
        f"{factors(trace, tail, most)}{written_errors(trace, layer, most)}"
        + (vectorised(layer) if trace.num_examples > 1 else "")
        + heat_map(caption, layer.grad_weight.by_hand, bias, names, most, "b")
    )


def vectorised(layer: LayerTrace) -> str:
    """The gradients for m examples, with the shapes of what is multiplied."""
    m, n, before = len(layer.a), *layer.weight.shape
    weight = row(derivative("J", symbol("W", layer.number)), "=", layer.grad_weight.formula)
    bias = ""
    if layer.grad_bias is not None:
        bias = block(row(derivative("J", symbol("b", layer.number)), "=", layer.grad_bias.formula))
    return (
        f"<h3>for m = {m} examples at once, as rows</h3>{block(weight)}"
        f"<div class=shapes>{shape((n, m))} · {shape((m, before))} = {shape((n, before))}</div>{bias}"
    )


def factors(trace: Trace, shown: Sequence[Factor], most: int) -> str:
    """Factors of the chain rule: what it is, its formula, its shape, its numbers."""
    parts = []
    for factor in shown:
        per_example = factor.role in words.BY_EXAMPLE
        rows = lines(factor.value)
        limit = MOST_EXAMPLES if per_example else most
        marks = [f" class=example data-example={n}" if per_example else "" for n in range(len(rows))]
        numbers = "".join(
            f"<div{mark}>{row_of_numbers(values, most)}</div>"
            for mark, values in list(zip(marks, rows, strict=True))[:limit]
        )
        mean = (
            " <span class=note>mean over the examples</span>"
            if factor.role.startswith("grad") and trace.num_examples > 1
            else ""
        )
        strong = " key" if factor.role in ("delta", "grad_weight", "grad_bias") else ""
        parts.append(
            f"<div class='factor{strong}'><h4>{words.ROLES[factor.role]}</h4>"
            f"<div class='formula inline'>{inline(row(factor.symbol, '=', factor.formula))}</div>"
            f"{shape(factor.shape)}<div class=values>{numbers}{mean}</div></div>"
        )
    return f"<div class=factors>{''.join(parts)}</div>"


def cancelled(layer: LayerTrace, most: int) -> str:
    """The first two terms multiplied, and why they are cancelled first."""
    if layer.cancellation is None:
        return ""
    table = "".join(
        f"<tr><th scope=row>{name}</th><td>{''.join(example_values(value, most))}</td></tr>"
        for name, value in words.apart(layer)
    )
    return (
        f"<div class=aside><h3>These two cancel</h3>{block(layer.cancellation.formula)}"
        f"<table class=plain>{table}</table><p>{words.WHY_CANCEL}</p></div>"
    )


def example_values(value: Tensor, most: int) -> list[str]:
    return [
        f"<div class=example data-example={n}>{row_of_numbers(values, most)}</div>"
        for n, values in enumerate(lines(value)[:MOST_EXAMPLES])
    ]


def dimensions(layer: LayerTrace) -> str:
    """The seed's sanity check: the naive product, and the form that fits."""
    check = layer.dimension_check
    if check is None:
        return ""
    number = layer.number
    product = " · ".join(shape(one) for one in check.shapes)
    return (
        f"<div class=aside><h3>Do the dimensions agree?</h3><div class=shapes><b class=no>✗</b> {product}</div>"
        f"{block(check.formula)}<p>{escaped(words.why_not(check, number))}</p>"
        f"<div class=shapes><b class=yes>✓</b> {fitting(check)}</div>"
        f"{block(row(symbol('δ', number), '=', check.fitting))}</div>"
    )


def fitting(check: DimensionCheck) -> str:
    (above, _), (_, n), *_ = check.shapes
    return f"{shape((n, above))} · {shape((above, 1))} ⊙ {shape((n, 1))} = {shape((n, 1))}"


def written_errors(trace: Trace, layer: LayerTrace, most: int) -> str:
    """δ of every neuron, written out."""
    n = min(len(layer.weight), most)
    above = trace.layers[layer.number] if layer.number < len(trace.layers) else None
    parts = []
    for example in examples_of(trace):
        sums = []
        for i in range(n):
            delta = f"<b class='n result'>{short(float(layer.delta[example, i]))}</b>"
            if above is None:
                output, target = float(layer.a[example, i]), float(trace.y[example, i])
                inner = f"{words.last_error(trace)}, with output {short(output)} and target {short(target)}: {delta}"
            else:
                total = products(above.error_sum(example, i, most))
                slope = short(float(layer.slope[example, i]))
                inner = f"({total}) · <span class=x>{slope}</span> = {delta}"
            name = f"<span class=lhs><i>δ</i><sub>{i + 1}</sub> =</span>"
            sums.append(f"<p class=sum id=b-{layer.number}-{i + 1}-{example}>{name} {inner}</p>")
        parts.append("".join(sums))
    return by_example(trace, parts)
