"""`trace`: the derivation, term by term, with the numbers of a network, computed by the operations used in training."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchnn.explain import derivation
from torchnn.explain.arguments import checked_inputs, checked_settings
from torchnn.explain.compare import compare_gradients
from torchnn.explain.findings import findings
from torchnn.explain.formula import Formula, derivative, symbol
from torchnn.explain.measures import slope
from torchnn.explain.network import Layer, layers_of
from torchnn.explain.passes import (
    backward,
    descend,
    forward,
    grad_output,
    gradient_step,
    loss_elements,
    mean_loss,
    output_delta,
)
from torchnn.explain.records import Cancellation, Comparison, DimensionCheck, Factor, LayerTrace, Trace
from torchnn.ops import loss as losses
from torchnn.ops.activation import ACTIVATIONS
from torchnn.ops.dense import dense_backward
from torchnn.ops.network.loss import cancels

MAX_DIFFERENCES = 256  # elements of a parameter; each takes two forward passes


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
    max_differences: int = MAX_DIFFERENCES,
    dtype: torch.dtype = torch.float64,
) -> Trace:
    """Run a network forward, backward and through one step of gradient descent, and keep every number.

    The model does not change. J is the mean over examples and outputs.

    Args:
        model: an `MLP`, or an `nn.Sequential` of Linear, Sigmoid, Tanh, ReLU, Identity and layers of torchnn.
        x: input, (m, n[0]), or (n[0],) for one example.
        y: target, (m, n[L]). (m,) is allowed for one output, (n[L],) for one example.
        loss: "binary_cross_entropy", "mse", or "binary_cross_entropy_with_logits" for a model that gives logits
            because it does not end with a sigmoid.
        pos_weight: weight of the positive class, for binary cross-entropy only.
        lr: learning rate η of the step of gradient descent.
        steps: number of steps in `Trace.descent`; 0 for none.
        columns: names of the inputs; x1, x2, … if None.
        about: a few words for the heading: which model and rows these are.
        max_differences: how many elements of each parameter are compared with central differences, from the first
            rows and columns.
        dtype: dtype of the numbers by hand and by autograd.

    Raises:
        ValueError: a layer that cannot be explained, shapes that do not fit, numbers that are not finite, targets
            outside [0, 1] for binary cross-entropy, or an argument out of range. The message says which.

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

    zs, activations = forward(layers, x)
    elements = loss_elements(zs[-1], y, layers[-1].activation, loss, p)
    by_hand = backward(layers, zs, activations, y, loss, p)
    comparisons = compare_gradients(layers, x, y, loss, p, by_hand, max_differences)
    new_layers = gradient_step(layers, by_hand, lr)

    layer_traces: list[LayerTrace] = []
    delta_above: Tensor | None = None
    for number in range(len(layers), 0, -1):
        layer_trace = trace_layer(
            number,
            layers,
            zs,
            activations,
            y,
            loss=loss,
            p=p,
            delta_above=delta_above,
            comparison=comparisons[number - 1],
            new_layer=new_layers[number - 1],
        )
        layer_traces.insert(0, layer_trace)
        delta_above = layer_trace.delta
    return Trace(
        sizes=(x.shape[1], *(len(layer.weight) for layer in layers)),
        layers=tuple(layer_traces),
        x=x,
        y=y,
        columns=names,
        about=about,
        loss=loss,
        pos_weight=pos_weight,
        loss_formula=derivation.loss(loss, len(layers), pos_weight is not None),
        losses=elements,
        value=float(elements.mean()),
        lr=lr,
        value_after=float(mean_loss(new_layers, x, y, loss, p)),
        findings=findings(layer_traces, y, cancels(layers[-1].activation, loss), trained),
        descent=descend(layers, x, y, loss, p, lr, steps) if steps else None,
        dtype=str(dtype).removeprefix("torch."),
    )


def trace_layer(
    number: int,
    layers: Sequence[Layer],
    zs: Sequence[Tensor],
    activations: Sequence[Tensor],
    y: Tensor,
    *,
    loss: str,
    p: Tensor | None,
    delta_above: Tensor | None,
    comparison: tuple[Comparison, Comparison | None],
    new_layer: Layer,
) -> LayerTrace:
    """The record of layer `number`, given δ of the layer above it."""
    layer, last = layers[number - 1], len(layers)
    z, a, a_before = zs[number - 1], activations[number], activations[number - 1]
    g_slope, is_last = slope(a, layer.activation), number == last
    has_cancellation = is_last and cancels(layer.activation, loss)
    if is_last:
        first_role, first_formula = "loss_slope", derivation.loss_slope(loss, number, p is not None)
        first_value = grad_output(a, y, loss, p)
        delta = output_delta(z, a, y, layer.activation, loss, p)
        delta_formula = derivation.last_delta(last, has_cancellation, p is not None)
    else:
        assert delta_above is not None
        first_role, first_formula = "passed_back", derivation.passed_back(number)
        first_value = _grad_input(delta_above, layers[number])
        delta = ACTIVATIONS[layer.activation].backward(first_value, a)
        delta_formula = derivation.delta(number, layer.activation)
    of_a, of_z, shape = symbol("a", number), symbol("z", number), (a.shape[1], 1)
    factors = (
        Factor(role=first_role, symbol=derivative("𝓛", of_a), formula=first_formula, shape=shape, value=first_value),
        Factor(
            role="activation_slope",
            symbol=derivative(of_a, of_z),
            formula=derivation.activation_slope(number, layer.activation),
            shape=shape,
            value=g_slope,
        ),
        *factors_from_delta(number, layer, delta, delta_formula, a_before, *comparison),
    )
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
            derivation.weighted_sum(number, layer.bias is not None),
            derivation.weighted_sum_of_rows(number, layer.bias is not None),
            derivation.activation(number, layer.activation),
            derivation.DEFINITIONS[layer.activation],
        ),
        chain=derivation.chain(number, last),
        dimension_check=None if is_last else check_dimensions(number, layers),
        factors=factors,
        cancellation=compare_cancellation(last, a, delta, y) if has_cancellation and p is None else None,
        slope=g_slope,
        delta=delta,
        grad_input=_grad_input(delta, layer),
        grad_weight=comparison[0],
        grad_bias=comparison[1],
        new_weight=new_layer.weight,
        new_bias=new_layer.bias,
    )


def _grad_input(delta: Tensor, layer: Layer) -> Tensor:
    grad_input, _, _ = dense_backward(delta, delta, layer.weight, None, needs=(True, False, False))
    assert grad_input is not None
    return grad_input


def factors_from_delta(
    number: int,
    layer: Layer,
    delta: Tensor,
    delta_formula: Formula,
    a_before: Tensor,
    weight: Comparison,
    bias: Comparison | None,
) -> list[Factor]:
    """δ, and what follows from it for W, for b and for the layer below."""
    n, before = layer.weight.shape
    of_z, of_W, of_b = symbol("z", number), symbol("W", number), symbol("b", number)
    factors = [
        Factor(role="delta", symbol=derivative("𝓛", of_z), formula=delta_formula, shape=(n, 1), value=delta),
        Factor(
            role="weight_slope",
            symbol=derivative(of_z, of_W),
            formula=symbol("a", number - 1, transposed=True),
            shape=(1, before),
            value=a_before,
        ),
        Factor(
            role="grad_weight",
            symbol=derivative("𝓛", of_W),
            formula=derivation.grad_weight(number),
            shape=(n, before),
            value=weight.by_hand,
        ),
    ]
    if bias is not None:
        factors += [
            Factor(
                role="bias_slope",
                symbol=derivative(of_z, of_b),
                formula=derivation.ONE,
                shape=(n, 1),
                value=torch.ones_like(delta),
            ),
            Factor(
                role="grad_bias",
                symbol=derivative("𝓛", of_b),
                formula=derivation.grad_bias(number, layer.bias_kind),
                shape=(len(bias.by_hand), 1),
                value=bias.by_hand,
            ),
        ]
    input_slope = Factor(
        role="input_slope",
        symbol=derivative(of_z, symbol("a", number - 1)),
        formula=symbol("W", number, transposed=True),
        shape=(before, n),
        value=layer.weight.T,
    )
    return [*factors, input_slope]


def compare_cancellation(number: int, a: Tensor, delta: Tensor, y: Tensor) -> Cancellation:
    """The first two factors multiplied one after the other, in two precisions, to compare with δ."""
    product, in_float32 = (
        losses.binary_cross_entropy_slope(output, y.to(output.dtype)) * slope(output, "sigmoid")
        for output in (a, a.float())
    )
    return Cancellation(
        formula=derivation.cancellation(number), apart=product, apart_in_float32=in_float32, cancelled=delta
    )


def check_dimensions(number: int, layers: Sequence[Layer]) -> DimensionCheck:
    """Check whether δ[l+1] · W[l+1] · … can be multiplied in this order: only if layer l+1 has one neuron."""
    above, n = layers[number].weight.shape
    before = layers[number - 1].weight.shape[1]
    multiplies = above == 1
    return DimensionCheck(
        formula=derivation.naive_product(number),
        shapes=((above, 1), (above, n), (n, 1), (1, before)),
        multiplies=multiplies,
        product=(1, n) if multiplies else None,
        needed=(n, 1),
        fitting=derivation.delta(number, layers[number - 1].activation),
    )
