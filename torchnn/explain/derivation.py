"""The formulas of the derivation for one layer (Reference: derivation, sections 2 to 4)."""

from torchnn.explain.formula import Formula, Part, as_formula, call, derivative, fraction, group, power, row, symbol

DEFINITIONS = {
    "identity": row(call("g", "z"), "=", "z"),
    "sigmoid": row(call("σ", "z"), "=", fraction("1", row("1", "+", power("e", "-z")))),
    "tanh": row(
        call("tanh", "z"),
        "=",
        fraction(row(power("e", "z"), "−", power("e", "-z")), row(power("e", "z"), "+", power("e", "-z"))),
    ),
    "relu": row(call("relu", "z"), "=", call("max", "z", ",", "0")),
    "step": row(call("step", "z"), "=", "1", "where", "z", ">", "0", ",", "else", "0"),
}
ACTIVATION_SYMBOLS = {"identity": "g", "sigmoid": "σ", "tanh": "tanh", "relu": "relu", "step": "step"}
LOSS = symbol("𝓛")
SUM = Formula("Σ", "<mo>∑</mo>")
ONE = as_formula("1")
BCE, MSE = "binary_cross_entropy", "mse"


def weighted_sum(layer: int, has_bias: bool) -> Formula:
    """z[l] = W[l] a[l−1] + b[l], one example as a column."""
    bias: list[Part] = ["+", symbol("b", layer)] if has_bias else []
    return row(symbol("z", layer), "=", symbol("W", layer), symbol("a", layer - 1), *bias)


def weighted_sum_of_rows(layer: int, has_bias: bool) -> Formula:
    """Z[l] = A[l−1] W[l]ᵀ + b[l], examples as rows."""
    bias: list[Part] = ["+", symbol("b", layer)] if has_bias else []
    return row(symbol("Z", layer), "=", symbol("A", layer - 1), symbol("W", layer, transposed=True), *bias)


def activation(layer: int, name: str) -> Formula:
    """a[l] = g(z[l])."""
    return row(symbol("a", layer), "=", call(ACTIVATION_SYMBOLS[name], symbol("z", layer)))


def loss(name: str, layer: int, pos_weight: bool) -> Formula:
    """𝓛 of one output."""
    a = symbol("a", layer)
    if name == MSE:
        return row(LOSS, "=", power(group(a, "−", "y"), "2"))
    positive: list[Part] = ["p", "y"] if pos_weight else ["y"]
    return row(LOSS, "=", "−", "[", *positive, "log", a, "+", group("1", "−", "y"), call("log", "1", "−", a), "]")


def loss_slope(name: str, layer: int, pos_weight: bool) -> Formula:
    """∂𝓛/∂a[L]."""
    a = symbol("a", layer)
    if name == MSE:
        return row("2", group(a, "−", "y"))
    variance = row(a, group("1", "−", a))
    if pos_weight:
        return fraction(row(a, group("1", "−", "y"), "−", "p", "y", group("1", "−", a)), variance)
    apart = row("−", fraction("y", a), "+", fraction(row("1", "−", "y"), row("1", "−", a)))
    return row(apart, "=", fraction(row(a, "−", "y"), variance))


def activation_slope(layer: int, name: str) -> Formula:
    """∂a[l]/∂z[l] = g'(z[l]), as a function of the output."""
    a = symbol("a", layer)
    return {
        "identity": row("1"),
        "sigmoid": row(a, group("1", "−", a)),
        "tanh": row("1", "−", power(a, "2")),
        "relu": row("1", "where", a, ">", "0", ",", "else", "0"),
        "step": row("0"),
    }[name]


def last_delta(layer: int, cancels: bool, pos_weight: bool) -> Formula:
    """δ[L]: the product of the first two factors, cancelled if possible."""
    a = symbol("a", layer)
    if cancels and pos_weight:
        return row(a, group("1", "−", "y"), "−", "p", "y", group("1", "−", a))
    if cancels:
        return row(a, "−", "y")
    return row(derivative(LOSS, a), "⊙", derivative(a, symbol("z", layer)))


def cancellation(layer: int) -> Formula:
    """The first two factors as one product, and what remains after cancelling."""
    a = symbol("a", layer)
    variance = row(a, group("1", "−", a))
    return row(fraction(row(a, "−", "y"), variance), "·", variance, "=", a, "−", "y")


def chain(layer: int, last: int) -> Formula:
    """∂𝓛/∂W[l] as the chain rule writes it, from the loss down to the layer."""
    terms: list[Part] = [derivative(LOSS, symbol("a", last)), "·", derivative(symbol("a", last), symbol("z", last))]
    for above in range(last, layer, -1):
        terms += ["·", derivative(symbol("z", above), symbol("a", above - 1))]
        terms += ["·", derivative(symbol("a", above - 1), symbol("z", above - 1))]
    terms += ["·", derivative(symbol("z", layer), symbol("W", layer))]
    return row(derivative(LOSS, symbol("W", layer)), "=", *terms)


def naive_product(layer: int) -> Formula:
    """The factors of ∂𝓛/∂W[l] multiplied in the order of the chain rule."""
    above = layer + 1
    slope = derivative(symbol("a", layer), symbol("z", layer))
    return row(symbol("δ", above), "·", symbol("W", above), "·", slope, "·", symbol("a", layer - 1, transposed=True))


def passed_back(layer: int) -> Formula:
    """The error that is passed back to layer l: W[l+1]ᵀ δ[l+1]."""
    return row(symbol("W", layer + 1, transposed=True), symbol("δ", layer + 1))


def delta(layer: int, name: str) -> Formula:
    """δ[l] = (W[l+1]ᵀ δ[l+1]) ⊙ g'(z[l])."""
    slope = {"sigmoid": activation_slope(layer, name)}.get(
        name, call(f"{ACTIVATION_SYMBOLS[name]}′", symbol("z", layer))
    )
    return row(group(passed_back(layer)), "⊙", slope)


def grad_weight(layer: int) -> Formula:
    """∂𝓛/∂W[l] = δ[l] a[l−1]ᵀ, for one example."""
    return row(symbol("δ", layer), symbol("a", layer - 1, transposed=True))


def grad_bias(layer: int, kind: str) -> Formula:
    """∂𝓛/∂b[l] = δ[l], for one example. A shared bias gets the sum over its neurons."""
    return row(SUM, symbol("δ", layer)) if kind == "shared" else symbol("δ", layer)


def mean_grad_weight(layer: int, outputs: int) -> Formula:
    """∂J/∂W[l] = (1/m) Δᵀ A."""
    return row(one_over_m(outputs), symbol("Δ", layer, transposed=True), symbol("A", layer - 1))


def mean_grad_bias(layer: int, outputs: int) -> Formula:
    """∂J/∂b[l] = (1/m) Σ Δ, summed over the rows."""
    return row(one_over_m(outputs), SUM, symbol("Δ", layer))


def one_over_m(outputs: int) -> Formula:
    """The factor of a mean over m examples and their outputs."""
    if outputs == 1:
        return Formula("(1/m)", fraction("1", "m").mathml)
    return Formula(f"(1/{outputs}m)", fraction("1", row(str(outputs), "m")).mathml)


def update_rule(letter: str, layer: int) -> Formula:
    """W ← W − η ∂J/∂W."""
    parameter = symbol(letter, layer)
    return row(parameter, "←", parameter, "−", "η", derivative("J", parameter))
