"""The model of many processes against a simulated ring, the timing of two processes, and the figures in the pages."""

import heapq
from pathlib import Path

import pytest
import torch

from experiments.benchmark.problems import Point
from experiments.common.command import FOLDER, in_the_list
from experiments.common.errors import BAD_ARGUMENT, UnavailableError
from experiments.common.results import quoted, read_table, table_of_figures
from experiments.scale import cost, predict, shaped
from experiments.scale.cost import EXPERIMENT, rows_of_last, seconds_of_a_row, sizes_of, with_predictions
from experiments.scale.model import (
    Layer,
    Wire,
    buckets_of,
    efficiency,
    fitted_wire,
    layers_of,
    num_bytes,
    operations,
    step_seconds,
)
from experiments.scale.processes import AT_ONCE, EAGER, STAGES, WAYS, Request, WrongGradientError, check, measured
from experiments.scale.wide import KINDS, measure_wide

WIRE = Wire("test", bandwidth=1000.0, latency=0.25)
SIZES = (4, 3, 2)


def simulated_ring(num_bytes: float, processes: int, wire: Wire) -> float:
    """Simulate each message: a process forwards a chunk when it has received it and its sender is free."""
    chunk, hops = num_bytes / processes, 2 * (processes - 1)
    free = [0.0] * processes
    events = [(0.0, sender, 0) for sender in range(processes)]
    heapq.heapify(events)
    last = 0.0
    while events:
        ready, sender, hop = heapq.heappop(events)
        arrived = max(ready, free[sender]) + wire.latency + chunk / wire.bandwidth
        free[sender], last = arrived, max(last, arrived)
        if hop + 1 < hops:
            heapq.heappush(events, (arrived, (sender + 1) % processes, hop + 1))
    return last


@pytest.mark.parametrize("processes", [2, 3, 8, 64])
@pytest.mark.parametrize("size", [0, 1, 12_345])
def test_the_all_reduce_equals_a_simulated_ring(size: int, processes: int) -> None:
    assert WIRE.all_reduce(size, processes) == pytest.approx(simulated_ring(size, processes, WIRE))


def test_another_number_of_messages_is_detected() -> None:
    """The control: a ring that reduces but does not distribute the result takes half as long."""
    half = (8 - 1) * (WIRE.latency + 100 / (8 * WIRE.bandwidth))
    assert half != pytest.approx(simulated_ring(100, 8, WIRE))


def test_one_process_sends_nothing() -> None:
    assert WIRE.all_reduce(100, 1) == 0
    assert step_seconds(SIZES, 10, 0.1, WIRE, 1, rows_of_last=10) == 1.0
    assert efficiency(SIZES, 10, 0.1, WIRE, 1, rows_of_last=0) == 1.0


def test_operations_and_bytes_of_a_network() -> None:
    assert layers_of(SIZES) == [Layer(24, 24, 4 * 15), Layer(12, 24, 4 * 8)]
    assert (operations(SIZES), num_bytes(SIZES)) == (84, 92)


def test_gradients_at_once_wait_for_the_whole_exchange() -> None:
    assert step_seconds(SIZES, 10, 0.1, WIRE, 4, rows_of_last=0) == pytest.approx(1 + WIRE.all_reduce(92, 4))


def small_buckets(sizes: tuple[int, ...]) -> list[list[int]]:
    return [[layer] for layer in reversed(range(len(sizes) - 1))]


@pytest.mark.parametrize("rows_of_a_second", [1.0, 0.001])
def test_gradients_layer_by_layer_are_sent_during_the_backward(
    rows_of_a_second: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with two queues by hand: a long backward hides the first bucket, a short one hides nothing."""
    monkeypatch.setattr("experiments.scale.model.buckets_of", small_buckets)
    compute = 10 * rows_of_a_second
    backward_of_first = compute * 24 / 84
    first_sent = compute - backward_of_first + WIRE.all_reduce(32, 2)
    expected = max(first_sent, compute) + WIRE.all_reduce(60, 2)
    assert step_seconds(SIZES, 10, rows_of_a_second, WIRE, 2, rows_of_last=10) == pytest.approx(expected)


def test_overlap_is_never_slower_and_never_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.scale.model.buckets_of", small_buckets)
    for seconds in (1e-4, 1e-2, 1.0):
        at_once, in_stages = (step_seconds(SIZES, 8, seconds, WIRE, 8, rows) for rows in (0, 8))
        assert 8 * seconds < in_stages < at_once


def test_buckets_fill_up_from_the_last_layer() -> None:
    assert buckets_of((10, 10, 10), first=1, later=1) == [[1], [0]]
    assert buckets_of((10, 10, 10, 1), first=100, later=10_000) == [[2, 1], [0]]
    assert buckets_of((10, 10, 10, 1)) == [[2, 1, 0]]


def test_a_wire_is_recovered_from_its_all_reduces() -> None:
    sizes = [1_000, 30_000, 500_000]
    found = fitted_wire("found", sizes, [WIRE.all_reduce(size, 2) for size in sizes])
    assert found.bandwidth == pytest.approx(WIRE.bandwidth)
    assert found.latency == pytest.approx(WIRE.latency)
    assert fitted_wire("one size", [100, 100], [2.0, 2.0]) == Wire("one size", 50.0, 0.0)


def simulated_row(processes: int, batch: int, way: str, wire: str = cost.LOOPBACK) -> dict[str, object]:
    """A measurement on a machine that behaves as the model."""
    sizes, of_row = sizes_of(8), 1e-3
    step = step_seconds(sizes, batch, of_row, WIRE, processes, rows_of_last(way, sizes, batch))
    times = {"compute": batch * of_row, "all_reduce": WIRE.all_reduce(num_bytes(sizes), 2), "step": step}
    return {"wire": wire, "width": 8, "batch": batch, "processes": processes, "way": way, "rounds": 3} | times


def test_predictions_equal_the_measurements_of_a_machine_that_behaves_as_the_model() -> None:
    rows = [simulated_row(k, batch, way) | {"spread": 0.0} for k in (1, 2) for batch in (4, 16) for way in WAYS]
    assert seconds_of_a_row(rows, 8, EAGER) == pytest.approx(1e-3)
    for row in with_predictions(rows, gigabits=1.0):
        assert float(str(row["model_ms"])) == pytest.approx(float(str(row["step_ms"])), rel=1e-3)
    slower = [row | {"compute": row["compute"] * 1.1, "step": row["step"] * 1.1} for row in rows]  # type: ignore[operator]
    predicted = with_predictions([*rows, *[s | {"batch": 2} for s in slower]], gigabits=1.0)
    assert any(abs(float(str(r["model_ms"])) / float(str(r["step_ms"])) - 1) > 0.05 for r in predicted)  # the control


def test_which_ways_give_gradients_layer_by_layer() -> None:
    wide, narrow = sizes_of(1024), sizes_of(64)
    assert rows_of_last(EAGER, narrow, 4096) == 4096
    assert rows_of_last(AT_ONCE, wide, 512) == 0
    assert rows_of_last(STAGES, wide, 512) == 512
    assert rows_of_last(STAGES, narrow, 512) == 0  # less than a bucket
    assert rows_of_last(STAGES, wide, 10**6) == 0  # more than a block


def test_a_wrong_gradient_is_refused() -> None:
    right = [torch.ones(3), torch.zeros(2)]
    check(STAGES, right, right)
    with pytest.raises(WrongGradientError, match="in stages does not give eager's"):
        check(STAGES, [torch.ones(3) * 1.001, torch.zeros(2)], right)
    with pytest.raises(WrongGradientError):
        check(STAGES, [torch.full((3,), float("nan")), torch.zeros(2)], right)


@pytest.mark.slow
def test_two_processes_are_timed_in_every_way() -> None:
    rows = measured(Request([Point((4, 4, 1), 8)], budget=0.01), 2)
    assert [row["way"] for row in rows] == list(WAYS)
    assert all(row["processes"] == 2 and row["compute"] > 0 and 0 < row["all_reduce"] < 1 for row in rows)


@pytest.mark.slow
def test_two_processes_share_a_layer_and_reach_the_weights_of_one() -> None:
    rows = measure_wide(64)
    assert {row["sharded"] for row in rows} == {"network", "layers"}
    assert [row["kind"] for row in rows if row["rank"] == 1] == [*KINDS, *KINDS]
    assert all(0.4 < float(str(row["share"])) < 0.6 and float(str(row["difference"])) < 1e-12 for row in rows)


def test_the_command_measures_predicts_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pretended(request: Request, processes: int) -> list[dict[str, object]]:
        ways = [simulated_row(processes, point.batch, way) for point in request.points for way in WAYS]
        return [{**row, "spread": 0.0} for row in ways]

    def no_wire(request: Request, gigabits: float) -> list[dict[str, object]]:
        raise UnavailableError("no rights.")

    shards = {"rank": 0, "bytes": 1, "alone": 2, "share": 0.5, "difference": 0.0}
    wide = [{"sharded": "network", "kind": kind} | shards for kind in KINDS]
    monkeypatch.setattr(cost, "measured", pretended)
    monkeypatch.setattr(cost, "measured_on_a_wire", no_wire)
    monkeypatch.setattr(cost, "measure_wide", lambda width: wide)
    arguments = ["--widths", "[8]", "--batches", "[4, 16]", "--out", str(tmp_path)]
    with pytest.warns(UserWarning, match="skipped: no rights"):
        assert EXPERIMENT.main(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in EXPERIMENT.results.iterdir()}
    for path in tmp_path.glob("*.csv"):
        assert list(read_table(path)[1][0]) == list(read_table(EXPERIMENT.results / path.name)[1][0])
    assert "1.00 (1.00 to 1.00)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--trainer.accelerator cpu", "leave out the --trainer arguments"),
        ("--widths [4096] --batches [1024] --most_seconds 0.001", "increase --most_seconds"),
    ],
)
def test_measurements_that_are_impossible_are_refused_in_one_sentence(
    arguments: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert EXPERIMENT.main([*arguments.split(), "--out", str(tmp_path)]) == BAD_ARGUMENT
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1


def test_an_impossible_wire_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program: None)
    with pytest.raises(UnavailableError, match="unshare, ip and tc"):
        shaped.measured_on_a_wire(Request([], 1.0), 1.0)


def test_pages_show_the_figures_of_the_committed_tables() -> None:
    figures = EXPERIMENT.figures(EXPERIMENT.committed())
    assert quoted((EXPERIMENT.folder / "README.md").read_text(), "figures") == table_of_figures(figures)
    assert quoted((FOLDER / "README.md").read_text(), "scale") == in_the_list(figures[0])
    for picture in EXPERIMENT.results.glob("*.png"):
        assert picture.stat().st_size < 200_000
        assert f"results/{picture.name}" in (EXPERIMENT.folder / "README.md").read_text()


def test_predictions_use_the_given_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--sizes 4-3-2 --flops 840 --bandwidth 1000 --latency 0.25 --workers 1 --workers 4 --batch 10"
    assert predict.main(words.split()) == 0
    out = capsys.readouterr().out
    share = 1 / (1 + WIRE.all_reduce(92, 4))
    assert "100.0% (1e+03 ms)" in out
    assert f"{share:.1%}" in out


@pytest.mark.parametrize("wrong", ["--sizes 4", "--flops 0", "--latency nan", "--workers 0", "--bandwidth x"])
def test_wrong_numbers_are_reported_in_one_sentence(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--sizes", "4-3-2", "--flops", "840", "--bandwidth", "1000", "--latency", "0.25"]
    with pytest.raises(SystemExit) as stopped:
        predict.main([*words, *wrong.split()])
    assert stopped.value.code == BAD_ARGUMENT
    error = capsys.readouterr().err
    assert error.startswith(f"predict: argument {wrong.split()[0]}: ")
    assert error.count("\n") == 1
