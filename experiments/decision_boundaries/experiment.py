"""A sigmoid network on two problems in the plane: how its decision boundary moves, and how accurate it becomes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from torchnn.training import BinaryClassifier

from ..common.command import Experiment, Run
from ..common.plots import BLACK, BLUE, ORANGE, new_figure
from ..common.results import Figure, Tables, numbers, where
from ..common.training import batches
from .data import Points, banana, two_spirals

SPIRALS, BANANA = "two spirals", "Banana"
CELLS = 64  # per side of the grid on which a boundary is drawn
SHARES = (0, 0.05, 0.1, 0.25, 0.5, 1)
SHOWN = 500  # points of Banana in a plot
PEERS = {"accuracy": 0.902, "auroc": 0.968, "log_loss": 0.225}
Part = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Problem:
    """How a problem is trained."""

    hidden_sizes: tuple[int, ...]
    lr: float
    batch_size: int


PROBLEMS = {
    SPIRALS: Problem((64, 64), lr=0.03, batch_size=194),
    BANANA: Problem((32, 32), lr=0.01, batch_size=128),
}


class Film(Callback):
    """Records the probabilities on a grid before the first epoch and after some epochs, in whole per cent."""

    def __init__(self, limit: float, epochs: Sequence[int]) -> None:
        self.epochs, self.pictures = set(epochs), dict[int, list[str]]()
        side = torch.linspace(-limit, limit, CELLS)
        self.grid = torch.cartesian_prod(side, side).flip(1)  # row by row, from the bottom

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.take(0, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.take(trainer.current_epoch + 1, pl_module)

    @torch.no_grad()
    def take(self, epoch: int, module: pl.LightningModule) -> None:
        if epoch in self.epochs:
            per_cent = (100 * module(self.grid.to(module.device))).round().int().clamp(0, 99)
            rows = per_cent.view(CELLS, CELLS).tolist()
            self.pictures[epoch] = ["".join(f"{cell:02d}" for cell in row) for row in rows]


def frames(num_epochs: int) -> list[int]:
    """The epochs after which a frame is recorded; 0 is before training."""
    return [round(share * num_epochs) for share in SHARES]


def trained(run: Run, problem: Problem, x: Tensor, y: Tensor, num_epochs: int, seed: int, film: Film | None) -> Any:
    """Train a classifier on points; returns it with its Trainer."""
    torch.manual_seed(seed)
    model = BinaryClassifier(
        *(2, problem.hidden_sizes),
        optimizer="Adam",
        lr=problem.lr,
        weight_decay=0.0,
        lr_scheduler="CosineAnnealingLR",
        lr_scheduler_args={"T_max": num_epochs},
    )
    model.preprocess.fit(x)
    trainer = run.trainer(max_epochs=num_epochs, callbacks=[film] if film else [])
    trainer.fit(model, batches(x, y, problem.batch_size, seed))
    return model, trainer


def scores(model: Any, trainer: pl.Trainer, x: Tensor, y: Tensor) -> dict[str, object]:
    found = trainer.test(model, batches(x, y, len(x)), verbose=False)[0]
    return {name: f"{found[f'test_{name}']:.4f}" for name in PEERS}


def measure(
    run: Run, spiral_epochs: int = 3_000, spiral_seeds: int = 5, banana_epochs: int = 60, folds: int = 5
) -> dict[str, list[dict[str, object]]]:
    """Train on all points of the spirals, and cross-validate on Banana.

    Args:
        run: Trainer arguments and progress display.
        spiral_epochs: epochs on two spirals.
        spiral_seeds: number of runs on two spirals, with different initial weights.
        banana_epochs: epochs on Banana.
        folds: number of folds of Banana, each held out once; frames are recorded in the first.
    """
    results: list[dict[str, object]] = []
    films: list[dict[str, object]] = []
    points = {
        BANANA: banana(),
        SPIRALS: two_spirals(),
    }  # loaded first: missing data end the run before minutes of training
    runs = [(SPIRALS, seed, *parts(points[SPIRALS])) for seed in range(spiral_seeds)]
    runs += [(BANANA, fold, *part) for fold, part in enumerate(folded(points[BANANA], folds))]
    for name, number, train, test in runs:
        run.show_progress(f"{name}, run {number + 1}")
        num_epochs = spiral_epochs if name == SPIRALS else banana_epochs
        film = Film(points[name].limit, frames(num_epochs)) if number == 0 else None
        model, trainer = trained(run, PROBLEMS[name], *train, num_epochs, seed=number, film=film)
        results.append({"problem": name, "run": number, "epochs": num_epochs, **scores(model, trainer, *test)})
        if film is not None:
            films += [
                {"problem": name, "epoch": epoch, "row": row, "per_cent": cells}
                for epoch, picture in film.pictures.items()
                for row, cells in enumerate(picture)
            ]
    return {"results": results, "film": films}


def parts(points: Points) -> tuple[Part, Part]:
    """All points of the spirals train and are tested."""
    return (points.x, points.y), (points.x, points.y)


def folded(points: Points, folds: int) -> Iterator[tuple[Part, Part]]:
    """Training and held-out points of each fold."""
    split = StratifiedKFold(folds, shuffle=True, random_state=0).split(points.x.numpy(), points.y.numpy())
    for train, test in split:
        yield (points.x[train], points.y[train]), (points.x[test], points.y[test])


def figures(tables: Tables) -> list[Figure]:
    spirals, bananas = (where(tables["results"], problem=name) for name in (SPIRALS, BANANA))
    solved = sum(float(row["accuracy"]) == 1 for row in spirals)
    found = [
        Figure(
            f"two spirals: runs of {spirals[0]['epochs']} epochs that classify all 194 points correctly",
            "all (1988: after 20,000 epochs)",
            f"{solved} of {len(spirals)}",
        )
    ]
    for name, peer in PEERS.items():
        values = numbers(bananas, name)
        found.append(
            Figure(
                f"Banana, held-out {name.replace('_', '-')}, mean ± sd of {len(bananas)} folds",
                f"{peer} (scikit-learn's sigmoid MLPClassifier)",
                f"{mean(values):.3f} ± {stdev(values):.3f}",
            )
        )
    return found


def draw(tables: Tables) -> dict[str, Any]:
    return {
        f"{file}.png": draw_film(tables, name, points)
        for name, file, points in ((SPIRALS, "two_spirals", two_spirals()), (BANANA, "banana", banana()))
    }


def draw_film(tables: Tables, name: str, points: Points) -> Any:
    """Plot the probability as a colour and the boundary as a line, frame by frame."""
    film = where(tables["film"], problem=name)
    epochs = list(dict.fromkeys(row["epoch"] for row in film))
    figure, all_axes = new_figure(3, math.ceil(len(epochs) / 3), size=(2.9, 2.9), share_x=True, share_y=True)
    side = np.linspace(-points.limit, points.limit, CELLS)
    shown = torch.randperm(len(points.y), generator=torch.Generator().manual_seed(0))[:SHOWN]
    for axes, epoch in zip(all_axes.flat, epochs, strict=False):
        lines = [row["per_cent"] for row in where(film, epoch=epoch)]
        per_cent = np.array([[int(line[i : i + 2]) for i in range(0, len(line), 2)] for line in lines])
        shades = axes.contourf(side, side, per_cent, levels=range(0, 101, 10), cmap="PuOr", alpha=0.8)
        if per_cent.min() < 50 <= per_cent.max():
            axes.contour(side, side, per_cent, levels=[49.5], colors=BLACK, linewidths=1.2)
        for label, colour, mark in ((1, BLUE, "o"), (0, ORANGE, "^")):
            those = points.x[shown][points.y[shown] == label]
            axes.plot(*those.T.numpy(), mark, color=colour, markersize=2.5, markeredgecolor=BLACK, markeredgewidth=0.2)
        axes.set_title(f"epoch {int(epoch):,}")
        axes.set_aspect("equal")
    for axes in all_axes[-1]:
        axes.set_xlabel("first input")
    for axes in all_axes[:, 0]:
        axes.set_ylabel("second input")
    figure.colorbar(shades, ax=all_axes, label="probability of class 1, ● blue (%)", shrink=0.8)
    return figure


EXPERIMENT = Experiment(
    "decision_boundaries",
    "How does a sigmoid network bend its decision boundary while it learns?",
    measure,
    figures,
    draw,
)
