"""The sentences of an explanation, which the terminal and the page share."""

import math
from collections.abc import Sequence

from torch import Tensor

from torchnn.explain.derivation import ACTIVATION_SYMBOLS
from torchnn.explain.records import Comparison, Descent, DimensionCheck, LayerTrace, Trace, WeightedSum
from torchnn.explain.render.numbers import factor, relative, short, size, units

ROLES = {
    "loss_slope": "slope of the loss",
    "activation_slope": "slope of the activation",
    "passed_back": "error passed back",
    "delta": "δ, the error",
    "weight_slope": "derivative of z by W",
    "grad_weight": "gradient of the weights",
    "bias_slope": "derivative of z by b",
    "grad_bias": "gradient of the bias",
    "input_slope": "derivative of z by a",
}
MAX_EXAMPLES = 4  # examples that are written out
PER_EXAMPLE = ("loss_slope", "activation_slope", "passed_back", "delta", "weight_slope", "bias_slope")
BIAS_NAMES = {"per neuron": "one number per neuron", "shared": "one number shared by the layer", "none": "none"}
FINDING_NAMES = {
    "saturated": "saturated",
    "dead_relu": "dead ReLU",
    "vanishing": "vanishing gradient",
    "exploding": "exploding gradient",
    "saturated_loss": "saturated loss",
}
LOSS_WORDS = {"binary_cross_entropy": "binary cross-entropy", "mse": "squared error"}
NO_WARNINGS = (
    "None: no neuron is saturated or dead, no gradient vanishes or explodes, and the loss keeps the whole error."
)
WHY_CANCEL = (
    "On paper all three are equal. In floating point, the product divides by a(1 − a), which is never taken smaller "
    "than 1e−12, and then multiplies by a(1 − a) again. Near a = 0 and a = 1 this loses the error. a − y is accurate "
    "everywhere."
)
BACKWARD_LAST = (
    "Backpropagation starts at the loss. The first two factors of the chain rule give δ, the error of the last layer. "
    "From δ follow the gradients of W and b."
)
BACKWARD_HIDDEN = (
    "The error of the layer above is passed back through the weights of that layer. Multiplied by the slope of this "
    "layer's activation, it gives δ, the error of this layer."
)
UPDATE_RULES = "W ← W − η ∂J/∂W, b ← b − η ∂J/∂b"
COMPARED = (
    "By hand: the backward derived in this library. Autograd: PyTorch's own backward, on the same network built from "
    "torch operations. Central differences: (J(w + h) − J(w − h)) / 2h, which needs no derivative and is accurate to "
    "about half of the digits. A dash means that no difference was computed, or that the step h crosses the kink of a "
    "relu or step function. “Off by” is the largest difference, divided by the largest element. One ulp (unit in the "
    "last place) is the distance to the next floating-point number."
)


def network(trace: Trace) -> str:
    """What is explained, in one line."""
    kinds = [layer.activation for layer in trace.layers]
    activation = kinds[0] if len(set(kinds)) == 1 else ", ".join(kinds)
    weighted = "" if trace.pos_weight is None else f", positive class weighted by p = {short(trace.pos_weight)}"
    sizes, examples = "-".join(map(str, trace.sizes)), counted(trace.num_examples, "example")
    about = f": {trace.about}" if trace.about else ""
    return (
        f"A {sizes} network (activation: {activation}; loss: {LOSS_WORDS[trace.loss]}{weighted}) on {examples}{about}"
    )


def counted(number: int, noun: str) -> str:
    """A number and a noun: 1 example, 2 examples."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def notation(trace: Trace) -> str:
    """The meaning of the symbols."""
    mean = "examples" if trace.sizes[-1] == 1 else f"examples and their {trace.sizes[-1]} outputs"
    return (
        "a[0] is the input and is not counted as a layer. W[l] has one row per neuron of layer l. δ[l] is ∂𝓛/∂z[l]. "
        "Shapes are those of one example, written as a column. Numbers have one row per example. "
        f"J is the mean of 𝓛 over the {mean}. All numbers are computed in {trace.dtype}."
    )


def forward_shapes(layer: LayerTrace) -> str:
    """The shapes in a weighted sum, and the kind of bias."""
    n, before = layer.weight.shape
    bias = "" if layer.bias is None else f" + ({size((n, 1))})"
    shapes = f"({size((n, 1))}) = ({size((n, before))}) ({size((before, 1))}){bias}"
    return f"Shapes: {shapes}. Bias: {BIAS_NAMES[layer.bias_kind]}."


def sum_of(written: WeightedSum) -> str:
    """A sum of products with its numbers."""
    terms = [f"{factor(left)}·{factor(right)}" for left, right in written.terms]
    if written.more:
        terms.append(rest_of(written))
    if written.bias is not None:
        terms.append(factor(written.bias))
    return " + ".join(terms)


def rest_of(written: WeightedSum) -> str:
    """The terms that are not written out."""
    return f"({counted(written.more, 'more term')}: {short(written.rest)})"


def output_of(layer: LayerTrace, example: int, neuron: int) -> str:
    """a = g(z) with its numbers."""
    z, a = float(layer.z[example, neuron]), float(layer.a[example, neuron])
    return f"{ACTIVATION_SYMBOLS[layer.activation]}({short(z)}) = {short(a)}"


def cancellation_rows(layer: LayerTrace) -> Sequence[tuple[str, Tensor]]:
    """The product of the first two factors, the same in float32, and the cancelled form, each with a name."""
    record = layer.cancellation
    assert record is not None
    dtype = str(record.apart.dtype).removeprefix("torch.")
    return (
        (f"product in {dtype}", record.apart),
        ("product in float32", record.apart_in_float32),
        ("a − y", record.cancelled),
    )


def shaped_product(check: DimensionCheck) -> str:
    """The factors in the order of the chain rule, with their shapes."""
    return f"{check.formula}   shapes: " + " · ".join(f"({size(shape)})" for shape in check.shapes)


def why_not(check: DimensionCheck, layer: int) -> str:
    """Why the product in the order of the chain rule is not δ."""
    left, right, *_ = check.shapes
    needed = f"δ[{layer}] must be {size(check.needed)}"
    if check.product is None:
        return f"The shapes do not fit: ({size(left)}) and ({size(right)}) cannot be multiplied, and {needed}."
    return (
        f"The shapes do not fit: ({size(left)}) · ({size(right)}) can be multiplied only because layer {layer + 1} has "
        f"one neuron. The result is a row of {size(check.product)}, but {needed}."
    )


def vectorised(layer: LayerTrace) -> list[str]:
    """The gradients for m examples, with the shapes that are multiplied."""
    m, n, before = len(layer.a), *layer.weight.shape
    head, number = f"For m = {m} examples: ", layer.number
    lines = [f"{head}∂J/∂W[{number}] = {layer.grad_weight.formula}, shapes ({n} × {m}) ({m} × {before})"]
    if layer.grad_bias is not None:
        lines.append(f"{' ' * len(head)}∂J/∂b[{number}] = {layer.grad_bias.formula}")
    return lines


def elements(comparison: Comparison, max_width: int) -> list[tuple[str, float, float, float, float]]:
    """The first elements of a parameter, row by row: name, by hand, autograd, differences, ulp."""
    columns = comparison.by_hand.shape[-1]
    tensors = comparison.by_hand, comparison.autograd, comparison.differences, comparison.ulp
    values = (tensor.flatten()[: max_width * columns].tolist() for tensor in tensors)
    named = [
        (element_name(comparison, position), *numbers) for position, numbers in enumerate(zip(*values, strict=True))
    ]
    return [element for position, element in enumerate(named) if position % columns < max_width][: 2 * max_width]


def element_name(comparison: Comparison, position: int) -> str:
    """The name of an element, counted from 1: W[1] 2,1 and b[1] 3."""
    if comparison.by_hand.dim() == 1:
        return f"{comparison.name} {position + 1}"
    i, j = divmod(position, comparison.by_hand.shape[1])
    return f"{comparison.name} {i + 1},{j + 1}"


def agreement(trace: Trace) -> str:
    """Whether the three gradients agree, and how closely."""
    comparisons = [comparison for layer in trace.layers for comparison in layer.comparisons]
    if not trace.agrees:
        return f"These gradients differ: {', '.join(one.name for one in comparisons if not one.agrees)}."
    worst = max(float(one.ulp.max()) for one in comparisons)
    hand = max(one.relative for one in comparisons)
    numeric = max((one.relative_differences for one in comparisons if one.relative_differences >= 0), default=math.nan)
    sentences = [
        "All gradients agree.",
        "By hand and autograd are equal."
        if worst == 0
        else f"By hand and autograd differ by at most {units(worst)}, or {relative(hand)} of the largest element.",
    ]
    if not math.isnan(numeric):
        sentences.append(f"Central differences are off by at most {relative(numeric)}.")
    return " ".join(sentences)


def last_error(trace: Trace) -> str:
    """δ[L] of one output as a formula."""
    delta = next(factor for factor in trace.layers[-1].factors if factor.role == "delta")
    return delta.formula.text


def many_steps(trace: Trace, descent: Descent) -> str:
    """What many steps of gradient descent did to the loss."""
    first, last = short(descent.losses[0]), short(descent.losses[-1])
    examples = "this example" if trace.num_examples == 1 else "these examples"
    return (
        f"Plain gradient descent on {examples} only, starting from the weights above, with η = {short(descent.lr)}. "
        f"J is {first} at the start and {last} after {counted(len(descent.losses) - 1, 'step')}."
    )


def after_step(trace: Trace) -> str:
    """What the step of gradient descent did to the loss."""
    before, after = trace.value, trace.value_after
    if math.isnan(after):
        return f"The loss was {short(before)}. After the step it is undefined: the output is no longer a probability."
    sentence = f"The loss was {short(before)} before the step and is {short(after)} after it"
    if after < before:
        return f"{sentence}."
    if after == before:
        return f"{sentence}: the gradient is 0, or too small to change it."
    return f"{sentence}: the step was too large, so use a smaller η."
