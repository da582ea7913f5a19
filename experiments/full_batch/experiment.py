"""All flights in one batch: L-BFGS and gradient descent against mini-batches, and the memory of a step."""

from typing import Any

import torch

from torchnn.data.batches import BatchLoader
from torchnn.training import TabularDataModule

from ..common.command import Experiment, Run
from ..common.datasets import DATASETS
from ..common.memory import ExtraMemory, is_measurable
from ..common.plots import BLACK, BLUE, COLOURS, MARKS, VERMILION, new_figure
from ..common.results import Figure, Row, Tables, numbers, where
from ..common.training import data_module
from .training import DEFAULT, DESCENT, DESCENT_ON_FEW, LBFGS, SEED, WAYS, ByAutograd, Curve, Peak, classifier

FLIGHTS = 327_346
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
OURS, AUTOGRAD = "torchnn", "autograd"
STEPS_BEFORE = 2  # steps before the measured one
MIB = 2**20
MEMORY = (
    ("network_mib", "extra memory of network and loss (MiB)", "one block; proportional to the rows"),
    ("step_mib", "extra memory of the whole step with preprocessing (MiB)", "a few more copies of the input"),
)
HIGHEST_SHOWN, MARGIN = 0.6, 0.01  # predicting the same probability for all rows has a loss of 0.55


def measure(run: Run, passes: int = 32, rows: int = FLIGHTS) -> dict[str, list[dict[str, object]]]:
    """Train all rows in four ways from the same initial weights, and measure the memory of steps on part of them.

    Args:
        run: Trainer arguments and progress display.
        passes: number of passes through all rows for each way; every gradient of all rows counts as one.
        rows: number of flights, beginning on the first of January.
    """
    flights = DATASETS["flights"]()
    data = data_module(flights, flights.table.slice(0, rows))
    return {"memory": memory_of_steps(run, data), "loss": curves(run, data, passes)}


def curves(run: Run, data: TabularDataModule, passes: int) -> list[dict[str, object]]:
    table = data.table
    found: list[dict[str, object]] = []
    for name, way in WAYS.items():
        run.show_progress(name)
        loader = BatchLoader(table, torch.arange(len(table)), way.batch_size or len(table), shuffle_seed=SEED)
        curve = Curve(table.features, table.target, len(loader), passes)
        run.trainer(max_epochs=passes, callbacks=[curve]).fit(classifier(data, way), loader)
        found += [{"way": name, **point} for point in curve.points]
    return found


def memory_of_steps(run: Run, data: TabularDataModule) -> list[dict[str, object]]:
    """Measure a step of gradient descent by torchnn and by autograd; empty without a report of peak memory."""
    if not is_measurable(run.device):
        return []
    found: list[dict[str, object]] = []
    for share in SHARES:
        num_rows = max(1, round(share * len(data.table)))
        for by in (OURS, AUTOGRAD):
            run.show_progress(f"a step on {num_rows:,} rows, by {by}")
            model: Any = classifier(data, WAYS[DESCENT])
            columns = model.preprocess.out_features
            if by == AUTOGRAD:
                model.network = ByAutograd(model.network)
            peak = Peak(STEPS_BEFORE)
            loader = BatchLoader(data.table, torch.arange(num_rows), num_rows)
            run.trainer(max_epochs=STEPS_BEFORE + 1, callbacks=[peak]).fit(model, loader)
            x = model.to(run.device).preprocess(data.table.features[:num_rows].to(run.device)).detach()
            y = data.table.target[:num_rows, None].to(run.device)
            memory = ExtraMemory(run.device)
            model.network(x, y).backward()
            found.append(
                {
                    "by": by,
                    "rows": num_rows,
                    "input_mib": f"{4 * columns * num_rows / MIB:.1f}",
                    "network_mib": f"{memory.bytes / MIB:.1f}",
                    "step_mib": f"{peak.extra_bytes / MIB:.1f}",
                }
            )
    return found


def last(tables: Tables, way: str) -> Row:
    return where(tables["loss"], way=way)[-1]


def seconds_to(tables: Tables, way: str, loss: float) -> float | None:
    """Seconds until the loss of all rows first was `loss` or lower; None if it never was."""
    rows = where(tables["loss"], way=way)
    return next((float(row["seconds"]) for row in rows if float(row["loss"]) <= loss), None)


def in_words(tables: Tables, way: str) -> str:
    row = last(tables, way)
    return f"{float(row['loss']):.4f} in {float(row['seconds']):.0f} s and {float(row['passes']):.0f} passes"


def figures(tables: Tables) -> list[Figure]:
    found = [
        Figure("loss of all rows by L-BFGS in one batch", "below gradient descent's", in_words(tables, LBFGS)),
        Figure("by gradient descent in one batch", "above all others", in_words(tables, DESCENT)),
        Figure("by gradient descent in batches of 1,024", "–", in_words(tables, DESCENT_ON_FEW)),
        Figure("by torchnn's default, AdamW in batches of 1,024", "–", in_words(tables, DEFAULT)),
    ]
    for way in (LBFGS, DESCENT):
        loss = float(last(tables, way)["loss"])
        needed = seconds_to(tables, DEFAULT, loss)
        obtained = "never" if needed is None else f"{needed:.1f} s, against {float(last(tables, way)['seconds']):.0f} s"
        found.append(Figure(f"torchnn's default reaches the final loss of {way} after", "less time", obtained))
    memory = tables["memory"]
    if memory:
        ours, autograd = (where(memory, by=by)[-1] for by in (OURS, AUTOGRAD))
        rows = int(ours["rows"])
        for column, what, expected in MEMORY:
            pair = ", ".join(f"{float(row[column]):,.0f}" for row in (ours, autograd))
            found.append(Figure(f"{what}, {rows:,} rows: torchnn, autograd", expected, pair))
    return found


def draw(tables: Tables) -> dict[str, Any]:
    figure, ((of_seconds, of_passes, of_memory),) = new_figure(3, size=(4.6, 4.4))
    for axes, column in ((of_seconds, "seconds"), (of_passes, "passes")):
        for name, colour, mark in zip(WAYS, COLOURS, MARKS, strict=False):
            rows = where(tables["loss"], way=name)
            every = max(1, len(rows) // 8)
            axes.plot(
                *(numbers(rows, column), numbers(rows, "loss")), color=colour, marker=mark, markevery=every,
                markersize=4, label=name,
            )  # fmt: skip
        axes.set(xlabel=column if column == "passes" else "seconds", ylabel="loss of all rows")
        lowest = min(numbers(tables["loss"], "loss"))
        axes.set_ylim(lowest - MARGIN, max(HIGHEST_SHOWN, lowest + 2 * MARGIN))
    of_seconds.set_title("by time")
    of_passes.set_title("by gradients of every row")
    for by, colour, mark in ((OURS, BLUE, "o"), (AUTOGRAD, VERMILION, "s")):
        rows = where(tables["memory"], by=by)
        for column, line, what in (("step_mib", "-", "whole step"), ("network_mib", "--", "network and loss")):
            label = f"{by}, {what}"
            of_memory.plot(
                *(in_thousands(rows), numbers(rows, column)), color=colour, marker=mark, linestyle=line, label=label
            )
    rows = where(tables["memory"], by=OURS)
    of_memory.plot(
        in_thousands(rows), numbers(rows, "input_mib"), color=BLACK, linestyle=":", label="the network's input"
    )
    of_memory.set(xlabel="rows of the batch, in thousands", ylabel="extra memory of a step (MiB)", title="memory")
    of_memory.legend(fontsize="small")
    for axes in (of_seconds, of_passes, of_memory):
        axes.grid(alpha=0.3)
    figure.legend(*of_seconds.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    return {"full_batch.png": figure}


def in_thousands(rows: list[Row]) -> list[float]:
    return [number / 1000 for number in numbers(rows, "rows")]


EXPERIMENT = Experiment(
    "full_batch",
    "Is one batch of all rows worthwhile, now that memory does not grow with it?",
    measure,
    figures,
    draw,
    threads=2,
)
