"""The sentences of an explanation, shared by the terminal and the page."""

import math
from collections.abc import Sequence

from torch import Tensor

from torchnn.explain.derivation import NAMES
from torchnn.explain.records import Comparison, Descent, DimensionCheck, LayerTrace, Trace, WeightedSum
from torchnn.explain.render.numbers import factor, relative, short, size, units

ROLES = {
    "loss_slope": "slope of the loss",
    "activation_slope": "slope of the activation",
    "passed_back": "what comes back",
    "delta": "δ, the error",
    "weight_slope": "z by its weights",
    "grad_weight": "gradient of the weights",
    "bias_slope": "z by its bias",
    "grad_bias": "gradient of the bias",
    "input_slope": "z by what came in",
}
BY_EXAMPLE = ("loss_slope", "activation_slope", "passed_back", "delta", "weight_slope", "bias_slope")
KINDS = {
    "saturated": "saturated",
    "dead_relu": "dead ReLU",
    "vanishing": "vanishing gradient",
    "exploding": "exploding gradient",
    "saturated_loss": "saturated loss",
}
BIAS = {"per neuron": "one number for each neuron", "shared": "one number shared by the layer", "none": "no bias"}
LOSSES = {"binary_cross_entropy": "binary cross-entropy", "mse": "squared error"}
HEALTHY = "No neuron is saturated or dead, no layer's gradient vanishes or explodes, and the loss keeps its error."
WHY_CANCEL = (
    "On paper all three are the same. In floating point the product divides by a(1 − a), kept at 1e−12 or more so that "
    "it is never 0, and multiplies by it again: near 0 and 1 the error is lost there. a − y is right everywhere."
)
BACKWARD_LAST = (
    "From the loss back to the last layer: the first two factors of the chain rule, and then those of W and b."
)
BACKWARD_HIDDEN = (
    "The error of the layer above comes back through its weights, and is multiplied by the slope of this layer."
)
DESCENT = "W ← W − η ∂J/∂W, b ← b − η ∂J/∂b"
COMPARED = (
    "By hand: this library's derived backward. Autograd: PyTorch's, on the same network in its own operations. "
    "Central differences: (J(w + h) − J(w − h)) / 2h, which know nothing of derivatives and keep about half of the "
    "digits; a dash where they were not taken, or the step h crosses the kink of a relu or a step. Off by: the largest "
    "difference by the largest element."
)


def network(trace: Trace) -> str:
    """What is explained, in one line."""
    kinds = [layer.activation for layer in trace.layers]
    named = kinds[0] if len(set(kinds)) == 1 else ", ".join(kinds)
    weighted = "" if trace.pos_weight is None else f", positives weighted by p = {short(trace.pos_weight)}"
    sizes, examples = "-".join(map(str, trace.sizes)), counted(trace.num_examples, "example")
    about = f": {trace.about}" if trace.about else ""
    return f"A {sizes} network, {named}, {LOSSES[trace.loss]}{weighted}, on {examples}{about}"


def counted(number: int, what: str) -> str:
    """1 example, 2 examples."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def notation(trace: Trace) -> str:
    """The symbols, in one paragraph."""
    mean = "examples" if trace.sizes[-1] == 1 else f"examples and their {trace.sizes[-1]} outputs"
    return (
        "a[0] is the input and is not counted as a layer; W[l] has a row for each neuron of layer l; δ[l] is ∂𝓛/∂z[l]; "
        "shapes are those of one example as a column, numbers have a row for each example; J is the mean of 𝓛 over the "
        f"{mean}. Computed in {trace.dtype}."
    )


def forward_shapes(layer: LayerTrace) -> str:
    """The shapes of a weighted sum, and what its bias is."""
    n, before = layer.weight.shape
    bias = "" if layer.bias is None else f" + {size((n, 1))}"
    return f"{size((n, 1))} = ({size((n, before))}) ({size((before, 1))}){bias};  bias: {BIAS[layer.bias_kind]}"


def sum_of(written: WeightedSum) -> str:
    """A sum of products with its numbers."""
    terms = [f"{factor(left)}·{factor(right)}" for left, right in written.terms]
    if written.more:
        terms.append(f"… {written.more} more ({short(written.rest)})")
    if written.bias is not None:
        terms.append(factor(written.bias))
    return " + ".join(terms)


def output_of(layer: LayerTrace, example: int, neuron: int) -> str:
    """a = g(z) with its numbers."""
    z, a = float(layer.z[example, neuron]), float(layer.a[example, neuron])
    return f"{NAMES[layer.activation]}({short(z)}) = {short(a)}"


def apart(layer: LayerTrace) -> Sequence[tuple[str, Tensor]]:
    """The names and numbers of the product apart and cancelled."""
    one = layer.cancellation
    assert one is not None
    return ("multiplied as they are", one.apart), ("and in float32", one.apart_in_float32), ("a − y", one.cancelled)


def naive(check: DimensionCheck) -> str:
    """The naive product with its shapes."""
    return f"{check.formula}   is   " + " · ".join(f"({size(shape)})" for shape in check.shapes)


def verdict(check: DimensionCheck, layer: int) -> str:
    """Why the naive product is not the answer, and what is."""
    return f"{why_not(check, layer)} The form that fits: δ[{layer}] = {check.fitting}"


def why_not(check: DimensionCheck, layer: int) -> str:
    """Why the naive product is not the answer."""
    left, right, *_ = check.shapes
    needed = f"δ[{layer}] has to be {size(check.needed)}"
    if check.product is None:
        what = f"({size(left)}) and ({size(right)}) cannot be multiplied"
    else:
        what = (
            f"({size(left)}) · ({size(right)}) can be multiplied only because layer {layer + 1} has one neuron, and "
            f"gives a row of {size(check.product)}"
        )
    return f"It does not fit: {what}; {needed}."


def vectorised(layer: LayerTrace) -> list[str]:
    """The gradients for m examples, with their shapes."""
    m, n, before = len(layer.a), *layer.weight.shape
    said = [f"m = {m} examples: ∂J/∂W[{layer.number}] = {layer.grad_weight.formula}, ({n} × {m}) ({m} × {before})"]
    if layer.grad_bias is not None:
        said.append(f"{' ' * len(f'm = {m} examples:')} ∂J/∂b[{layer.number}] = {layer.grad_bias.formula}")
    return said


def elements(one: Comparison, most: int) -> list[tuple[str, float, float, float, float]]:
    """The first elements of a parameter, row by row: name, by hand, autograd, differences, ulp."""
    columns = one.by_hand.shape[-1]
    values = (t.flatten()[: most * columns].tolist() for t in (one.by_hand, one.autograd, one.differences, one.ulp))
    named = [(place_of(one, place), *numbers) for place, numbers in enumerate(zip(*values, strict=True))]
    return [element for place, element in enumerate(named) if place % columns < most][: 2 * most]


def place_of(one: Comparison, position: int) -> str:
    """The name of an element, counted from 1: W[1] 2,1 and b[1] 3."""
    if one.by_hand.dim() == 1:
        return f"{one.name} {position + 1}"
    i, j = divmod(position, one.by_hand.shape[1])
    return f"{one.name} {i + 1},{j + 1}"


def agreement(trace: Trace) -> str:
    """Whether the three gradients agree, and how well."""
    compared = [one for layer in trace.layers for one in layer.comparisons]
    if not trace.agrees:
        wrong = ", ".join(one.name for one in compared if not one.agrees)
        return f"They do not agree: {wrong}."
    hand = max(one.relative for one in compared)
    numeric = max((one.relative_differences for one in compared if one.relative_differences >= 0), default=math.nan)
    worst = max(float(one.ulp.max()) for one in compared)
    return (
        f"All agree: by hand and autograd within {units(worst)} of each element and {relative(hand)} of the largest, "
        f"central differences within {relative(numeric)}."
    )


def last_error(trace: Trace) -> str:
    """δ[L] of one output as a formula."""
    delta = next(one for one in trace.layers[-1].factors if one.role == "delta")
    return delta.formula.text


def many_steps(trace: Trace, descent: Descent) -> str:
    """What many steps of gradient descent did to the loss."""
    first, last = short(descent.losses[0]), short(descent.losses[-1])
    examples = "this example" if trace.num_examples == 1 else "these examples"
    return (
        f"Plain gradient descent on {examples} alone, from these weights, with η = {short(descent.lr)}. "
        f"J is {first} at first and {last} after {len(descent.losses) - 1} steps."
    )


def step(trace: Trace) -> str:
    """What the step of gradient descent did to the loss."""
    before, after = trace.value, trace.value_after
    if after != after:
        return f"Loss before {short(before)}, after the step none: the output is no probability any more."
    if after < before:
        return f"Loss before {short(before)}, after {short(after)}."
    if after == before:
        return f"Loss before {short(before)}, after {short(after)}: the gradient is 0, or too small to matter."
    return f"Loss before {short(before)}, after {short(after)}: the step was too long, take a smaller η."
