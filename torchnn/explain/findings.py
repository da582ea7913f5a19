"""What a learner should be warned of, in sentences; what is measured is in `measures`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchnn.explain.measures import VANISHED, dead, delta_by_autograd, lost_errors, relative_norms, saturated_share
from torchnn.explain.network import Layer
from torchnn.explain.parts import Finding
from torchnn.explain.trace import LayerTrace
from torchnn.ops.loss import binary_cross_entropy_with_logits_delta

FEW = 6  # neurons named one by one


def findings(layers: Sequence[LayerTrace], y: Tensor, cancels: bool, trained: Sequence[Layer]) -> tuple[Finding, ...]:
    """All warnings about one pass: the loss first, then the layers from the last.

    Args:
        layers: of the trace.
        y: targets.
        cancels: whether the last layer is a sigmoid under binary cross-entropy.
        trained: the layers in the dtype in which they are trained.
    """
    found = lost_loss(layers[-1], y, trained[-1].weight.dtype) if cancels else []
    found += unequal_gradients(layers)
    for layer in reversed(layers):
        found += stuck_neurons(layer)
    return tuple(found)


def lost_loss(last: LayerTrace, y: Tensor, dtype: torch.dtype) -> list[Finding]:
    """Binary cross-entropy of a saturated sigmoid, whose error autograd loses."""
    z = last.z.to(dtype)
    delta = binary_cross_entropy_with_logits_delta(last.z, y)
    lost = lost_errors(z, y, delta.to(dtype))
    if not bool(lost.any()):
        return []
    example, neuron = [int(position) for position in lost.nonzero()[0]]
    got, right = float(delta_by_autograd(z, y)[example, neuron]), float(delta[example, neuron])
    name = str(dtype).removeprefix("torch.")
    sentence = (
        f"example {example + 1}: the last sigmoid is saturated (z = {float(last.z[example, neuron]):.4g}), and in "
        f"{name} BCELoss after Sigmoid gives autograd δ = {got:.4g} where a − y is {right:.4g}: the two terms lose it "
        "when they are computed apart. The cancelled form keeps it."
    )
    return [Finding("saturated_loss", last.number, (neuron + 1,), sentence)]


def unequal_gradients(layers: Sequence[LayerTrace]) -> list[Finding]:
    """Layers whose gradient is far smaller, or far larger, than the last layer's."""
    found = []
    ratios = relative_norms([layer.grad_weight.by_hand for layer in layers]).tolist()
    for layer, ratio in zip(layers[:-1], ratios[:-1], strict=True):
        if ratio < VANISHED:
            kind, what = "vanishing", "it learns almost nothing while the last layer learns"
        elif not ratio <= 1 / VANISHED:
            kind, what = "exploding", "a step that suits the last layer is far too long for it"
        else:
            continue
        size = "is 0" if ratio == 0 else f"has {ratio:.2g} of the last layer's norm"
        found.append(Finding(kind, layer.number, (), f"the gradient of W[{layer.number}] {size}: {what}."))
    return found


def stuck_neurons(layer: LayerTrace) -> list[Finding]:
    """Saturated neurons, and ReLUs that no example activates (one example alone cannot show that)."""
    found = []
    examples = len(layer.a)
    everywhere = "on the one example" if examples == 1 else f"on all {examples} examples"
    saturated = numbers(saturated_share(layer.a, layer.activation) == 1)
    if saturated:
        sentence = (
            f"{named(saturated)} of layer {layer.number} {is_or_are(saturated)} saturated {everywhere}: "
            f"g′(z) is below 1 % of its largest value, so that almost no error passes."
        )
        found.append(Finding("saturated", layer.number, saturated, sentence))
    dead_ones = numbers(dead(layer.a, layer.activation)) if examples > 1 else ()
    if dead_ones:
        sentence = (
            f"{named(dead_ones)} of layer {layer.number} {is_or_are(dead_ones)} 0 {everywhere}: a dead ReLU gets no "
            "gradient, and none of these examples can revive it."
        )
        found.append(Finding("dead_relu", layer.number, dead_ones, sentence))
    return found


def numbers(chosen: Tensor) -> tuple[int, ...]:
    """Neurons from 1, where `chosen` (n,) is true."""
    return tuple(int(position) + 1 for position in chosen.nonzero())


def named(neurons: Sequence[int]) -> str:
    """Neurons in words: one by name, of many the first few.

    >>> named([3]), named(range(1, 10))
    ('neuron 3', 'neurons 1, 2, 3, 4, 5, 6 and 3 more')
    """
    if len(neurons) == 1:
        return f"neuron {neurons[0]}"
    listed = ", ".join(map(str, neurons[:FEW]))
    return f"neurons {listed}" + (f" and {len(neurons) - FEW} more" if len(neurons) > FEW else "")


def is_or_are(neurons: Sequence[int]) -> str:
    return "is" if len(neurons) == 1 else "are"
