"""How many sweeps XOR and symmetry take with many initial weights, and which weights they learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..common.command import Experiment, Run
from ..common.plots import BLACK, BLUE, COLOURS, ORANGE, VERMILION, new_figure
from ..common.results import Figure, Row, Tables, numbers, where
from .networks import PROBLEMS, mirror
from .training import BCE, MSE, NEVER, TOLERANCES, ManySeeds, Sweeps

SOLVED = f"sweeps_within_{TOLERANCES[-1]}"
BATCH, ONLINE = "after each sweep", "after each pattern"
RATIO_TOLERANCE = 0.1
FIRST_LAYER = "layers.0.weight"


@dataclass(frozen=True)
class Setting:
    """The settings of one run of all seeds."""

    problem: str
    loss: str
    lr: float
    momentum: float
    updates: str

    @property
    def columns(self) -> dict[str, object]:
        return {
            "problem": self.problem,
            "loss": self.loss,
            "lr": self.lr,
            "momentum": self.momentum,
            "updates": self.updates,
        }

    @property
    def label(self) -> str:
        return f"{self.loss}, rate {self.lr:g}, momentum {self.momentum:g}, {self.updates}"


XOR = Setting("XOR", MSE, 0.5, 0.9, BATCH)
SYMMETRY = Setting("symmetry", MSE, 0.1, 0.9, BATCH)
SYMMETRY_BCE = Setting("symmetry", BCE, 0.005, 0.9, BATCH)
SETTINGS = (
    XOR,
    Setting("XOR", MSE, 0.5, 0.9, ONLINE),
    Setting("XOR", MSE, 0.5, 0.0, BATCH),
    Setting("XOR", MSE, 0.5, 0.0, ONLINE),
    Setting("XOR", BCE, 0.5, 0.9, BATCH),
    Setting("XOR", BCE, 0.5, 0.9, ONLINE),
    SYMMETRY,
    Setting("symmetry", BCE, 0.1, 0.9, BATCH),
    SYMMETRY_BCE,
)


def train(run: Run, setting: Setting, seeds: int, sweeps: int) -> ManySeeds:
    problem = PROBLEMS[setting.problem]
    module = ManySeeds(problem, setting.loss, setting.lr, setting.momentum, seeds)
    loader = Sweeps(problem, sweeps, one_by_one=setting.updates == ONLINE)
    run.trainer(max_epochs=1).fit(module, loader)
    return module.cpu()


def measure(
    run: Run,
    seeds: int = 100,
    xor_sweeps: int = 5_000,
    symmetry_sweeps: int = 10_000,
) -> dict[str, list[dict[str, object]]]:
    """Train every setting with the same seeds.

    Args:
        run: Trainer arguments and progress display.
        seeds: number of initial weights for each setting, all trained at once.
        xor_sweeps: number of sweeps after which XOR is given up.
        symmetry_sweeps: number of sweeps after which symmetry is given up.
    """
    rows: list[dict[str, object]] = []
    weights: list[dict[str, object]] = []
    for number, setting in enumerate(SETTINGS, 1):
        run.show_progress(f"setting {number} of {len(SETTINGS)}: {setting.problem}, {setting.label}")
        module = train(run, setting, seeds, xor_sweeps if setting.problem == "XOR" else symmetry_sweeps)
        for seed in range(seeds):
            solved = {f"sweeps_within_{t}": int(module.solved[i, seed]) for i, t in enumerate(TOLERANCES)}
            rows.append({**setting.columns, "seed": seed, **solved})
            if setting.problem == "symmetry" and solved[SOLVED] != NEVER:
                weights += learned(module, setting, seed)
    return {"sweeps": rows, "weights": weights}


def learned(module: ManySeeds, setting: Setting, seed: int) -> list[dict[str, object]]:
    """The weights of both hidden neurons of a seed that solved symmetry, and their ratios."""
    both = module.weights[FIRST_LAYER][seed]
    opposite = float((both[0] + both[1]).abs().max() / both.abs().max())
    rows = []
    for neuron, of_inputs in enumerate(both):
        found = mirror(of_inputs)
        rows.append(
            {
                "loss": setting.loss,
                "lr": setting.lr,
                "seed": seed,
                "neuron": neuron + 1,
                **{f"w{i}": f"{value:.4f}" for i, value in enumerate(of_inputs.tolist(), 1)},
                "bias": f"{module.weights['layers.0.bias'][seed, neuron]:.4f}",
                "to_output": f"{module.weights['layers.1.weight'][seed, 0, neuron]:.4f}",
                "output_bias": f"{module.weights['layers.1.bias'][seed, 0]:.4f}",
                "asymmetry": f"{found.asymmetry:.2g}",
                "opposite": f"{opposite:.2g}",
                "middle_by_small": f"{found.middle:.3f}",
                "large_by_small": f"{found.large:.3f}",
            }
        )
    return rows


def solved_sweeps(tables: Tables, setting: Setting, column: str = SOLVED) -> tuple[list[float], int]:
    """The sorted numbers of sweeps of the seeds that solved it, and the number of all seeds."""
    rows = where(tables["sweeps"], **setting.columns)
    return sorted(n for n in numbers(rows, column) if n != NEVER), len(rows)


def in_words(tables: Tables, setting: Setting) -> str:
    sweeps, seeds = solved_sweeps(tables, setting)
    if not sweeps:
        return f"none of {seeds} seeds"
    return f"{median(sweeps):,.0f} ({min(sweeps):,.0f} to {max(sweeps):,.0f}); {len(sweeps)} of {seeds} seeds"


def pairs_of_neurons(tables: Tables, setting: Setting) -> list[list[Row]]:
    rows = where(tables["weights"], loss=setting.loss, lr=setting.lr)
    return [where(rows, seed=seed) for seed in dict.fromkeys(row["seed"] for row in rows)]


def has_ratio(pair: Sequence[Row], middle: float, large: float) -> bool:
    """Whether both neurons have mirrored signs and weights in the ratio 1 : middle : large, within a tenth."""
    return all(
        float(row["asymmetry"]) <= RATIO_TOLERANCE
        and abs(float(row["middle_by_small"]) / middle - 1) <= RATIO_TOLERANCE
        and abs(float(row["large_by_small"]) / large - 1) <= RATIO_TOLERANCE
        for row in pair
    )


def faster_than_published(tables: Tables, setting: Setting) -> str:
    sweeps, _ = solved_sweeps(tables, setting)
    published = PROBLEMS[setting.problem].published
    return f"{sum(n <= published for n in sweeps)} of {len(sweeps)}"


def figures(tables: Tables) -> list[Figure]:
    found = [
        Figure("sweeps to learn 6-bit symmetry, median", "1,425 (one run)", in_words(tables, SYMMETRY)),
        Figure("sweeps to learn XOR with one hidden neuron, median", "558 (one run)", in_words(tables, XOR)),
    ]
    for setting in (SYMMETRY, XOR):
        what = f"solved seeds of {setting.problem} that took at most the published number of sweeps"
        found.append(Figure(what, "some, but not all", faster_than_published(tables, setting)))
        cells = []
        for tolerance in TOLERANCES[:-1]:
            sweeps, _ = solved_sweeps(tables, setting, f"sweeps_within_{tolerance}")
            cells.append(f"{median(sweeps):,.0f} within {tolerance}" if sweeps else f"none within {tolerance}")
        found.append(Figure(f"median sweeps of {setting.problem} by looser criteria", "–", ", ".join(cells)))
    for setting in (SYMMETRY, SYMMETRY_BCE):
        pairs = pairs_of_neurons(tables, setting)
        expected = "all (of one)" if setting == SYMMETRY else "–"
        what = f"solved seeds of symmetry with weights 1 : 2 : 4, mirrored signs, {setting.loss}"
        found.append(Figure(what, expected, f"{sum(has_ratio(pair, 2, 4) for pair in pairs)} of {len(pairs)}"))
        what = f"those with 1 : 1.5 : 2, mirrored signs, {setting.loss}"
        found.append(Figure(what, "–", f"{sum(has_ratio(pair, 1.5, 2) for pair in pairs)} of {len(pairs)}"))
    classic = [row for pair in pairs_of_neurons(tables, SYMMETRY) if has_ratio(pair, 2, 4) for row in pair]
    if classic:
        middle, large = median(numbers(classic, "middle_by_small")), median(numbers(classic, "large_by_small"))
        asymmetry, opposite = numbers(classic, "asymmetry"), numbers(classic, "opposite")
        found += [
            Figure(
                "median ratio of seeds of the published kind, squared error",
                "1 : 2 : 4",
                f"1 : {middle:.2f} : {large:.2f}",
            ),
            Figure(
                "deviation of mirrored weights, and of the two neurons, from being opposite: median, largest",
                "0, relative to the largest weight",
                f"{median(asymmetry):.1g}, {max(asymmetry):.1g}; {median(opposite):.1g}, {max(opposite):.1g}",
            ),
        ]
    others = [setting for setting in SETTINGS if setting not in (XOR, SYMMETRY)]
    found += [Figure(f"{setting.problem}, {setting.label}", "–", in_words(tables, setting)) for setting in others]
    return found


def draw(tables: Tables) -> dict[str, Any]:
    return {"sweeps.png": draw_sweeps(tables), "weights.png": draw_weights(tables)}


def draw_sweeps(tables: Tables) -> Any:
    """Plot the share of seeds that have solved each problem, by sweeps."""
    figure, (all_axes,) = new_figure(2, size=(6, 5.2), share_y=True)
    for axes, name in zip(all_axes, PROBLEMS, strict=True):
        lines = zip(
            [s for s in SETTINGS if s.problem == name], COLOURS, ("-", "--", "-.", ":", "-", "--"), strict=False
        )
        for setting, colour, line in lines:
            sweeps, seeds = solved_sweeps(tables, setting)
            share = [100 * i / seeds for i in range(len(sweeps) + 1)]
            axes.step(
                *([10, *sweeps], share), where="post", color=colour, linestyle=line, label=setting.label,
                linewidth=2.5 if setting in (XOR, SYMMETRY) else 1.5,
            )  # fmt: skip
        published = PROBLEMS[name].published
        axes.axvline(published, color=BLACK, linewidth=1)
        axes.annotate(f"1986: {published:,}", (published, 103), ha="center", annotation_clip=False)
        axes.set_xscale("log")
        axes.set(xlabel="sweeps through all patterns", title=f"{name}\n")
        axes.set_ylim(0, 101)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), fontsize="small")
    all_axes[0].set_ylabel("solved seeds (%)")
    return figure


def draw_weights(tables: Tables) -> Any:
    """Plot the ratios of all solved seeds, and the weights of the seed nearest to the published number of sweeps."""
    figure, ((of_ratios, of_weights),) = new_figure(2, size=(5.2, 4.2))
    for setting, colour, mark in ((SYMMETRY, BLUE, "o"), (SYMMETRY_BCE, VERMILION, "x")):
        rows = [row for pair in pairs_of_neurons(tables, setting) for row in pair]
        middle, large = numbers(rows, "middle_by_small"), numbers(rows, "large_by_small")
        label = f"{setting.loss}, {len(rows) // 2} seeds"
        of_ratios.plot(middle, large, mark, color=colour, fillstyle="none", label=label)
    for ratio in ((2, 4), (1.5, 2)):
        of_ratios.annotate("1 : {} : {}".format(*ratio), ratio, (8, -14), textcoords="offset points")
        of_ratios.plot(*ratio, "+", color=BLACK, markersize=14)
    of_ratios.set(xlabel="middle weight / smallest", ylabel="largest weight / smallest", title="ratios of solved seeds")
    of_ratios.set(xlim=(1, 2.5), ylim=(1.5, 4.5))
    of_ratios.legend(loc="upper left", fontsize="small")

    sweeps = where(tables["sweeps"], **SYMMETRY.columns)
    solved = [row for row in sweeps if row[SOLVED] != str(NEVER)]
    if solved:
        nearest = min(solved, key=lambda row: abs(float(row[SOLVED]) - PROBLEMS["symmetry"].published))
        pair = where(tables["weights"], loss=SYMMETRY.loss, lr=SYMMETRY.lr, seed=nearest["seed"])
        for shift, colour, hatch, row in zip((-0.2, 0.2), (BLUE, ORANGE), ("", "//"), pair, strict=True):
            places = [i + shift for i in range(1, 7)]
            heights = [float(row[f"w{i}"]) for i in range(1, 7)]
            of_weights.bar(places, heights, 0.38, color=colour, hatch=hatch, label=f"hidden neuron {row['neuron']}")
        of_weights.legend(fontsize="small")
        of_weights.set_title(f"seed {nearest['seed']}, solved after {int(nearest[SOLVED]):,} sweeps")
    of_weights.axhline(0, color=BLACK, linewidth=0.8)
    of_weights.set(xlabel="input bit", ylabel="weight")
    return figure


EXPERIMENT = Experiment(
    "rumelhart_1986",
    "How many sweeps do XOR and mirror symmetry take, and does symmetry find its 1 : 2 : 4 weights?",
    measure,
    figures,
    draw,
)
