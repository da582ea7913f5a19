"""The warnings of a trace, in sentences. `measures` defines what is measured."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchnn.explain.measures import VANISHED, dead, delta_by_autograd, lost_errors, relative_norms, saturated_share
from torchnn.explain.network import Layer
from torchnn.explain.records import Finding, LayerTrace
from torchnn.ops.loss import binary_cross_entropy_with_logits_delta

MAX_NAMED = 6  # neurons whose numbers are listed


def findings(layers: Sequence[LayerTrace], y: Tensor, cancels: bool, trained: Sequence[Layer]) -> tuple[Finding, ...]:
    """All warnings: first about the loss, then about the layers, from the last to the first.

    Args:
        layers: the layers of the trace.
        y: targets.
        cancels: whether the last layer is a sigmoid under binary cross-entropy.
        trained: the layers in the dtype used in training.
    """
    found = lost_loss(layers[-1], y, trained[-1].weight.dtype) if cancels else []
    found += unequal_gradients(layers)
    for layer in reversed(layers):
        found += stuck_neurons(layer)
    return tuple(found)


def lost_loss(last: LayerTrace, y: Tensor, dtype: torch.dtype) -> list[Finding]:
    """Warn if the last sigmoid is saturated so that autograd loses the error under binary cross-entropy."""
    z = last.z.to(dtype)
    delta = binary_cross_entropy_with_logits_delta(last.z, y)
    lost = lost_errors(z, y, delta.to(dtype))
    if not bool(lost.any()):
        return []
    example, neuron = [int(position) for position in lost.nonzero()[0]]
    got, right = float(delta_by_autograd(z, y)[example, neuron]), float(delta[example, neuron])
    name = str(dtype).removeprefix("torch.")
    sentence = (
        f"On example {example + 1} the last sigmoid is saturated (z = {float(last.z[example, neuron]):.4g}). With "
        f"BCELoss after Sigmoid in {name}, autograd computes δ = {got:.4g}, but a − y is {right:.4g}: the error is "
        "lost because the two factors are computed one after the other. The cancelled form keeps it."
    )
    return [Finding(kind="saturated_loss", layer=last.number, neurons=(neuron + 1,), sentence=sentence)]


def unequal_gradients(layers: Sequence[LayerTrace]) -> list[Finding]:
    """Warn about layers whose gradient is far smaller or far larger than the last layer's."""
    found = []
    ratios = relative_norms([layer.grad_weight.by_hand for layer in layers]).tolist()
    for layer, ratio in zip(layers[:-1], ratios[:-1], strict=True):
        if ratio < VANISHED:
            kind, effect = "vanishing", "This layer learns almost nothing while the last layer learns."
        elif not ratio <= 1 / VANISHED:
            kind, effect = "exploding", "A learning rate that suits the last layer is far too large for this one."
        else:
            continue
        size = "is 0" if ratio == 0 else f"is {ratio:.2g} times as large as the last layer's"
        sentence = f"The gradient of W[{layer.number}] {size}. {effect}"
        found.append(Finding(kind=kind, layer=layer.number, neurons=(), sentence=sentence))
    return found


def stuck_neurons(layer: LayerTrace) -> list[Finding]:
    """Warn about saturated neurons and dead ReLUs. A single example cannot show that a ReLU is dead."""
    found = []
    examples = len(layer.a)
    everywhere = "on the only example" if examples == 1 else f"on all {examples} examples"
    saturated = numbers(saturated_share(layer.a, layer.activation) == 1)
    if saturated:
        sentence = (
            f"{named(saturated)} of layer {layer.number} {is_or_are(saturated)} saturated {everywhere}: g′(z) is below "
            "1 % of its largest possible value, so almost no error passes through."
        )
        found.append(Finding(kind="saturated", layer=layer.number, neurons=saturated, sentence=sentence))
    dead_relus = numbers(dead(layer.a, layer.activation)) if examples > 1 else ()
    if dead_relus:
        sentence = (
            f"{named(dead_relus)} of layer {layer.number} {is_or_are(dead_relus)} 0 {everywhere}. A dead ReLU "
            "passes no gradient to its weights, so these examples do not train it."
        )
        found.append(Finding(kind="dead_relu", layer=layer.number, neurons=dead_relus, sentence=sentence))
    return found


def numbers(chosen: Tensor) -> tuple[int, ...]:
    """The numbers of the neurons where `chosen` (n,) is true, counted from 1."""
    return tuple(int(position) + 1 for position in chosen.nonzero())


def named(neurons: Sequence[int]) -> str:
    """A list of neurons in words, which starts a sentence.

    >>> named([3]), named(range(1, 10))
    ('Neuron 3', 'Neurons 1, 2, 3, 4, 5, 6 and 3 more')
    """
    if len(neurons) == 1:
        return f"Neuron {neurons[0]}"
    listed = ", ".join(map(str, neurons[:MAX_NAMED]))
    return f"Neurons {listed}" + (f" and {len(neurons) - MAX_NAMED} more" if len(neurons) > MAX_NAMED else "")


def is_or_are(neurons: Sequence[int]) -> str:
    return "is" if len(neurons) == 1 else "are"
