"""The records that a trace consists of: every number of one forward and one backward pass, as data.

Renderers only read these records; they compute nothing. Tensors have one row per example, are float64 unless the caller
chose another dtype, and share no memory with the model.
"""

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from torchnn.explain.formula import Formula


@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """A sum of products, written out up to a number of terms.

    Attributes:
        terms: the pairs of factors that are written out.
        more: the number of products that are not in `terms`.
        rest: the sum of those products.
        bias: the number added to the products, or None.
        total: the whole sum.
    """

    terms: tuple[tuple[float, float], ...]
    more: int
    rest: float
    bias: float | None
    total: float


def _write_sum(left: Tensor, right: Tensor, bias: float | None, total: float, max_terms: int) -> WeightedSum:
    """Write out the first `max_terms` products of `left` and `right`, both (n,)."""
    return WeightedSum(
        terms=tuple(zip(left[:max_terms].tolist(), right[:max_terms].tolist(), strict=True)),
        more=max(len(left) - max_terms, 0),
        rest=float((left[max_terms:] * right[max_terms:]).sum()),
        bias=bias,
        total=total,
    )


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One factor of the chain rule.

    Attributes:
        role: "loss_slope", "activation_slope", "passed_back", "delta", "weight_slope", "bias_slope", "grad_weight",
            "grad_bias" or "input_slope".
        symbol: its name, such as ∂𝓛/∂a[2].
        formula: its value for one example, as a formula.
        shape: its shape for one example, where vectors are columns.
        value: its numbers. For a vector (m, n), one row per example. For a gradient of W or b, the mean over the
            examples, in the shape of the parameter.
    """

    role: str
    symbol: Formula
    formula: Formula
    shape: tuple[int, int]
    value: Tensor


@dataclass(frozen=True, kw_only=True)
class DimensionCheck:
    """The factors below a layer, multiplied in the order of the chain rule, and why this product is not δ.

    Attributes:
        formula: the factors in the order in which the chain rule names them.
        shapes: the shape of each of these factors, for one example.
        multiplies: whether the first two can be multiplied at all. They can only if the layer above has one neuron.
        product: the shape of that product, or None.
        needed: the shape of δ.
        fitting: the form whose shapes fit.
    """

    formula: Formula
    shapes: tuple[tuple[int, int], ...]
    multiplies: bool
    product: tuple[int, int] | None
    needed: tuple[int, int]
    fitting: Formula


@dataclass(frozen=True, kw_only=True)
class Cancellation:
    """The first two factors of the last layer, multiplied one after the other, and cancelled on paper first.

    Attributes:
        formula: the cancellation.
        apart: the product in the dtype of the trace, (m, n[L]).
        apart_in_float32: the product in float32, the dtype in which networks are usually trained.
        cancelled: a − y.
    """

    formula: Formula
    apart: Tensor
    apart_in_float32: Tensor
    cancelled: Tensor


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The gradient of one parameter, computed in three ways.

    Attributes:
        name: the parameter, such as "W[1]".
        formula: the gradient for m examples, stored as rows.
        by_hand: from the backward derived in this library.
        autograd: from PyTorch's autograd, on the same network built from torch operations.
        differences: (J(w + h) − J(w − h)) / 2h in float64. NaN where it was not computed, and where the step crosses
            the kink of a relu or step function.
        ulp: |by hand − autograd| of each element, in units in the last place of the autograd value.
        relative: the largest |by hand − autograd|, divided by the largest element.
        relative_differences: the largest |by hand − differences|, divided by the largest element, over those that were
            computed. NaN if none were.
        agrees: whether both deviations are as small as rounding and the step h allow.
    """

    name: str
    formula: Formula
    by_hand: Tensor
    autograd: Tensor
    differences: Tensor
    ulp: Tensor
    relative: float
    relative_differences: float
    agrees: bool


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A warning about these numbers.

    Attributes:
        kind: "saturated", "dead_relu", "vanishing", "exploding" or "saturated_loss".
        layer: the number of the layer.
        neurons: the neurons concerned, counted from 1. Empty if the warning is about the whole layer.
        sentence: what happens and what it causes.
    """

    kind: str
    layer: int
    neurons: tuple[int, ...]
    sentence: str


@dataclass(frozen=True)
class Frame:
    """The network after some steps of gradient descent.

    Attributes:
        step: the number of steps taken.
        loss: J after them.
        surface: for two inputs and one output, the output on a grid, (rows, columns) from low to high. None otherwise.
    """

    step: int
    loss: float
    surface: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Descent:
    """Plain gradient descent on the examples of the trace, starting from its weights.

    Attributes:
        lr: the learning rate η.
        losses: J after 0, 1, … steps.
        frames: some of the steps, including the first and the last.
        horizontal: the grid values of the first input, for the surfaces. None if there are no surfaces.
        vertical: the grid values of the second input.
    """

    lr: float
    losses: tuple[float, ...]
    frames: tuple[Frame, ...]
    horizontal: Tensor | None
    vertical: Tensor | None


@dataclass(frozen=True, kw_only=True)
class LayerTrace:
    """One layer, forward and backward.

    Attributes:
        number: l, counted from 1.
        activation: the name of g[l].
        bias_kind: "per neuron", "shared" or "none".
        weight: W[l], (n[l], n[l−1]).
        bias: b[l], (n[l],), (1,) or None.
        a_before: a[l−1], (m, n[l−1]).
        z: weighted sums, (m, n[l]).
        a: activations, (m, n[l]).
        forward: the formulas of the forward pass: z for one example, Z for all examples as rows, a, and g.
        chain: ∂𝓛/∂W[l] as the chain rule writes it.
        dimension_check: the factors multiplied in the order of the chain rule. None in the last layer.
        factors: every factor with its numbers, in the order of the derivation.
        cancellation: of the first two factors. None unless this is the last layer, with a sigmoid and binary
            cross-entropy.
        slope: g'(z[l]), (m, n[l]).
        delta: δ[l] = ∂𝓛/∂z[l] of each example, not yet divided by m, (m, n[l]).
        grad_input: ∂𝓛/∂a[l−1], which is passed back to the layer below, (m, n[l−1]).
        grad_weight: ∂J/∂W[l], computed in three ways.
        grad_bias: ∂J/∂b[l], computed in three ways. None without a bias.
        new_weight: W[l] after one step of gradient descent.
        new_bias: b[l] after that step.
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
        """The gradient of the weight and, if there is a bias, of the bias."""
        return (self.grad_weight,) if self.grad_bias is None else (self.grad_weight, self.grad_bias)

    def forward_sum(self, example: int, neuron: int, max_terms: int) -> WeightedSum:
        """z of one neuron for one example, written out as W a + b."""
        bias = None if self.bias is None else float(self.bias[neuron if self.bias.numel() > 1 else 0])
        factors = self.weight[neuron], self.a_before[example]
        return _write_sum(*factors, bias, float(self.z[example, neuron]), max_terms)

    def backward_sum(self, example: int, neuron: int, max_terms: int) -> WeightedSum:
        """The error passed back to one neuron of the layer below, written out as Wᵀδ."""
        factors = self.weight[:, neuron], self.delta[example]
        return _write_sum(*factors, None, float(self.grad_input[example, neuron]), max_terms)

    def forward_products(self, example: int) -> Tensor:
        """w·a, the value that each connection carries forward, (n[l], n[l−1])."""
        return self.weight * self.a_before[example]

    def backward_products(self, example: int) -> Tensor:
        """w·δ, the error that each connection carries back, (n[l], n[l−1])."""
        return self.weight * self.delta[example][:, None]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One forward pass, one backward pass and one step of gradient descent, number by number.

    Attributes:
        sizes: n[0] … n[L].
        layers: one record per layer, from the first.
        x: inputs, (m, n[0]).
        y: targets, (m, n[L]).
        columns: the names of the inputs.
        about: which model and rows these are, or "".
        loss: "binary_cross_entropy" or "mse".
        pos_weight: the weight of the positive class, or None.
        loss_formula: 𝓛 of one output.
        losses: 𝓛 of each element, (m, n[L]).
        value: J, the mean of `losses`.
        lr: the learning rate η of the step.
        value_after: J after the step.
        findings: warnings, the most serious first.
        descent: many steps of gradient descent, or None.
        dtype: the dtype of the numbers, such as "float64".
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
        """Whether every gradient by hand agrees with autograd and with central differences."""
        return all(comparison.agrees for layer in self.layers for comparison in layer.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """The trace as plain data for JSON: tensors as nested lists, formulas as text.

        A number that is not finite becomes "inf", "-inf" or "nan". A central difference that was not computed is None.
        """
        plain: dict[str, Any] = _as_plain(self)
        return plain | {"agrees": self.agrees}


def _as_plain(value: Any) -> Any:
    if isinstance(value, Formula):
        return value.text
    if is_dataclass(value):
        plain = {field.name: _as_plain(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, Comparison):
            plain["differences"] = _none_for_nan(plain["differences"])
        return plain
    if isinstance(value, Tensor):
        return _as_plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_as_plain(element) for element in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _none_for_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_none_for_nan(element) for element in value]
    return None if value == "nan" else value
