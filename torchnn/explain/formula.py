"""Formulas in two notations: plain text for the terminal, MathML for the browser."""

import html
from dataclasses import dataclass

FUNCTIONS = ("log",)
WORDS = ("where", "else")
SUPERSCRIPTS = {"-z": "⁻ᶻ", "z": "ᶻ", "2": "²"}


@dataclass(frozen=True)
class Formula:
    """One formula in two notations.

    Attributes:
        text: on one line, as "z[1] = W[1] a[0] + b[1]".
        mathml: the inside of a `<math>` element.
    """

    text: str
    mathml: str

    def __str__(self) -> str:
        return self.text


Part = Formula | str


def symbol(name: str, layer: int | None = None, transposed: bool = False) -> Formula:
    """A letter, with the number of its layer and the sign of a transpose if asked for.

    >>> symbol("W", 2, transposed=True).text
    'W[2]ᵀ'
    """
    letter = f"<mi>{name}</mi>"
    if layer is None and not transposed:
        return Formula(name, letter)
    above = "" if layer is None else f"<mo stretchy=false>[</mo><mn>{layer}</mn><mo stretchy=false>]</mo>"
    text = name if layer is None else f"{name}[{layer}]"
    if transposed:
        above += "<mo lspace=.1em rspace=0>⊤</mo>"
    return Formula(text + ("ᵀ" if transposed else ""), f"<msup>{letter}<mrow>{above}</mrow></msup>")


def power(base: Part, exponent: str) -> Formula:
    """`base` with one of the exponents that the derivation needs: "2", "z" or "-z"."""
    inner = as_formula(base)
    above = {"2": "<mn>2</mn>", "z": "<mi>z</mi>", "-z": "<mrow><mo>−</mo><mi>z</mi></mrow>"}
    return Formula(inner.text + SUPERSCRIPTS[exponent], f"<msup>{inner.mathml}{above[exponent]}</msup>")


def fraction(above: Part, below: Part) -> Formula:
    """A fraction. In plain text, a numerator or denominator with several terms gets brackets.

    >>> fraction(row("a", "−", "y"), "2").text
    '(a − y) / 2'
    """
    upper, lower = as_formula(above), as_formula(below)
    text = f"{with_brackets(upper.text)} / {with_brackets(lower.text)}"
    return Formula(text, f"<mfrac><mrow>{upper.mathml}</mrow><mrow>{lower.mathml}</mrow></mfrac>")


def derivative(of: Part, by: Part) -> Formula:
    """A partial derivative.

    >>> derivative("𝓛", symbol("W", 1)).text
    '∂𝓛/∂W[1]'
    """
    upper, lower = as_formula(of), as_formula(by)
    above, below = f"<mo>∂</mo>{upper.mathml}", f"<mo>∂</mo>{lower.mathml}"
    return Formula(f"∂{upper.text}/∂{lower.text}", f"<mfrac><mrow>{above}</mrow><mrow>{below}</mrow></mfrac>")


def group(*parts: Part) -> Formula:
    """Parts in round brackets."""
    inner = row(*parts)
    return Formula(f"({inner.text})", f"<mrow><mo>(</mo>{inner.mathml}<mo>)</mo></mrow>")


def call(name: str, *argument: Part) -> Formula:
    """A function and its argument.

    >>> call("σ", symbol("z", 1)).text
    'σ(z[1])'
    """
    inner = group(*argument)
    return Formula(f"{name}{inner.text}", f"<mi>{name}</mi><mo>&#x2061;</mo>{inner.mathml}")


def row(*parts: Part) -> Formula:
    """Parts one after the other, separated by spaces."""
    formulas = [as_formula(part) for part in parts]
    return Formula(
        " ".join(formula.text for formula in formulas),
        "<mrow>" + "".join(formula.mathml for formula in formulas) + "</mrow>",
    )


def as_formula(part: Part) -> Formula:
    """Turn a string into a letter, a number, a word or an operator."""
    if isinstance(part, Formula):
        return part
    if part.isdigit():
        return Formula(part, f"<mn>{part}</mn>")
    if part in FUNCTIONS:
        return Formula(part, f"<mspace width=.17em></mspace><mi>{part}</mi><mo>&#x2061;</mo>")
    if part in WORDS:
        return Formula(part, f"<mtext>&nbsp;{part}&nbsp;</mtext>")
    tag = "mi" if part[0].isalpha() else "mo"
    return Formula(part, f"<{tag}>{html.escape(part)}</{tag}>")


def with_brackets(text: str) -> str:
    """`text` in brackets, unless it is a single term or has brackets already."""
    is_group = text.startswith("(") and text.endswith(")") and text.count("(") == 1
    return f"({text})" if " " in text and not is_group else text
