"""How much of the gradient reaches the first layer, and whether the network learns."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from torchnn.training import BinaryClassifier

from ..common.command import Experiment, Run
from ..common.plots import BLACK, COLOURS, MARKS, new_figure
from ..common.results import Figure, Row, Tables, numbers, where
from ..common.training import batches

WIDTH, BATCH = 64, 32
NORMAL_ROWS = 256
TRAINED_DEPTHS = (1, 2, 3, 4, 5, 8)
QUOTED_LAYERS = 8


@dataclass(frozen=True)
class Recipe:
    """Activation of the hidden layers, a scheme of `torchnn.modules.initialisation`, and the learning rate."""

    activation: str
    initialisation: str
    lr: float


TORCH, XAVIER, FOUR = "sigmoid, torch's default", "sigmoid, Xavier", "sigmoid, 4 × Xavier"
RECIPES = {
    TORCH: Recipe("sigmoid", "torch", 0.3),
    XAVIER: Recipe("sigmoid", "xavier", 0.3),
    FOUR: Recipe("sigmoid", "by_activation", 0.3),
    "tanh, Xavier": Recipe("tanh", "by_activation", 0.05),
    "relu, He": Recipe("relu", "by_activation", 0.05),
}
QUOTED = {TORCH: "1e−6", XAVIER: "2e−5", FOUR: "7e−3"}
LEARNED = 0.85  # accuracy on held-out rows; always guessing the larger class gives 0.51


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's 1,797 digits, odd or even: training and held-out features, training and held-out target."""
    features, digit = load_digits(return_X_y=True)
    parts = train_test_split(features, digit % 2, test_size=0.2, stratify=digit % 2, random_state=0)
    x_train, x_test, y_train, y_test = (torch.from_numpy(part).float() for part in parts)
    return x_train, x_test, y_train, y_test


def classifier(recipe: Recipe, depth: int, seed: int, features: Tensor) -> BinaryClassifier:
    """A classifier with `depth` hidden layers of 64, which standardises as the features require."""
    torch.manual_seed(seed)
    model = BinaryClassifier(
        *(features.shape[1], [WIDTH] * depth, recipe.activation),
        initialisation=recipe.initialisation,  # type: ignore[arg-type]
        optimizer="SGD",  # an optimiser that rescales gradients would hide the effect
        lr=recipe.lr,
        weight_decay=0.0,
        lr_scheduler=None,
    )
    model.preprocess.fit(features)
    return model


def gradient_ratio(model: BinaryClassifier, features: Tensor, target: Tensor) -> float:
    """‖∂W[1]‖ / ‖∂W[L]‖ of the loss of all rows."""
    weights: list[Any] = [layer.weight for layer in model.network.layers]
    loss = model.network(model.preprocess(features), target.unsqueeze(1))
    first, last = torch.autograd.grad(loss, (weights[0], weights[-1]))
    return float(first.norm() / last.norm())


def measure(run: Run, seeds: int = 20, epochs: int = 40, trained_seeds: int = 2) -> dict[str, list[dict[str, object]]]:
    """Measure gradients of untrained networks of 1 to 8 hidden layers, then train some of them.

    Args:
        run: Trainer arguments and progress display.
        seeds: number of initial weights of each untrained network; the table contains medians.
        epochs: epochs of training, in batches of 32.
        trained_seeds: number of initial weights of each trained network.
    """
    x_train, x_test, y_train, y_test = digits()
    ratios: list[dict[str, object]] = []
    for name, depth in settings(range(1, max(TRAINED_DEPTHS) + 1)):
        run.show_progress(f"gradients of {name}, {depth} hidden layers")
        found: dict[str, list[float]] = {"digits": [], "normal": []}
        for seed in range(seeds):
            model = classifier(RECIPES[name], depth, seed, x_train).to(run.device)
            found["digits"].append(gradient_ratio(model, x_train.to(run.device), y_train.to(run.device)))
            rows, labels = torch.randn(NORMAL_ROWS, WIDTH), torch.rand(NORMAL_ROWS).round()
            model.preprocess.fit(rows)
            found["normal"].append(gradient_ratio(model, rows.to(run.device), labels.to(run.device)))
        medians = {f"ratio_{data}": f"{median(values):.3e}" for data, values in found.items()}
        ratios.append({"recipe": name, "hidden_layers": depth, **medians})

    trained: list[dict[str, object]] = []
    for name, depth in settings(TRAINED_DEPTHS):
        for seed in range(trained_seeds):
            run.show_progress(f"training {name}, {depth} hidden layers, seed {seed}")
            model = classifier(RECIPES[name], depth, seed, x_train)
            trainer = run.trainer(max_epochs=epochs)
            trainer.fit(model, batches(x_train, y_train, BATCH, shuffle_seed=seed))
            scores = trainer.test(model, batches(x_test, y_test, len(y_test)), verbose=False)[0]
            trained.append(
                {
                    "recipe": name,
                    "hidden_layers": depth,
                    "seed": seed,
                    "accuracy": f"{scores['test_accuracy']:.4f}",
                    "log_loss": f"{scores['test_log_loss']:.4f}",
                }
            )
    return {"gradients": ratios, "accuracy": trained}


def settings(depths: range | tuple[int, ...]) -> Iterator[tuple[str, int]]:
    return ((name, depth) for name in RECIPES for depth in depths)


def ratio(tables: Tables, recipe: str, hidden_layers: int, data: str) -> str:
    (row,) = where(tables["gradients"], recipe=recipe, hidden_layers=hidden_layers)
    return f"{float(row[f'ratio_{data}']):.0e}".replace("e-0", "e−")


def deepest_that_learned(tables: Tables, recipe: str) -> str:
    """The largest number of hidden layers up to which all networks of all seeds learned."""
    rows = where(tables["accuracy"], recipe=recipe)
    depths = sorted({int(row["hidden_layers"]) for row in rows})
    learned = [d for d in depths if min(numbers(where(rows, hidden_layers=d), "accuracy")) >= LEARNED]
    reached = [d for d in depths if depths[: depths.index(d) + 1] == learned[: depths.index(d) + 1]]
    return str(max(reached)) if reached else "none"


def figures(tables: Tables) -> list[Figure]:
    found = [
        Figure(
            "hidden layers up to which plain sigmoid networks learn (torch's default, as in Glorot and Bengio)",
            "4 (Glorot and Bengio 2010: not with 5)",
            deepest_that_learned(tables, TORCH),
        )
    ]
    expected = {XAVIER: "more than torch's default", FOUR: "more than Xavier"}
    deepest = max(TRAINED_DEPTHS)
    for name in list(RECIPES)[1:]:
        expectation = expected.get(name, f"{deepest}, the most tried")
        found.append(Figure(f"the same, {name}", expectation, deepest_that_learned(tables, name)))
    layers = f"‖∂W[1]‖/‖∂W[{QUOTED_LAYERS}]‖ before training, {QUOTED_LAYERS} layers"
    for name in RECIPES:
        on_normal, on_digits = (ratio(tables, name, QUOTED_LAYERS - 1, data) for data in ("normal", "digits"))
        expectation = f"{QUOTED[name]} (docs/modules.md)" if name in QUOTED else "–"
        found.append(
            Figure(f"{layers}, {name}: on random normal rows; on digits", expectation, f"{on_normal}; {on_digits}")
        )
    return found


def accuracies(rows: list[Row], depth: int) -> list[float]:
    return numbers(where(rows, hidden_layers=depth), "accuracy")


def draw(tables: Tables) -> dict[str, Any]:
    figure, ((of_ratios, of_accuracy),) = new_figure(2, size=(5.2, 4.4))
    for name, colour, mark in zip(RECIPES, COLOURS, MARKS, strict=False):
        rows = where(tables["gradients"], recipe=name)
        style: Any = {"color": colour, "marker": mark, "markersize": 5, "label": name}
        of_ratios.plot(numbers(rows, "hidden_layers"), numbers(rows, "ratio_digits"), **style)
        trained = where(tables["accuracy"], recipe=name)
        depths = sorted({int(row["hidden_layers"]) for row in trained})
        middle = [100 * median(accuracies(trained, depth)) for depth in depths]
        of_accuracy.plot(depths, middle, **style)
        for depth in depths:
            values = [100 * value for value in accuracies(trained, depth)]
            of_accuracy.vlines(depth, min(values), max(values), color=colour, linewidth=1)
    of_ratios.set_yscale("log")
    of_ratios.set(xlabel="hidden layers of 64", ylabel="‖∂W[1]‖ / ‖∂W[L]‖", title="before training, digits")
    of_accuracy.axvline(4.5, color=BLACK, linewidth=1, linestyle=":")
    of_accuracy.annotate("2010: plain sigmoid\nnetworks stop here", (4.6, 70), ha="left", fontsize="small")
    of_accuracy.set(
        xlabel="hidden layers of 64", ylabel="held-out digits classified correctly (%)", title="after training"
    )
    for axes in (of_ratios, of_accuracy):
        axes.grid(alpha=0.3)
    figure.legend(*of_ratios.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return {"vanishing.png": figure}


EXPERIMENT = Experiment(
    "vanishing_gradients",
    "How far back do gradients reach, by activation and initial weights, and when does a network stop learning?",
    measure,
    figures,
    draw,
)
