"""Sonar with the protocol of 1988, and Ionosphere with that of 1989."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from torchnn.training import BinaryClassifier

from ..common.command import Experiment, Run
from ..common.datasets import DATASETS
from ..common.plots import BLACK, BLUE, VERMILION, new_figure
from ..common.results import Figure, Row, Tables, numbers, where
from ..common.training import batches
from .networks import Presentations, SonarNetworks, balanced_halves, thirteen_sets

HIDDEN = (0, 2, 3, 6, 12, 24)
SETS = 13
RANDOM, BALANCED = "random", "balanced"
# By hidden neurons: mean and standard deviation of training and test accuracy in per cent (Gorman and Sejnowski 1988).
PUBLISHED = {
    RANDOM: {
        0: ((89.4, 2.1), (77.1, 8.3)),
        2: ((96.5, 0.7), (81.9, 6.2)),
        3: ((98.8, 0.4), (82.0, 7.3)),
        6: ((99.7, 0.2), (83.5, 5.6)),
        12: ((99.8, 0.1), (84.7, 5.7)),
        24: ((99.8, 0.1), (84.5, 5.7)),
    },
    BALANCED: {
        0: ((79.3, 3.4), (73.1, 4.8)),
        2: ((96.2, 2.2), (85.7, 6.3)),
        3: ((98.1, 1.5), (87.6, 3.0)),
        6: ((99.4, 0.9), (89.3, 2.4)),
        12: ((99.8, 0.6), (90.4, 1.8)),
        24: ((100.0, 0.0), (89.2, 1.4)),
    },
}
NEAREST_NEIGHBOUR = 82.7
IONOSPHERE_TRAIN = 200  # the first rows train
IONOSPHERE_HIDDEN = (0, 3, 5, 10, 15)
LINEAR, BACKPROPAGATION = 90.7, 96.0
NAMES = {RANDOM: f"{SETS} random sets", BALANCED: "clusters divided"}
Part = tuple[Tensor, Tensor]


def measure(
    run: Run,
    runs: int = 10,
    sweeps: int = 300,
    rows_of_update: int = 4,
    ionosphere_seeds: int = 10,
    ionosphere_epochs: int = 100,
) -> dict[str, list[dict[str, object]]]:
    """Train the networks of Sonar on both divisions of its rows, and those of Ionosphere on its only division.

    Args:
        run: Trainer arguments and progress display.
        runs: number of runs of each Sonar network on each training set, with different initial weights.
        sweeps: passes through the training rows of Sonar.
        rows_of_update: number of Sonar patterns after which the weights are updated by their mean gradient.
        ionosphere_seeds: number of runs of each Ionosphere network, with different initial weights.
        ionosphere_epochs: passes through the training rows of Ionosphere.
    """
    sonar, ionosphere = DATASETS["sonar"](), DATASETS["ionosphere"]()
    x, is_cylinder = sonar.features, torch.from_numpy(sonar.labels).bool()
    rows: list[dict[str, object]] = []
    for series, division in ((RANDOM, thirteen_sets(len(x), SETS)), (BALANCED, balanced_halves(x))):
        for hidden in (HIDDEN[:1], HIDDEN[1:]):
            run.show_progress(f"Sonar, {NAMES[series]}, hidden neurons {', '.join(map(str, hidden))}")
            rows += sonar_runs(run, series, hidden, x, is_cylinder, division, runs, sweeps, rows_of_update)
    neighbours = [
        {"held_out_set": i, "test": f"{nearest_neighbour(x, is_cylinder, train, test):.2f}"}
        for i, (train, test) in enumerate(zip(*thirteen_sets(len(x), SETS), strict=True))
    ]
    of_ionosphere = []
    for number in IONOSPHERE_HIDDEN:
        for seed in range(ionosphere_seeds):
            run.show_progress(f"Ionosphere, hidden neurons {number}, run {seed + 1}")
            target = torch.from_numpy(ionosphere.labels).float()
            of_ionosphere.append(ionosphere_run(run, ionosphere.features, target, number, seed, ionosphere_epochs))
    return {"sonar": rows, "nearest_neighbour": neighbours, "ionosphere": of_ionosphere}


def sonar_runs(
    run: Run,
    series: str,
    hidden: Sequence[int],
    x: Tensor,
    is_cylinder: Tensor,
    division: Part,
    runs: int,
    sweeps: int,
    rows_of_update: int,
) -> list[dict[str, object]]:
    """A row for each number of hidden neurons, held-out set and initial weights."""
    train, test = (part.repeat_interleave(runs, dim=0) for part in division)  # ordered by set, then by run
    module = SonarNetworks(x.shape[1], hidden, seeds=range(len(train)))
    run.trainer(max_epochs=1).fit(module, Presentations(x, is_cylinder, train, sweeps, rows_of_update))
    right = module.right(x, is_cylinder).double()
    rows: list[dict[str, object]] = []
    for i, number in enumerate(hidden):
        per_cent = [100 * right[i].gather(1, part).mean(dim=1) for part in (train, test)]
        for j, (of_train, of_test) in enumerate(zip(*(part.tolist() for part in per_cent), strict=True)):
            place = {"held_out_set": j // runs, "run": j % runs}
            shares = {"train": f"{of_train:.2f}", "test": f"{of_test:.2f}"}
            rows.append({"series": series, "hidden": number, **place, **shares})
    return rows


def nearest_neighbour(x: Tensor, is_cylinder: Tensor, train: Tensor, test: Tensor) -> float:
    """The accuracy of the nearest training row's class on held-out rows, in per cent."""
    judge = KNeighborsClassifier(1).fit(x[train].numpy(), is_cylinder[train].numpy())
    return 100 * float(judge.score(x[test].numpy(), is_cylinder[test].numpy()))


def ionosphere_run(run: Run, x: Tensor, y: Tensor, hidden: int, seed: int, epochs: int) -> dict[str, object]:
    """A classifier with torchnn's defaults, except layers and epochs."""
    torch.manual_seed(seed)
    model = BinaryClassifier(x.shape[1], [hidden] if hidden else [])
    model.preprocess.fit(x[:IONOSPHERE_TRAIN])
    trainer = run.trainer(max_epochs=epochs)
    trainer.fit(model, batches(x[:IONOSPHERE_TRAIN], y[:IONOSPHERE_TRAIN], 32, shuffle_seed=seed))
    shares = {}
    for name, part in (("train", slice(IONOSPHERE_TRAIN)), ("test", slice(IONOSPHERE_TRAIN, None))):
        scores = trainer.test(model, batches(x[part], y[part], len(y)), verbose=False)[0]
        shares[name] = f"{100 * scores['test_accuracy']:.2f}"
    return {"hidden": hidden, "run": seed, **shares}


def mean_and_deviation(rows: Sequence[Row], column: str) -> tuple[float, float]:
    values = numbers(rows, column)
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def between_sets(rows: Sequence[Row]) -> float:
    """The standard deviation of the means of the held-out sets."""
    sets = dict.fromkeys(row["held_out_set"] for row in rows)
    means = [fmean(numbers(where(rows, held_out_set=one), "test")) for one in sets]
    return stdev(means) if len(means) > 1 else 0.0


def in_words(found: tuple[float, float]) -> str:
    return f"{found[0]:.1f} ± {found[1]:.1f}"


def figures(tables: Tables) -> list[Figure]:
    found = []
    for series, published in PUBLISHED.items():
        for number in (12, *(n for n in HIDDEN if n != 12)):  # the best of 1988 first
            rows = where(tables["sonar"], series=series, hidden=number)
            of_train, of_test = published[number]
            obtained = in_words(mean_and_deviation(rows, "test"))
            if series == RANDOM:
                obtained += f", ± {between_sets(rows):.1f} between sets"
            found.append(
                Figure(
                    f"Sonar, {NAMES[series]}, {number} hidden: held-out echoes classified correctly (%), "
                    "mean ± sd of runs",
                    f"{in_words(of_test)} (1988)",
                    obtained,
                )
            )
            found.append(
                Figure("the same, training echoes", in_words(of_train), in_words(mean_and_deviation(rows, "train")))
            )
    nearest = fmean(numbers(tables["nearest_neighbour"], "test"))
    found.append(Figure("Sonar, nearest neighbour, the same sets (%)", f"{NEAREST_NEIGHBOUR} (1988)", f"{nearest:.1f}"))
    for number in IONOSPHERE_HIDDEN:
        rows = where(tables["ionosphere"], hidden=number)
        expected = f"{LINEAR} (1989, linear perceptron)" if number == 0 else f"> {BACKPROPAGATION:.0f} (1989)"
        what = f"Ionosphere, {number} hidden: rows 201 to 351 classified correctly (%), mean ± sd of runs"
        found.append(Figure(what, expected, in_words(mean_and_deviation(rows, "test"))))
    return found


def draw(tables: Tables) -> dict[str, Any]:
    figure, (all_axes,) = new_figure(3, size=(4.6, 4.2), share_y=True)
    for axes, series in zip(all_axes, PUBLISHED, strict=False):
        places = range(len(HIDDEN))
        for shift, column, colour, mark in ((0, "train", BLUE, "^"), (1, "test", VERMILION, "o")):
            ours = [
                mean_and_deviation(where(tables["sonar"], series=series, hidden=number), column) for number in HIDDEN
            ]
            theirs = [PUBLISHED[series][number][shift] for number in HIDDEN]
            label = "training" if column == "train" else "held out"
            for found, move, fill, who in ((theirs, -0.1, "none", "1988"), (ours, 0.1, "full", "here")):
                means, deviations = zip(*found, strict=True)
                axes.errorbar(
                    *([i + move for i in places], means, deviations), fmt=mark, color=colour, fillstyle=fill,
                    capsize=2, label=f"{label}, {who}",
                )  # fmt: skip
        axes.set_xticks(list(places), [str(number) for number in HIDDEN])
        axes.set(xlabel="hidden neurons", title=f"Sonar, {NAMES[series]}")
    of_ionosphere = all_axes[2]
    found = [mean_and_deviation(where(tables["ionosphere"], hidden=number), "test") for number in IONOSPHERE_HIDDEN]
    means, deviations = zip(*found, strict=True)
    places = range(len(IONOSPHERE_HIDDEN))
    of_ionosphere.errorbar(list(places), means, deviations, fmt="o", color=VERMILION, capsize=2)
    for value, name, place, align in (
        (LINEAR, "1989: linear perceptron", len(places) - 1, "right"),
        (BACKPROPAGATION, "1989: backpropagation, above", 0, "left"),
    ):
        of_ionosphere.axhline(value, color=BLACK, linewidth=1, linestyle=":")
        of_ionosphere.annotate(name, (place, value + 0.4), ha=align, fontsize="small")
    of_ionosphere.set_xticks(list(places), [str(number) for number in IONOSPHERE_HIDDEN])
    of_ionosphere.set(xlabel="hidden neurons", title="Ionosphere, rows 201 to 351")
    for axes in all_axes:
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel("classified correctly (%), mean ± sd of runs")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    return {"accuracy.png": figure}


EXPERIMENT = Experiment(
    "gorman_1988",
    "How often do networks with 0 to 24 hidden neurons tell a metal cylinder from a rock by its echo?",
    measure,
    figures,
    draw,
)
