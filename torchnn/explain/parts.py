"""The parts of a trace."""

from dataclasses import dataclass

from torch import Tensor

from torchnn.explain.formula import Formula


@dataclass(frozen=True)
class WeightedSum:
    """A sum of products written out, as far as there is room.

    Attributes:
        terms: pairs of factors, at most as many as were asked for.
        more: how many products are not among `terms`.
        rest: what those add up to.
        bias: what is added to the products, or None.
        total: the sum of everything.
    """

    terms: tuple[tuple[float, float], ...]
    more: int
    rest: float
    bias: float | None
    total: float


@dataclass(frozen=True)
class Factor:
    """One factor of the chain rule.

    Attributes:
        role: "loss_slope", "activation_slope", "passed_back", "delta", "weight_slope", "bias_slope", "grad_weight",
            "grad_bias" or "input_slope".
        symbol: what it is, as ∂𝓛/∂a[2].
        formula: what it comes to, for one example.
        shape: of one example, as a column, as the text counts.
        value: the numbers: of a vector (m, n), a row for each example; of a gradient of W or b the mean over the
            examples, in the parameter's shape.
    """

    role: str
    symbol: Formula
    formula: Formula
    shape: tuple[int, int]
    value: Tensor


@dataclass(frozen=True)
class DimensionCheck:
    """The naive product of the factors below a layer, and why it does not give δ.

    Attributes:
        formula: the factors in the order in which the chain rule names them.
        shapes: of each of these factors, for one example.
        multiplies: whether the first two can be multiplied at all, which is so only after a layer of one neuron.
        product: the shape of that product, or None.
        needed: the shape that δ has.
        fitting: the form that fits.
    """

    formula: Formula
    shapes: tuple[tuple[int, int], ...]
    multiplies: bool
    product: tuple[int, int] | None
    needed: tuple[int, int]
    fitting: Formula


@dataclass(frozen=True)
class Cancellation:
    """Terms 1 and 2 of the last layer multiplied as they stand, and cancelled first.

    Attributes:
        formula: of the cancellation.
        apart: the product in the dtype of the trace, (m, n[L]).
        apart_in_float32: the product in float32, the dtype in which networks are usually trained.
        cancelled: a − y.
    """

    formula: Formula
    apart: Tensor
    apart_in_float32: Tensor
    cancelled: Tensor


@dataclass(frozen=True)
class Comparison:
    """The gradient of one parameter, three times.

    Attributes:
        name: as "W[1]".
        formula: the form for m examples, rows.
        by_hand: by this library's derived backward.
        autograd: by PyTorch's, on the same network in torch's own operations.
        differences: (J(w + h) − J(w − h)) / 2h in float64; not a number where it was not computed, or where the step
            crosses the kink of a relu or a step.
        ulp: |by hand − autograd|, element by element, in units in the last place of autograd's.
        relative: the largest |by hand − autograd| by the largest element.
        relative_differences: the largest |by hand − differences| by the largest element of those that were
            computed; not a number where there are none.
        agrees: whether both are as near as rounding and the step h allow.
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


@dataclass(frozen=True)
class Finding:
    """Something that a learner should know about these numbers.

    Attributes:
        kind: "saturated", "dead_relu", "vanishing", "exploding" or "saturated_loss".
        layer: number of the layer.
        neurons: the neurons that are meant, from 1; empty if the whole layer is.
        sentence: what it is and what it does.
    """

    kind: str
    layer: int
    neurons: tuple[int, ...]
    sentence: str


@dataclass(frozen=True)
class Frame:
    """The network after some steps of gradient descent.

    Attributes:
        step: how many steps were taken.
        loss: J after them.
        surface: for two inputs and one output, the output on a grid, (rows, columns) from low to high; else None.
    """

    step: int
    loss: float
    surface: Tensor | None


@dataclass(frozen=True)
class Descent:
    """Plain gradient descent on the examples of the trace, from its weights.

    Attributes:
        lr: η.
        losses: J after 0, 1, … steps.
        frames: some of the steps, the first and the last among them.
        horizontal: the first input's values on the grid of the surfaces, or None.
        vertical: the second input's.
    """

    lr: float
    losses: tuple[float, ...]
    frames: tuple[Frame, ...]
    horizontal: Tensor | None
    vertical: Tensor | None
