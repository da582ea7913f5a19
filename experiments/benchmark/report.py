"""The results of a run: tables in the terminal, and files that replace the earlier ones together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ..common.results import Writer, csv_writer, machine, write_together
from .accuracy import Accuracy
from .contenders import AGAIN, CONTENDERS, EAGER, OURS
from .measure import Measured, is_result
from .memory import Memory
from .problems import THREADS

NOT_A_RESULT = "This is not a result: more than a tenth of the points are noisy."

Rows = list[dict[str, object]]


@dataclass
class Findings:
    """The results of all parts of a run; empty for parts that did not run."""

    grid: list[Measured] = field(default_factory=list)
    autocast: list[Measured] = field(default_factory=list)
    small_steps: list[Measured] = field(default_factory=list)
    without_loss: list[Measured] = field(default_factory=list)
    block_rows: list[Measured] = field(default_factory=list)
    block_rows_bfloat16: list[Measured] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    accuracy: list[Accuracy] = field(default_factory=list)
    training: Rows = field(default_factory=list)
    streaming: Rows = field(default_factory=list)
    large_table: Rows = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_result(self) -> bool:
        return is_result(self.timed)

    @property
    def timed(self) -> list[Measured]:
        """All points that were timed, and so may be noisy."""
        blocks = [*self.block_rows, *self.block_rows_bfloat16]
        return [*self.autocast, *self.grid, *self.small_steps, *self.without_loss, *blocks]


def show(console: Console, findings: Findings) -> None:
    if findings.grid:
        console.print(table_of(findings.grid, "Speed against eager", [n for n in CONTENDERS if n != EAGER]))
        ratios = [measured.ratio(OURS) for measured in findings.grid]
        console.print(f"torchnn over the grid: median {median(ratios):.2f}, minimum {min(ratios):.2f}")
    if findings.autocast:
        names = [name for name in findings.autocast[0].names if name != EAGER]
        console.print(table_of(findings.autocast, "Speed against eager, both under bfloat16 autocast", names))
    if findings.without_loss:
        console.print(table_of(findings.without_loss, "Speed against eager, network without a loss", [OURS, AGAIN]))
    for measured, title in (
        (findings.small_steps, "A small step: from the bare operations to the module"),
        (findings.block_rows, "Speed against eager by rows of a block; torchnn chooses"),
        (findings.block_rows_bfloat16, "The same, all under bfloat16 autocast"),
    ):
        if measured:
            console.print(table_of(measured, title, [name for name in measured[0].names if name not in (EAGER, AGAIN)]))
    if findings.memory:
        console.print(memory_table(findings.memory))
    if findings.accuracy:
        worst = max(findings.accuracy, key=lambda accuracy: accuracy.ratio)
        console.print(
            f"gradients against float64: torchnn's error is at most {worst.ratio:.2f} times eager's "
            f"({worst.parameter}: {worst.of_ours:.1e} and {worst.of_eager:.1e})",
            markup=False,
        )
    for row in findings.training:
        console.print(
            f"training: {row['torchnn_rows_per_second']:,.0f} rows per second, the plain recipe "
            f"{row['plain_rows_per_second']:,.0f}: {row['ratio']:.2f} times as fast"
        )
    for row in findings.streaming:
        console.print(
            f"streaming: {row['streaming_rows_per_second']:,.0f} rows per second, the same table in memory "
            f"{row['in_memory_rows_per_second']:,.0f}: {row['ratio']:.2f} times as fast"
        )
    for row in findings.large_table:
        console.print(
            f"an epoch of {row['rows']:,} rows with validation and test: at most {row['peak_mib']:,} MiB, "
            f"{row['seconds']:,} s"
        )
    for note in dict.fromkeys(findings.notes):
        console.print(note, markup=False)


def table_of(measured: Sequence[Measured], title: str, names: Sequence[str]) -> Table:
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    for name in ("sizes", "batch", "eager ms"):
        table.add_column(name, no_wrap=True)
    for name in names:
        table.add_column(
            name.replace(".", ". ").replace("-", "- "), justify="right"
        )  # allow line breaks: rich truncates long words instead of wrapping them
    for point in measured:
        ratios = [f"{point.ratio(name):.2f}" if name in point.names else "–" for name in names]
        batch = f"{point.point.batch:,}" + (" noisy" if point.noisy else "")
        table.add_row(sizes_of(point), batch, f"{point.median_ms(EAGER):.3g}", *ratios)
    return table


def memory_table(memory: Sequence[Memory]) -> Table:
    table = Table("contender", "batch", "extra MiB", "ms", title="Memory in addition to inputs and results", box=SIMPLE)
    for one in memory:
        table.add_row(one.contender, f"{one.batch:,}", f"{one.extra_bytes / 2**20:,.1f}", f"{1e3 * one.seconds:,.0f}")
    return table


def sizes_of(measured: Measured) -> str:
    return "-".join(map(str, measured.point.sizes))


def write(folder: Path, findings: Findings) -> list[str]:
    """Write the files of a run and return their names; for a noisy run only `noisy.csv`."""
    files: dict[str, Writer] = {}
    if not findings.is_result:
        files["noisy.csv"] = csv_writer(speed_rows(findings.timed))
    else:
        tables = {
            "results.csv": speed_rows(findings.grid),
            "autocast.csv": speed_rows(findings.autocast),
            "without_loss.csv": speed_rows(findings.without_loss),
            "small_steps.csv": speed_rows(findings.small_steps),
            "block_rows.csv": speed_rows(findings.block_rows),
            "block_rows_bfloat16.csv": speed_rows(findings.block_rows_bfloat16),
            "memory.csv": memory_rows(findings.memory),
            "accuracy.csv": accuracy_rows(findings.accuracy),
            "training.csv": [{**row, **where()} for row in findings.training],
            "streaming.csv": [{**row, **where()} for row in findings.streaming],
            "large_table.csv": [{**row, **where()} for row in findings.large_table],
        }
        files |= {name: csv_writer(rows) for name, rows in tables.items() if rows}
        files |= pictures(findings)
    return write_together(folder, files)


def pictures(findings: Findings) -> dict[str, Writer]:
    from .plots import draw_memory, draw_speed

    found: dict[str, Writer] = {}
    if findings.grid:
        found["speed.png"] = lambda path: draw_speed(path, findings.grid)
    if findings.memory:
        found["memory.png"] = lambda path: draw_memory(path, findings.memory)
    return found


def speed_rows(measured: Sequence[Measured]) -> Rows:
    return [
        {
            "sizes": sizes_of(point),
            "batch": point.point.batch,
            "contender": name,
            "median_ms": f"{point.median_ms(name):.5g}",
            "ratio": f"{point.ratio(name):.4f}",
            "rounds": point.num_rounds,
            "noisy": point.noisy,
            **where(),
        }
        for point in measured
        for name in point.names
    ]


def memory_rows(memory: Sequence[Memory]) -> Rows:
    return [
        {
            "contender": one.contender,
            "batch": one.batch,
            "extra_mib": f"{one.extra_bytes / 2**20:.2f}",
            "ms": f"{1e3 * one.seconds:.5g}",
            **where(),
        }
        for one in memory
    ]


def accuracy_rows(accuracy: Sequence[Accuracy]) -> Rows:
    return [
        {
            "parameter": one.parameter,
            "torchnn": f"{one.of_ours:.3e}",
            "eager": f"{one.of_eager:.3e}",
            "ratio": f"{one.ratio:.4f}",
            **where(),
        }
        for one in accuracy
    ]


def where() -> dict[str, object]:
    """The columns that describe where a number was measured."""
    return {"machine": machine(), "torch": str(torch.__version__), "threads": THREADS}
