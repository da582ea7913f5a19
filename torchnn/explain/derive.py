"""`trace`: the derivation, term by term, on the reader's own numbers, by the very operations that train."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchnn.explain import story
from torchnn.explain.compare import by_autograd, by_differences, compare, value_and_sides
from torchnn.explain.descent import descend
from torchnn.explain.findings import findings
from torchnn.explain.formula import Formula, derivative, symbol
from torchnn.explain.inputs import checked_inputs, checked_settings
from torchnn.explain.measures import slope
from torchnn.explain.network import Layer, layers_of
from torchnn.explain.parts import Cancellation, Comparison, DimensionCheck, Factor
from torchnn.explain.passes import (
    Gradient,
    backward,
    descended,
    forward,
    last_delta,
    loss_elements,
    loss_slope,
    value_of,
)
from torchnn.explain.trace import LayerTrace, Trace
from torchnn.ops import loss as losses
from torchnn.ops.activation import ACTIVATIONS
from torchnn.ops.dense import dense_backward
from torchnn.ops.network.loss import cancels

Compared = tuple[Comparison, Comparison | None]

MOST_DIFFERENCES = 256  # of a parameter's elements; each takes two forward passes


def trace(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: str = "binary_cross_entropy",
    pos_weight: float | None = None,
    lr: float = 0.5,
    steps: int = 0,
    columns: Sequence[str] | None = None,
    about: str = "",
    max_differences: int = MOST_DIFFERENCES,
    dtype: torch.dtype = torch.float64,
) -> Trace:
    """Take a network forward, back, and one step of gradient descent, and keep every number.

    The model is read and left as it is. J is the mean over examples and outputs.

    Args:
        model: an `MLP`, or an `nn.Sequential` of Linear and Sigmoid, Tanh, ReLU, Identity, or layers of torchnn.
        x: input, (m, n[0]), or (n[0],) for one example.
        y: target, (m, n[L]); (m,) for one output, (n[L],) for one example.
        loss: "binary_cross_entropy", "mse", or "binary_cross_entropy_with_logits" for a model that ends without a
            sigmoid and gives logits.
        pos_weight: weight of the positive class; binary cross-entropy only.
        lr: η of the step of gradient descent.
        steps: how many steps `Trace.descent` takes; 0 for none.
        columns: names of the inputs; x1, x2, … if None.
        about: what model and rows these are, a few words for the head of the explanation.
        max_differences: how many elements of each parameter are compared with central differences, from the first
            rows and columns.
        dtype: of the numbers by hand and by autograd.

    Raises:
        ValueError: a layer that cannot be explained, shapes that do not fit, numbers that are not finite, targets
            outside [0, 1] under binary cross-entropy, or an argument out of range; the message says which.

    >>> import torchnn
    >>> report = trace(torchnn.MLP([2, 3, 1]), torch.tensor([0.5, -1.0]), torch.tensor([1.0]))
    >>> report.layers[1].delta.shape, report.agrees, report.value_after < report.value
    (torch.Size([1, 1]), True, True)
    """
    trained = layers_of(model)
    loss, trained = checked_settings(loss, trained, pos_weight, lr, steps, max_differences, dtype)
    layers = [layer.cast(dtype) for layer in trained]
    x, y, names = checked_inputs(layers, x, y, loss, columns, dtype)
    p = None if pos_weight is None else torch.tensor(pos_weight, dtype=dtype)

    last = len(layers)
    zs, activations = forward(layers, x)
    elements = loss_elements(zs[-1], y, layers[-1].activation, loss, p)
    by_hand = backward(layers, zs, activations, y, loss, p)
    compared = comparisons(layers, x, y, loss, p, by_hand, max_differences)
    stepped = descended(layers, by_hand, lr)

    told: list[LayerTrace] = []
    delta_above: Tensor | None = None
    for number in range(last, 0, -1):
        told.insert(0, tell(number, layers, zs, activations, y, loss, p, delta_above, compared, stepped))
        delta_above = told[0].delta
    does_cancel = cancels(layers[-1].activation, loss)
    return Trace(
        sizes=(x.shape[1], *(len(layer.weight) for layer in layers)),
        layers=tuple(told),
        x=x,
        y=y,
        columns=names,
        about=about,
        loss=loss,
        pos_weight=pos_weight,
        loss_formula=story.loss(loss, last, pos_weight is not None),
        losses=elements,
        value=float(elements.mean()),
        lr=lr,
        value_after=float(value_of(stepped, x, y, loss, p)),
        findings=findings(told, y, does_cancel, trained),
        descent=descend(layers, x, y, loss, p, lr, steps) if steps else None,
        dtype=str(dtype).removeprefix("torch."),
    )


def comparisons(
    layers: Sequence[Layer],
    x: Tensor,
    y: Tensor,
    loss: str,
    p: Tensor | None,
    by_hand: Sequence[Gradient],
    most: int,
) -> list[Compared]:
    """Each gradient by hand beside autograd's and central differences."""
    autograd = by_autograd(layers, x, y, loss, p)
    exact = [layer.cast(torch.float64) for layer in layers]
    y64, p64 = y.double(), None if p is None else p.double()
    _, activations = forward(exact, x.double())
    scale, outputs = abs(float(value_of(layers, x, y, loss, p))), y.shape[1]
    found: list[Compared] = []
    for number, (layer, hand, auto) in enumerate(zip(exact, by_hand, autograd, strict=True), 1):

        def value(below: int = number - 1) -> tuple[float, Tensor]:
            return value_and_sides(exact[below:], activations[below], y64, loss, p64)

        bias = None
        if layer.bias is not None and hand[1] is not None and auto[1] is not None:
            numeric = by_differences(value, layer.bias, most)
            formula = story.mean_grad_bias(number, outputs)
            bias = compare(f"b[{number}]", formula, hand[1], auto[1], numeric, scale)
        numeric = by_differences(value, layer.weight, most)
        formula = story.mean_grad_weight(number, outputs)
        found.append((compare(f"W[{number}]", formula, hand[0], auto[0], numeric, scale), bias))
    return found


def tell(
    number: int,
    layers: Sequence[Layer],
    zs: Sequence[Tensor],
    activations: Sequence[Tensor],
    y: Tensor,
    loss: str,
    p: Tensor | None,
    delta_above: Tensor | None,
    compared: Sequence[Compared],
    stepped: Sequence[Layer],
) -> LayerTrace:
    """Everything about layer `number`, given δ of the layer above it."""
    layer, last = layers[number - 1], len(layers)
    z, a, a_before = zs[number - 1], activations[number], activations[number - 1]
    g_slope, is_last = slope(a, layer.activation), number == last
    does_cancel = is_last and cancels(layer.activation, loss)
    if is_last:
        head = last_factors(last, a, y, layer.activation, loss, p, g_slope)
        delta = last_delta(z, a, y, layer.activation, loss, p)
        delta_formula = story.last_delta(last, does_cancel, p is not None)
    else:
        assert delta_above is not None
        passed = _passed_back(delta_above, layers[number])
        head = hidden_factors(number, passed, layer.activation, g_slope)
        delta = ACTIVATIONS[layer.activation].backward(passed, a)
        delta_formula = story.delta(number, layer.activation)
    weight, bias = compared[number - 1]
    return LayerTrace(
        number=number,
        activation=layer.activation,
        bias_kind=layer.bias_kind,
        weight=layer.weight,
        bias=layer.bias,
        a_before=a_before,
        z=z,
        a=a,
        forward=(
            story.weighted_sum(number, layer.bias is not None),
            story.weighted_sum_of_rows(number, layer.bias is not None),
            story.activation(number, layer.activation),
            story.DEFINITIONS[layer.activation],
        ),
        chain=story.chain(number, last),
        dimension_check=None if is_last else dimension_check(number, layers),
        factors=(*head, *tail_factors(number, layer, delta, delta_formula, a_before, weight, bias)),
        cancellation=cancellation(last, a, delta, y) if does_cancel and p is None else None,
        slope=g_slope,
        delta=delta,
        grad_input=_passed_back(delta, layer),
        grad_weight=weight,
        grad_bias=bias,
        new_weight=stepped[number - 1].weight,
        new_bias=stepped[number - 1].bias,
    )


def _passed_back(delta: Tensor, layer: Layer) -> Tensor:
    passed, _, _ = dense_backward(delta, delta, layer.weight, None, needs=(True, False, False))
    assert passed is not None
    return passed


def last_factors(
    number: int, a: Tensor, y: Tensor, activation: str, loss: str, p: Tensor | None, g_slope: Tensor
) -> list[Factor]:
    """Terms 1 and 2."""
    of_a, of_z, shape = symbol("a", number), symbol("z", number), (a.shape[1], 1)
    slope_formula = story.loss_slope(loss, number, p is not None)
    return [
        Factor("loss_slope", derivative("𝓛", of_a), slope_formula, shape, loss_slope(a, y, loss, p)),
        Factor("activation_slope", derivative(of_a, of_z), story.activation_slope(number, activation), shape, g_slope),
    ]


def hidden_factors(number: int, passed: Tensor, activation: str, g_slope: Tensor) -> list[Factor]:
    """What comes back from the layer above, and g'."""
    of_a, of_z, shape = symbol("a", number), symbol("z", number), (passed.shape[1], 1)
    return [
        Factor("passed_back", derivative("𝓛", of_a), story.passed_back(number), shape, passed),
        Factor("activation_slope", derivative(of_a, of_z), story.activation_slope(number, activation), shape, g_slope),
    ]


def tail_factors(
    number: int,
    layer: Layer,
    delta: Tensor,
    delta_formula: Formula,
    a_before: Tensor,
    weight: Comparison,
    bias: Comparison | None,
) -> list[Factor]:
    """δ, and what follows from it for W, b and the layer below."""
    n, before = layer.weight.shape
    of_z, of_W, of_b = symbol("z", number), symbol("W", number), symbol("b", number)
    below = symbol("a", number - 1)
    factors = [
        Factor("delta", derivative("𝓛", of_z), delta_formula, (n, 1), delta),
        Factor("weight_slope", derivative(of_z, of_W), symbol("a", number - 1, transposed=True), (1, before), a_before),
        Factor("grad_weight", derivative("𝓛", of_W), story.grad_weight(number), (n, before), weight.by_hand),
    ]
    if bias is not None:
        formula, size = story.grad_bias(number, layer.bias_kind), len(bias.by_hand)
        factors += [
            Factor("bias_slope", derivative(of_z, of_b), story.ONE, (n, 1), torch.ones_like(delta)),
            Factor("grad_bias", derivative("𝓛", of_b), formula, (size, 1), bias.by_hand),
        ]
    transposed = symbol("W", number, transposed=True)
    return [*factors, Factor("input_slope", derivative(of_z, below), transposed, (before, n), layer.weight.T)]


def cancellation(number: int, a: Tensor, delta: Tensor, y: Tensor) -> Cancellation:
    """Terms 1 and 2 multiplied as they stand, in two precisions, beside δ."""
    apart = [losses.binary_cross_entropy_slope(one, y.to(one.dtype)) * slope(one, "sigmoid") for one in (a, a.float())]
    return Cancellation(story.cancellation(number), apart[0], apart[1], delta)


def dimension_check(number: int, layers: Sequence[Layer]) -> DimensionCheck:
    """Whether δ[l+1] · W[l+1] · … can be multiplied as it stands: only by luck."""
    above, n = layers[number].weight.shape
    before = layers[number - 1].weight.shape[1]
    multiplies = above == 1
    return DimensionCheck(
        formula=story.naive(number),
        shapes=((above, 1), (above, n), (n, 1), (1, before)),
        multiplies=multiplies,
        product=(1, n) if multiplies else None,
        needed=(n, 1),
        fitting=story.delta(number, layers[number - 1].activation),
    )
