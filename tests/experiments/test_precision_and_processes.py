"""The experiment precision_and_processes: all ways take the same steps, and their logs are read correctly."""

from pathlib import Path

import pytest
import torch

from experiments.common.command import HARMLESS, Run
from experiments.precision_and_processes.experiment import (
    BATCH,
    EXACT,
    HALF,
    ONE,
    PARTIAL,
    SINGLE,
    TRAIN,
    TWO,
    by_epoch,
    digits,
    distance,
    settings,
    trained,
)

pytestmark = pytest.mark.filterwarnings(*(f"ignore:{message}" for message in HARMLESS))


@pytest.fixture(scope="module")
def run() -> Run:
    return Run({}, lambda text: None)


def test_all_steps_have_the_same_number_of_rows(run: Run) -> None:
    data = digits()
    assert data.source.num_rows == {"train": TRAIN, "val": 128, "test": 261, "all": 1797}
    assert TRAIN % BATCH == 0


def test_partial_batches_take_the_same_steps(run: Run) -> None:
    data = digits()
    one, partial, rounded = (
        trained(run, data, precision, way, seed=0, epochs=2)
        for precision, way in ((EXACT, ONE), (EXACT, PARTIAL), (HALF, ONE))
    )
    assert distance(partial.model, one.model) < 1e-12
    assert distance(rounded.model, one.model) > 1e-5  # the precision reaches the training
    assert [set(row) >= {"train_loss", "val_loss"} for row in one.curve] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [(EXACT, 1e-12), (SINGLE, 1e-5)])
def test_two_processes_take_the_same_steps(precision: str, tolerance: float, run: Run) -> None:
    data = digits()
    one, two = (trained(run, data, precision, way, seed=0, epochs=2) for way in (ONE, TWO))
    assert distance(two.model, one.model) < tolerance
    for single, shared in zip(one.curve, two.curve, strict=True):
        assert float(shared["train_loss"]) == pytest.approx(float(single["train_loss"]), abs=1e-6)


def test_two_processes_on_gpus_need_two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = [way for _, way, _ in settings(Run({}, lambda text: None))]
    assert ways.count(TWO) == 3
    monkeypatch.setattr(Run, "device", torch.device("cuda"))
    assert TWO not in [way for _, way, _ in settings(Run({}, lambda text: None))]


def test_the_log_lines_of_an_epoch_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train_loss,val_loss\n0,21,,0.5\n0,21,0.4,\n1,43,,0.3\n1,43,0.2,\n")
    assert [(row["train_loss"], row["val_loss"]) for row in by_epoch(path)] == [("0.4", "0.5"), ("0.2", "0.3")]
