"""What an explanation holds: every number of one forward and one backward pass, as data.

Renderers read this and compute nothing. Examples are rows. Tensors are float64 unless another dtype was asked for, and
belong to the trace alone.
"""

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from torchnn.explain.formula import Formula
from torchnn.explain.parts import (
    Cancellation,
    Comparison,
    Descent,
    DimensionCheck,
    Factor,
    Finding,
    WeightedSum,
)


@dataclass(frozen=True)
class LayerTrace:
    """One layer, there and back.

    Attributes:
        number: l, from 1.
        activation: name of g[l].
        bias_kind: "per neuron", "shared" or "none".
        weight: W[l], (n[l], n[l−1]).
        bias: b[l], (n[l],), (1,) or None.
        a_before: a[l−1], (m, n[l−1]).
        z: weighted sums, (m, n[l]).
        a: activations, (m, n[l]).
        forward: the formulas of the forward pass: one example, then all examples as rows.
        chain: ∂𝓛/∂W[l] as the chain rule writes it.
        dimension_check: the naive product, None in the last layer.
        factors: every factor with its numbers, in the order of the derivation.
        cancellation: of the first two factors, in the last layer of a sigmoid and binary cross-entropy only.
        slope: g'(z[l]), (m, n[l]).
        delta: δ[l] = ∂𝓛/∂z[l] of each example, not yet divided by m, (m, n[l]).
        grad_input: what is passed back, ∂𝓛/∂a[l−1], (m, n[l−1]).
        grad_weight: ∂J/∂W[l], compared.
        grad_bias: ∂J/∂b[l], compared; None without a bias.
        new_weight: W[l] after one step of gradient descent.
        new_bias: b[l] after it.
    """

    number: int
    activation: str
    bias_kind: str
    weight: Tensor
    bias: Tensor | None
    a_before: Tensor
    z: Tensor
    a: Tensor
    forward: tuple[Formula, ...]
    chain: Formula
    dimension_check: DimensionCheck | None
    factors: tuple[Factor, ...]
    cancellation: Cancellation | None
    slope: Tensor
    delta: Tensor
    grad_input: Tensor
    grad_weight: Comparison
    grad_bias: Comparison | None
    new_weight: Tensor
    new_bias: Tensor | None

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Those of the weight and, if there is one, of the bias."""
        return (self.grad_weight,) if self.grad_bias is None else (self.grad_weight, self.grad_bias)

    def weighted_sum(self, example: int, neuron: int, max_terms: int) -> WeightedSum:
        """z of one neuron for one example, as W a + b written out."""
        bias = None if self.bias is None else float(self.bias[neuron if self.bias.numel() > 1 else 0])
        pairs = self.weight[neuron], self.a_before[example]
        return written_out(*pairs, bias, float(self.z[example, neuron]), max_terms)

    def error_sum(self, example: int, neuron: int, max_terms: int) -> WeightedSum:
        """What is passed back to neuron `neuron` of the layer before, as Wᵀδ written out."""
        pairs = self.weight[:, neuron], self.delta[example]
        return written_out(*pairs, None, float(self.grad_input[example, neuron]), max_terms)

    def signal(self, example: int) -> Tensor:
        """What each connection carries forward, w·a, (n[l], n[l−1])."""
        return self.weight * self.a_before[example]

    def blame(self, example: int) -> Tensor:
        """What each connection carries back, w·δ, (n[l], n[l−1])."""
        return self.weight * self.delta[example][:, None]


def written_out(left: Tensor, right: Tensor, bias: float | None, total: float, max_terms: int) -> WeightedSum:
    pairs = zip(left[:max_terms].tolist(), right[:max_terms].tolist(), strict=True)
    rest = float((left[max_terms:] * right[max_terms:]).sum())
    return WeightedSum(tuple(pairs), max(len(left) - max_terms, 0), rest, bias, total)


@dataclass(frozen=True)
class Trace:
    """One forward pass, one backward pass and one step of gradient descent, number by number.

    Attributes:
        sizes: n[0] … n[L].
        layers: one for each layer, from the first.
        x: inputs, (m, n[0]).
        y: targets, (m, n[L]).
        columns: names of the inputs.
        about: what model and rows these are, or "".
        loss: "binary_cross_entropy" or "mse".
        pos_weight: weight of the positive class, or None.
        loss_formula: 𝓛 of one output.
        losses: 𝓛 of each element, (m, n[L]).
        value: J, the mean of `losses`.
        lr: η of the step.
        value_after: J after the step.
        findings: warnings, the gravest first.
        descent: many steps, if they were asked for.
        dtype: of the numbers, as "float64".
    """

    sizes: tuple[int, ...]
    layers: tuple[LayerTrace, ...]
    x: Tensor
    y: Tensor
    columns: tuple[str, ...]
    about: str
    loss: str
    pos_weight: float | None
    loss_formula: Formula
    losses: Tensor
    value: float
    lr: float
    value_after: float
    findings: tuple[Finding, ...]
    descent: Descent | None
    dtype: str

    @property
    def num_examples(self) -> int:
        """m."""
        return len(self.x)

    @property
    def agrees(self) -> bool:
        """Whether every gradient by hand is what autograd and central differences say."""
        return all(one.agrees for layer in self.layers for one in layer.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON can hold: tensors as nested lists, formulas as text.

        What is no finite number becomes "inf", "-inf" or "nan", and None where a difference was not computed.
        """
        plain: dict[str, Any] = as_plain(self)
        return plain | {"agrees": self.agrees}


def as_plain(value: Any) -> Any:
    """Dataclasses as dictionaries, tensors as nested lists, numbers that are not finite as strings."""
    if isinstance(value, Formula):
        return value.text
    if isinstance(value, Comparison):
        differences = [[None if n != n else n for n in line] for line in _lines(value.differences)]
        plain = {field.name: as_plain(getattr(value, field.name)) for field in fields(value)}
        return plain | {"differences": differences if value.differences.dim() == 2 else differences[0]}
    if is_dataclass(value):
        return {field.name: as_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Tensor):
        return as_plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [as_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _lines(value: Tensor) -> list[list[float]]:
    lines: list[list[float]] = value.reshape(-1, value.shape[-1]).tolist()
    return lines
