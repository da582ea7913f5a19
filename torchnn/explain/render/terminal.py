"""The explanation in the terminal. Every number that it prints is in the trace."""

from collections.abc import Iterator

from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from torchnn.explain.records import Comparison, Factor, LayerTrace, Trace
from torchnn.explain.render import words
from torchnn.explain.render.numbers import bracketed, full, lines, more, relative, short, size, units

FORMULA, QUIET = "bold cyan", "dim"


class Explanation:
    """A trace that rich can print.

    Args:
        trace: the explanation.
        max_width: how many neurons, columns and elements of a wide layer are shown.
        layer: the only layer to show; None for all.
    """

    def __init__(self, trace: Trace, max_width: int = 8, layer: int | None = None) -> None:
        self.trace = trace
        self.max_width = max_width
        self.layers = [record for record in trace.layers if layer in (None, record.number)]
        self.examples = range(min(trace.num_examples, words.MAX_EXAMPLES))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.head()
        for layer in self.layers:
            yield from self.forward(layer)
        yield from self.loss()
        for layer in reversed(self.layers):
            yield from self.backward(layer)
        yield from self.gradients()
        yield from self.update()
        yield from self.findings()

    def head(self) -> Iterator[RenderableType]:
        yield Text(words.network(self.trace), style="bold")
        yield Text(words.notation(self.trace), style=QUIET)

    def forward(self, layer: LayerTrace) -> Iterator[RenderableType]:
        yield Rule(f"Layer {layer.number} forward", align="left")
        weighted_sum, of_rows, activation, definition = layer.forward
        yield formula(f"{weighted_sum}   {activation}   {definition}")
        yield Text(words.forward_shapes(layer), style=QUIET)
        if self.trace.num_examples > 1:
            yield Text(f"All examples at once, one per row: {of_rows}", style=QUIET)
        table = plain_table("example", "neuron", "weighted sum", "z", "a")
        for example in self.examples:
            for neuron in range(min(len(layer.weight), self.max_width)):
                written = words.sum_of(layer.forward_sum(example, neuron, self.max_width))
                z, a = float(layer.z[example, neuron]), float(layer.a[example, neuron])
                table.add_row(str(example + 1), str(neuron + 1), written, short(z), short(a))
        yield table
        yield from self.not_shown(len(layer.weight))

    def loss(self) -> Iterator[RenderableType]:
        trace = self.trace
        yield Rule("Loss", align="left")
        yield formula(str(trace.loss_formula))
        table = plain_table("example", "output a", "target y", "𝓛")
        for example in self.examples:
            columns = (trace.layers[-1].a, trace.y, trace.losses)
            table.add_row(
                str(example + 1), *(bracketed(column[example].tolist(), self.max_width) for column in columns)
            )
        yield table
        yield from self.not_shown(0)
        yield Text(f"J = {short(trace.value)}, the mean of 𝓛", style="bold")

    def backward(self, layer: LayerTrace) -> Iterator[RenderableType]:
        yield Rule(f"Layer {layer.number} backward", align="left")
        yield formula(str(layer.chain))
        table = plain_table("factor", "", "formula", "shape", "numbers (one row per example)")
        for factor in layer.factors:
            if factor.role == "delta":
                yield table
                yield from self.between(layer)
                table = plain_table("factor", "", "formula", "shape", "numbers (∂𝓛/∂W and ∂𝓛/∂b: the mean)")
            names = words.ROLES[factor.role], str(factor.symbol)
            table.add_row(*names, str(factor.formula), size(factor.shape), self.numbers(factor))
        yield table
        yield from self.not_shown(len(layer.weight))
        if self.trace.num_examples > 1:
            for line in words.vectorised(layer):
                yield formula(line)

    def between(self, layer: LayerTrace) -> Iterator[RenderableType]:
        """The cancellation in the last layer, or the product that does not fit in the other layers."""
        if layer.cancellation is not None:
            yield Padding(formula(f"These two factors cancel: {layer.cancellation.formula}"), (0, 0, 0, 2))
            for name, value in words.cancellation_rows(layer):
                numbers = "  ".join(bracketed(row, self.max_width) for row in lines(value)[: words.MAX_EXAMPLES])
                yield Text(f"  {name:>18}  {numbers}", style=QUIET)
        if (check := layer.dimension_check) is not None:
            yield Padding(formula(f"In the order of the chain rule: {words.shaped_product(check)}"), (0, 0, 0, 2))
            yield Padding(Text(words.why_not(check, layer.number), style=QUIET), (0, 0, 0, 2))
            yield Padding(formula(f"This form fits: δ[{layer.number}] = {check.fitting}"), (0, 0, 0, 2))

    def numbers(self, factor: Factor) -> str:
        rows = lines(factor.value)
        per_example = factor.role in words.PER_EXAMPLE
        limit, noun = (words.MAX_EXAMPLES, "examples") if per_example else (self.max_width, "rows")
        shown = [bracketed(row, self.max_width) for row in rows[:limit]]
        return "\n".join([*shown, *filter(None, [more(len(rows), limit, noun)])])

    def gradients(self) -> Iterator[RenderableType]:
        yield Rule("Gradients in three ways", align="left")
        yield Text(words.COMPARED, style=QUIET)
        table = plain_table("", "by hand", "autograd", "central differences", "by hand − autograd", "")
        for column in table.columns[1:5]:
            column.justify = "right"
        for layer in reversed(self.layers):
            for comparison in layer.comparisons:
                self.compared(table, comparison)
        yield table
        yield Text(words.agreement(self.trace), style="bold green" if self.trace.agrees else "bold red")

    def compared(self, table: Table, comparison: Comparison) -> None:
        mark = "[green]✓ agree[/]" if comparison.agrees else "[bold red]✗ differ[/]"
        errors = [f"off by {relative(error)}" for error in (comparison.relative_differences, comparison.relative)]
        name = Text(comparison.name, style="bold")
        table.add_row(name, str(comparison.formula), "", *errors, mark, style=QUIET)
        shown = words.elements(comparison, self.max_width)
        for element, *gradients, ulp in shown:
            table.add_row(f" {element}", *map(full, gradients), units(ulp), "")
        if rest := more(comparison.by_hand.numel(), len(shown), "elements"):
            table.add_row(rest, style=QUIET)
        table.add_section()

    def update(self) -> Iterator[RenderableType]:
        yield Rule("One step of gradient descent", align="left")
        yield formula(f"{words.UPDATE_RULES}   η = {short(self.trace.lr)}")
        table = plain_table("", "before", "after")
        for layer in self.layers:
            pairs = [(f"W[{layer.number}]", layer.weight, layer.new_weight)]
            if layer.bias is not None and layer.new_bias is not None:
                pairs.append((f"b[{layer.number}]", layer.bias, layer.new_bias))
            for name, before, after in pairs:
                for row_before, row_after in list(zip(lines(before), lines(after), strict=True))[: self.max_width]:
                    table.add_row(name, bracketed(row_before, self.max_width), bracketed(row_after, self.max_width))
                    name = ""
        yield table
        yield Text(words.after_step(self.trace), style="bold")

    def findings(self) -> Iterator[RenderableType]:
        yield Rule("Warnings", align="left")
        if not self.trace.findings:
            yield Text(words.NO_WARNINGS)
        for finding in self.trace.findings:
            yield Text(f"! {words.FINDING_NAMES[finding.kind]}: {finding.sentence}", style="yellow")

    def not_shown(self, neurons: int) -> Iterator[Text]:
        """What the table above leaves out."""
        rest = more(self.trace.num_examples, len(self.examples), "examples"), more(neurons, self.max_width, "neurons")
        if any(rest):
            yield Text("  " + ", ".join(filter(None, rest)), style=QUIET)


def formula(text: str) -> Text:
    return Text(text, style=FORMULA)


def plain_table(*columns: str) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, show_edge=False, padding=(0, 1))
    for column in columns:
        table.add_column(column, header_style=QUIET, overflow="fold")
    return table
