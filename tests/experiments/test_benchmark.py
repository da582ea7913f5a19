"""The benchmark: how it detects noise, which gradients it refuses, and the files it writes."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.benchmark import command
from experiments.benchmark.accuracy import measure_accuracy
from experiments.benchmark.contenders import (
    AGAIN,
    COMPILE,
    CONTENDERS,
    EAGER,
    MICRO,
    MICRO_BATCHES,
    OURS,
    Contender,
    WrongGradientError,
    bfloat16_autocast,
    check_gradients,
    eager,
    ours,
    products,
    scikit_learn,
)
from experiments.benchmark.measure import (
    Measured,
    Rounds,
    is_result,
    measure_twice_if_noisy,
    measure_without_loss,
    timed_rounds,
)
from experiments.benchmark.memory import Memory, available_bytes, measure_memory, why_no_memory
from experiments.benchmark.problems import DEEP, Point, Problem, make_problem, why_too_large
from experiments.benchmark.report import Findings, write
from experiments.benchmark.streaming import LargeTableError, measure_large_table, measure_streaming
from experiments.benchmark.training import measure_training
from experiments.common.errors import BAD_ARGUMENT, INTERRUPTED, UnavailableError

POINT = Point((3, 4, 1), 300)


def rounds(again: float, others: float = 0.0) -> Rounds:
    """Three rounds on a machine that becomes slower, where torchnn is always twice as fast as eager."""
    seconds = [1.0, 2.0, 4.0]
    return Rounds({EAGER: seconds, OURS: [s / 2 for s in seconds], AGAIN: [s / again for s in seconds]}, others)


def measured(noisy: bool) -> Measured:
    return Measured(POINT, rounds(1.0), noisy=noisy)


def gradients(contender: Contender) -> list[torch.Tensor]:
    contender.step()
    assert contender.gradients is not None
    return contender.gradients()


@pytest.fixture
def problem() -> Problem:
    return make_problem(POINT)


def test_the_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    found = Rounds({EAGER: [1.0, 2.0, 9.0], OURS: [0.5, 2.0, 3.0], AGAIN: [1.0, 2.0, 9.0]})
    assert found.ratio(OURS) == 2.0  # the ratio of the medians would be 1


@pytest.mark.parametrize(
    ("again", "others", "quiet"), [(1.0, 0, True), (1.06, 0, False), (0.94, 0, False), (1, 1, False)]
)
def test_noise_shows_in_the_control_or_in_the_time_of_other_programs(again: float, others: float, quiet: bool) -> None:
    assert rounds(again, others).is_quiet == quiet


def test_all_contenders_are_timed_equally_often() -> None:
    found = timed_rounds([Contender(name, lambda: None, None) for name in (EAGER, OURS, AGAIN)], budget=1e-6)
    assert {name: len(seconds) for name, seconds in found.seconds.items()} == dict.fromkeys((EAGER, OURS, AGAIN), 5)


@pytest.mark.parametrize(("second", "noisy"), [(1.0, False), (1.2, True)])
def test_a_noisy_point_is_measured_again_once(second: float, noisy: bool) -> None:
    answers = iter([rounds(1.2), rounds(second)])
    assert measure_twice_if_noisy(POINT, {}, lambda: next(answers)).noisy == noisy
    assert next(answers, None) is None


def test_a_run_with_more_than_a_tenth_of_noisy_points_is_not_a_result() -> None:
    assert is_result([measured(True)] + [measured(False)] * 9)
    assert not is_result([measured(True)] + [measured(False)] * 8)


@pytest.mark.parametrize(
    "name", [*(name for name in CONTENDERS if name != COMPILE), pytest.param(COMPILE, marks=pytest.mark.slow)]
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's compiler calls it at import
def test_contenders_give_the_gradients_of_eager(name: str, problem: Problem) -> None:
    try:
        contender = CONTENDERS[name](problem)
    except UnavailableError as why:
        pytest.skip(str(why))
    check_gradients(contender, gradients(eager(problem)))


def test_a_planted_wrong_gradient_is_refused(problem: Problem) -> None:
    expected, right = gradients(eager(problem)), ours(problem)
    wrong = replace(right, gradients=lambda: [*gradients(right)[:-1], gradients(right)[-1] * 1.001])
    with pytest.raises(WrongGradientError, match="torchnn: gradient 3 differs"):
        check_gradients(wrong, expected)
    missing = replace(right, gradients=lambda: gradients(right)[:-1])
    with pytest.raises(WrongGradientError, match="is missing"):
        check_gradients(missing, expected)
    no_number = replace(right, gradients=lambda: [g * float("nan") for g in gradients(right)])
    with pytest.raises(WrongGradientError):
        check_gradients(no_number, expected)


def test_autocast_gradients_are_close_to_eager_but_not_float32(problem: Problem) -> None:
    expected = gradients(eager(problem))
    for contender in (ours(problem, bfloat16_autocast), eager(problem, context=bfloat16_autocast)):
        check_gradients(contender, expected, tolerance=0.1)
        with pytest.raises(WrongGradientError):
            check_gradients(contender, expected)


def test_micro_batches_need_a_larger_batch() -> None:
    with pytest.raises(UnavailableError, match="no more than 256 rows"):
        CONTENDERS[MICRO](make_problem(Point((3, 1), MICRO_BATCHES[0])))


def test_products_and_scikit_learn_have_no_gradients_to_compare(problem: Problem) -> None:
    assert products(problem).gradients is None
    assert scikit_learn(problem).gradients is None


def test_points_that_are_too_large_are_skipped() -> None:
    assert why_too_large(Point(DEEP, 65536)) is None
    assert "GiB" in str(why_too_large(Point(DEEP, 2**21)))
    assert "step" in str(why_too_large(Point((1024, 4096, 4096, 1), 65536)))
    assert why_no_memory(EAGER, 2**20, available=8 * 2**30) == "less than 12 GiB of memory are free"
    assert why_no_memory(OURS, 2**20, available=8 * 2**30) is None


@pytest.mark.slow
@pytest.mark.skipif(available_bytes() is None, reason="needs /proc")
def test_measured_memory_contains_the_activations_that_eager_keeps() -> None:
    kept = 16384 * 4 * sum(DEEP[1:])
    assert measure_memory(EAGER, 16384).extra_bytes > kept > measure_memory(OURS, 16384).extra_bytes


def test_accuracy_has_all_parameters_and_float32_errors() -> None:
    found = measure_accuracy(Point((3, 4, 1), 50), range(2))
    assert [one.parameter for one in found] == ["W[1]", "b[1]", "W[2]", "b[2]"]
    assert all(0 < error < 1e-5 for one in found for error in (one.of_ours, one.of_eager))


@pytest.mark.slow
def test_both_recipes_train() -> None:
    found = measure_training(num_rows=5000)
    assert found.of_ours > 0
    assert found.of_plain > 0


@pytest.mark.slow
def test_training_from_a_stream_reports_speed_and_memory() -> None:
    assert measure_streaming(num_rows=20_000, rounds=1).ratio > 0
    found = measure_large_table(num_rows=20_000)
    assert 0 < found.peak_bytes < 2**31
    assert found.parquet_bytes > 20_000 * 4 * 10


@pytest.mark.slow
def test_a_failed_fit_gives_no_figure() -> None:
    with pytest.raises(LargeTableError, match="failed: torchnn: "):
        measure_large_table(num_rows=1)


def test_a_result_is_written_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.common.plots.DPI", 30)
    memory = [Memory(name, batch, 2**20, 0.1) for name in (OURS, EAGER) for batch in (32, 64)]
    names = write(tmp_path, Findings(grid=[measured(False)], memory=memory))
    assert names == ["results.csv", "memory.csv", "speed.png", "memory.png"]
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["contender"], row["ratio"]) for row in rows] == [
        (EAGER, "1.0000"),
        (OURS, "2.0000"),
        (AGAIN, "1.0000"),
    ]
    columns = "sizes batch contender median_ms ratio rounds noisy machine torch threads"
    assert list(rows[0]) == columns.split()
    assert (rows[0]["sizes"], rows[0]["batch"], rows[0]["rounds"]) == ("3-4-1", "300", "3")


def test_a_noisy_run_leaves_the_results_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.csv").write_text("earlier")
    monkeypatch.setattr(command, "run", lambda options, progress: Findings(grid=[measured(True)]))
    assert command.main(["--out", str(tmp_path), "--allow-busy"]) == command.NOISY
    assert {path.name for path in tmp_path.iterdir()} == {"results.csv", "noisy.csv"}
    assert (tmp_path / "results.csv").read_text() == "earlier"
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("This is not a result")


def test_a_network_without_a_loss_has_the_same_control() -> None:
    found = measure_without_loss(POINT, budget=0.1)
    assert set(found.names) == {EAGER, OURS, AGAIN}
    assert Findings(without_loss=[found]).is_result is not found.noisy


def test_an_interruption_leaves_the_results_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(options: object, progress: object) -> Findings:
        raise KeyboardInterrupt

    (tmp_path / "results.csv").write_text("earlier")
    monkeypatch.setattr(command, "run", interrupted)
    assert command.main(["--out", str(tmp_path), "--allow-busy"]) == INTERRUPTED
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]


@pytest.mark.parametrize(
    "arguments",
    [
        *("--sizes 30", "--sizes 30-0-1", "--sizes 3-2", "--batches 0", "--only speed", "--seconds-per-point nan"),
        *("--bogus", "--sizes 30-16-1", "--batches 32"),
    ],
)
def test_wrong_arguments_are_reported_in_one_sentence(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments.split())
    assert stopped.value.code == BAD_ARGUMENT
    error = capsys.readouterr().err
    assert error.startswith("benchmark: ")
    assert error.count("\n") == 1


def test_the_benchmark_does_not_start_on_a_busy_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1e6, 0.0, 0.0))
    with pytest.raises(SystemExit) as stopped:
        command.main([])
    assert stopped.value.code == BAD_ARGUMENT
    assert "--allow-busy" in capsys.readouterr().err
