"""One training in three precisions, each with one process, two processes, and partial batches; compares the results."""

import csv
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from torchnn.training import BinaryClassifier, TabularDataModule

from ..common.command import Experiment, Run
from ..common.datasets import DATASETS
from ..common.plots import BLUE, GREEN, VERMILION, new_figure
from ..common.results import Figure, Row, Tables, numbers, where
from ..common.training import data_module

BATCH = 64
TRAIN, VALIDATION = 22 * BATCH, 128  # rows; all batches are full, and both processes get the same number of rows
HIDDEN, RATE = (64, 64), 0.005
EXACT, SINGLE, HALF = "float64", "float32", "bfloat16 autocast"
PRECISIONS: dict[str, Any] = {EXACT: "64-true", SINGLE: "32-true", HALF: "bf16-mixed"}
FURTHER_SEEDS = 4
WAYS_APART = {
    EXACT: "rounding of 1e−16, accumulated over 660 steps",
    SINGLE: "rounding of 6e−8, accumulated over 660 steps",
    HALF: "rounding of 4e−3, partly averaged out",
}
SMALLEST_SHOWN = 1e-9  # the losses are logged in float32
SEEDS: dict[str, Any] = {"color": "silver", "linewidth": 2, "label": "float32, 1 process, other seeds", "zorder": 0}
MARKS_OF_WAYS = (("o", "-"), ("s", "--"), ("^", ":"))


class TwoProcesses(DDPStrategy):
    """Spawns processes with the warning filters and number of threads of this process."""

    def __init__(self) -> None:
        super().__init__(start_method="spawn")
        self.threads = torch.get_num_threads()

    def setup_environment(self) -> None:
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        torch.set_num_threads(self.threads)
        loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
        if loopback is not None:  # otherwise gloo waits up to a minute for a name server to resolve this host
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        super().setup_environment()


ONE, TWO, PARTIAL = "1 process", "2 processes", "1 process, 2 partial batches"
BATCHES = {
    ONE: 1,
    TWO: 1,
    PARTIAL: 2,
}  # rows of a loader's batch: processes divide a batch among themselves, partial batches are half as large


def trainer_args(way: str) -> dict[str, Any]:
    if way == TWO:
        return {"devices": 2, "strategy": TwoProcesses()}
    return {"accumulate_grad_batches": BATCHES[way]}


@dataclass(frozen=True)
class Trained:
    """A trained classifier in float64, its losses by epoch, and how long it took."""

    model: BinaryClassifier
    curve: list[Row]
    seconds: float


def digits() -> TabularDataModule:
    """Digits, odd or even. The number of training rows is divisible by the batch size and by two processes."""
    dataset = DATASETS["digits"]()
    order = torch.randperm(len(dataset.table), generator=torch.Generator().manual_seed(0)).numpy()
    train, validation, test = (
        dataset.table.take(rows)
        for rows in (order[:TRAIN], order[TRAIN : TRAIN + VALIDATION], order[TRAIN + VALIDATION :])
    )
    return data_module(dataset, train, val_path=validation, test_path=test)


def trained(run: Run, data: TabularDataModule, precision: str, way: str, seed: int, epochs: int) -> Trained:
    torch.manual_seed(seed)
    model = BinaryClassifier(data.num_features, HIDDEN, lr=RATE, lr_scheduler=None, schema=data.plain_schema)
    if precision == EXACT:
        model.double()  # Lightning copies the weights of the other processes into this model
    data.batch_size = BATCH // BATCHES[way]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        logger = CSVLogger(folder, version=0)  # otherwise the other processes would advance it
        own = {"precision": PRECISIONS[precision], "max_epochs": epochs, "logger": logger, **trainer_args(way)}
        with quiet_children():
            run.trainer(**own).fit(model, datamodule=data)
        seconds = time.perf_counter() - start
        return Trained(model.cpu().double(), by_epoch(Path(logger.log_dir, "metrics.csv")), seconds)


@contextmanager
def quiet_children() -> Iterator[None]:
    """Let processes that are spawned meanwhile ignore the warnings that this process ignores."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def by_epoch(path: Path) -> list[Row]:
    """The logged values of each epoch; the logger writes one line for training and one for validation."""
    epochs: dict[str, Row] = {}
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            epochs.setdefault(line["epoch"], {}).update({name: value for name, value in line.items() if value})
    return list(epochs.values())


def settings(run: Run) -> list[tuple[str, str, int]]:
    """Precision, way and seed of each training. On GPUs, two processes need two devices."""
    has_two = run.device.type == "cpu" or run.trainer().accelerator.auto_device_count() > 1
    ways = [way for way in BATCHES if way != TWO or has_two]
    found = [(precision, way, 0) for precision in PRECISIONS for way in ways]
    return found + [(SINGLE, ONE, seed) for seed in range(1, 1 + FURTHER_SEEDS)]


def weights(model: BinaryClassifier) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def distance(model: BinaryClassifier, reference: BinaryClassifier) -> float:
    """The distance of all weights from the reference, relative to the reference."""
    return float((weights(model) - weights(reference)).norm() / weights(reference).norm())


def measure(run: Run, epochs: int = 30) -> dict[str, list[dict[str, object]]]:
    """Train the same weights in the same steps in every precision and way, and further seeds in float32.

    Args:
        run: Trainer arguments and progress display.
        epochs: number of epochs, each of 22 steps of 64 rows.
    """
    data = digits()
    models: dict[tuple[str, str], BinaryClassifier] = {}
    curves: list[dict[str, object]] = []
    final: list[dict[str, object]] = []
    for precision, way, seed in settings(run):
        run.show_progress(f"{precision}, {way}, seed {seed}")
        one = trained(run, data, precision, way, seed, epochs)
        place = {"precision": precision, "way": way, "seed": seed}
        losses = ("train_loss", "val_loss")
        curves += [
            {**place, "epoch": epoch, **{name: f"{float(row[name]):.9f}" for name in losses}}
            for epoch, row in enumerate(one.curve, 1)
        ]
        models.setdefault((precision, way), one.model)
        scores = run.trainer(precision=PRECISIONS[EXACT]).test(one.model, datamodule=data, verbose=False)[0]
        final.append(
            {
                **place,
                "log_loss": f"{scores['test_log_loss']:.9f}",
                "accuracy": f"{scores['test_accuracy']:.4f}",
                "from_one_process": f"{distance(one.model, models[precision, ONE]):.2e}",
                "from_float64": f"{distance(one.model, models[EXACT, ONE]):.2e}",
                "seconds": f"{one.seconds:.1f}",
            }
        )
    return {"losses": curves, "final": final}


def spread(tables: Tables) -> float:
    """Standard deviation of the held-out log-loss over the seeds, float32, one process."""
    return stdev(numbers(where(tables["final"], precision=SINGLE, way=ONE), "log_loss"))


def row_of(tables: Tables, precision: str, way: str) -> Row | None:
    return next(iter(where(tables["final"], precision=precision, way=way, seed=0)), None)


def largest(tables: Tables, precision: str, column: str) -> float:
    """The largest value of a column over the ways of a precision."""
    return max(numbers(where(tables["final"], precision=precision, seed=0), column))


def off(tables: Tables, precision: str) -> float:
    """The largest difference of held-out log-loss from float64 and one process, over the ways of a precision."""
    exact = float(where(tables["final"], precision=EXACT, way=ONE)[0]["log_loss"])
    return max(abs(loss - exact) for loss in numbers(where(tables["final"], precision=precision, seed=0), "log_loss"))


def figures(tables: Tables) -> list[Figure]:
    final = tables["final"]
    ways = len(where(final, precision=SINGLE, seed=0))
    between_seeds = spread(tables)
    found = [
        Figure(
            f"weights after training in {precision}: largest difference between {ways} ways to divide a step, relative",
            expected,
            f"{largest(tables, precision, 'from_one_process'):.1e}",
        )
        for precision, expected in WAYS_APART.items()
    ]
    found += [
        Figure(
            f"held-out log-loss after training in {precision}: largest difference from float64 and one process",
            f"far below {between_seeds:.4f}, the sd between seeds",
            f"{off(tables, precision):.1e}",
        )
        for precision in (SINGLE, HALF)
    ]
    found += [
        Figure(
            f"held-out log-loss, accuracy, {row['precision']}, {row['way']}",
            "–",
            f"{float(row['log_loss']):.6f}, {float(row['accuracy']):.4f}",
        )
        for row in where(final, seed=0)
    ]
    return found


def draw(tables: Tables) -> dict[str, Any]:
    """Plot the losses of every training, and their distance from those in float64 with one process."""
    figure, ((of_losses, of_differences),) = new_figure(2, size=(5.6, 4.4))
    curves = tables["losses"]
    reference = where(curves, precision=EXACT, way=ONE)
    for seed in range(FURTHER_SEEDS + 1):
        draw_curve(of_losses, of_differences, where(curves, precision=SINGLE, way=ONE, seed=seed), reference, SEEDS)
    for precision, colour in zip(PRECISIONS, (GREEN, BLUE, VERMILION), strict=True):
        for way, (mark, line) in zip(BATCHES, MARKS_OF_WAYS, strict=True):
            rows = where(curves, precision=precision, way=way, seed=0)
            style = {"color": colour, "marker": mark, "linestyle": line, "label": f"{precision}, {way}"}
            draw_curve(of_losses, of_differences, rows, reference, style)
    of_losses.set(ylabel="training loss, mean of the epoch", title="the curves lie on each other")
    of_differences.set(ylabel="|difference of validation loss|", title="from float64 by 1 process")
    for axes in (of_losses, of_differences):
        axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    handles = dict(zip(*reversed(of_losses.get_legend_handles_labels()), strict=True))  # one entry for all seeds
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize="x-small")
    return {"losses.png": figure}


def draw_curve(
    of_losses: Any, of_differences: Any, rows: list[Row], reference: list[Row], style: dict[str, Any]
) -> None:
    epochs = numbers(rows, "epoch")
    looks: dict[str, Any] = {"markersize": 4, "linewidth": 1, **style}
    of_losses.plot(epochs, numbers(rows, "train_loss"), **looks)
    pairs = zip(numbers(rows, "val_loss"), numbers(reference, "val_loss"), strict=False)
    differences = [abs(one - other) for one, other in pairs]
    if any(differences):
        of_differences.plot(epochs, [max(one, SMALLEST_SHOWN) for one in differences], **looks)


EXPERIMENT = Experiment(
    "precision_and_processes",
    "Does it matter in which precision a network is trained, and by how many processes?",
    measure,
    figures,
    draw,
)
