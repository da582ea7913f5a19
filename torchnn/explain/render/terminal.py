"""An explanation in the terminal; everything it prints stands in the trace."""

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

MOST_EXAMPLES = 4
FORMULA, NUMBER, QUIET = "bold cyan", "default", "dim"


class Explanation:
    """A trace as something that rich can print.

    Args:
        trace: what is explained.
        max_width: how many neurons, columns and elements of a wide layer are shown.
        layer: the only layer that is shown, or None for all.
    """

    def __init__(self, trace: Trace, max_width: int = 8, layer: int | None = None) -> None:
        self.trace = trace
        self.max_width = max_width
        self.layers = [one for one in trace.layers if layer in (None, one.number)]
        self.is_whole = layer is None
        self.examples = range(min(trace.num_examples, MOST_EXAMPLES))

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
        yield formula("   ".join(str(one) for one in (layer.forward[0], layer.forward[2], layer.forward[3])))
        yield Text(words.forward_shapes(layer), style=QUIET)
        if self.trace.num_examples > 1:
            yield Text(f"all examples at once, as rows: {layer.forward[1]}", style=QUIET)
        table = plain_table("example", "neuron", "weighted sum", "z", "a")
        for example in self.examples:
            for neuron in range(min(len(layer.weight), self.max_width)):
                written = words.sum_of(layer.forward_sum(example, neuron, self.max_width))
                z, a = float(layer.z[example, neuron]), float(layer.a[example, neuron])
                table.add_row(str(example + 1), str(neuron + 1), written, short(z), short(a))
        yield table
        yield from self.left_out(len(layer.weight))

    def loss(self) -> Iterator[RenderableType]:
        trace = self.trace
        yield Rule("Loss", align="left")
        yield formula(str(trace.loss_formula))
        table = plain_table("example", "output a", "target y", "𝓛")
        for example in self.examples:
            columns = (trace.layers[-1].a, trace.y, trace.losses)
            table.add_row(str(example + 1), *(bracketed(of[example].tolist(), self.max_width) for of in columns))
        yield table
        yield from self.left_out(0)
        yield Text(f"J = {short(trace.value)}, the mean", style="bold")

    def backward(self, layer: LayerTrace) -> Iterator[RenderableType]:
        yield Rule(f"Layer {layer.number} backward", align="left")
        yield formula(str(layer.chain))
        table = plain_table("factor", "", "formula", "shape", "numbers, a row for each example")
        for factor in layer.factors:
            if factor.role == "delta":
                yield table
                yield from self.between(layer)
                table = plain_table("factor", "", "formula", "shape", "numbers; of ∂𝓛/∂W and ∂𝓛/∂b the mean")
            shown = words.ROLES[factor.role]
            table.add_row(shown, str(factor.symbol), str(factor.formula), size(factor.shape), self.numbers(factor))
        yield table
        yield from self.left_out(len(layer.weight))
        if self.trace.num_examples > 1:
            for line in words.vectorised(layer):
                yield formula(line)

    def between(self, layer: LayerTrace) -> Iterator[RenderableType]:
        """The cancellation of the last layer, or the product that does not fit of the others."""
        if layer.cancellation is not None:
            one = layer.cancellation
            yield Padding(formula(f"these two cancel: {one.formula}"), (0, 0, 0, 2))
            for name, value in words.apart(layer):
                numbers = "  ".join(bracketed(row, self.max_width) for row in lines(value)[:MOST_EXAMPLES])
                yield Text(f"  {name:>22}  {numbers}", style=QUIET)
        if layer.dimension_check is not None:
            yield Padding(formula(f"naive: {words.naive(layer.dimension_check)}"), (0, 0, 0, 2))
            verdict = Text(words.verdict(layer.dimension_check, layer.number), style=QUIET)
            yield Padding(verdict, (0, 0, 0, 2))

    def numbers(self, factor: Factor) -> str:
        rows = lines(factor.value)
        most = MOST_EXAMPLES if factor.role in words.BY_EXAMPLE else self.max_width
        shown = [bracketed(row, self.max_width) for row in rows[:most]]
        what = "examples" if factor.role in words.BY_EXAMPLE else "rows"
        return "\n".join([*shown, *filter(None, [more(len(rows), most, what)])])

    def gradients(self) -> Iterator[RenderableType]:
        yield Rule("Gradients, three times", align="left")
        yield Text(words.COMPARED, style=QUIET)
        table = plain_table("", "by hand", "autograd", "central differences", "hand − autograd", "")
        for column in table.columns[1:5]:
            column.justify = "right"
        for layer in reversed(self.layers):
            for one in layer.comparisons:
                self.compared(table, one)
        yield table
        worst = words.agreement(self.trace)
        yield Text(worst, style="bold green" if self.trace.agrees else "bold red")

    def compared(self, table: Table, one: Comparison) -> None:
        mark = "[green]✓ agree[/]" if one.agrees else "[bold red]✗ differ[/]"
        numeric, analytic = f"off by {relative(one.relative_differences)}", f"off by {relative(one.relative)}"
        table.add_row(Text(one.name, style="bold"), str(one.formula), "", numeric, analytic, mark, style=QUIET)
        shown = words.elements(one, self.max_width)
        for name, hand, autograd, difference, ulp in shown:
            table.add_row(f" {name}", full(hand), full(autograd), full(difference), units(ulp), "")
        table.add_row(more(one.by_hand.numel(), len(shown), "elements"), style=QUIET, end_section=True)

    def update(self) -> Iterator[RenderableType]:
        yield Rule("One step of gradient descent", align="left")
        yield formula(f"{words.DESCENT}   η = {short(self.trace.lr)}")
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
        yield Text(words.step(self.trace), style="bold")

    def findings(self) -> Iterator[RenderableType]:
        yield Rule("What to know about these numbers", align="left")
        if not self.trace.findings:
            yield Text(words.HEALTHY)
        for finding in self.trace.findings:
            yield Text(f"! {words.KINDS[finding.kind]}: {finding.sentence}", style="yellow")

    def left_out(self, neurons: int) -> Iterator[Text]:
        """What the tables above do not show."""
        said = more(self.trace.num_examples, len(self.examples), "examples"), more(neurons, self.max_width, "neurons")
        if any(said):
            yield Text("  " + ", ".join(filter(None, said)), style=QUIET)


def formula(text: str) -> Text:
    return Text(text, style=FORMULA)


def plain_table(*columns: str) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, show_edge=False, padding=(0, 1))
    for column in columns:
        table.add_column(column, header_style=QUIET, overflow="fold")
    return table
