"""Cross-validation: a run for each fold, every row held out once, mean and standard deviation of the metrics."""

import shutil
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch

from tests.cli.conftest import FinishedRun, train
from tests.cli.helpers import SHORT, refused, rows_of, run_of
from torchnn.cli import main
from torchnn.training import TabularDataModule

FOLDS = ["--data.folds", "3"]
ONE_FOLD = "last.ckpt, the run of --data.fold 1 only\n"


def test_every_fold_is_a_run_and_the_report_is_their_mean(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", *SHORT, *FOLDS])
    output = capsys.readouterr().out.splitlines()
    table = rows_of(run_of(2) / "folds.csv")
    assert [row["run"] for row in table] == [str(run_of(version)) for version in range(3)]
    aurocs = [float(row["auroc"]) for row in table]
    assert len(set(aurocs)) == 3
    assert f"auroc {mean(aurocs):.4f} ± {stdev(aurocs):.4f}" in output
    assert output[-1] == f"folds {run_of(2) / 'folds.csv'}"
    held_out = [TabularDataModule(folds=3, fold=fold).rows["test"] for fold in range(3)]
    assert torch.equal(torch.cat(held_out).sort().values, torch.arange(569))
    saved = [torch.load(run_of(v) / "checkpoints/last.ckpt", weights_only=True) for v in range(3)]
    assert [one["datamodule_hyper_parameters"]["fold"] for one in saved] == [0, 1, 2]


@pytest.fixture(scope="module")
def run_of_fold_1(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return train(tmp_path_factory.mktemp("fold"), *SHORT, *FOLDS, "--data.fold", "1")


@pytest.fixture
def printed_of_fold_1(run_of_fold_1: FinishedRun, tmp_path: Path, _in_an_empty_folder: None) -> str:
    """What the run of one fold printed; a copy of it is in the working folder."""
    shutil.copytree(run_of_fold_1.folder, tmp_path, dirs_exist_ok=True)
    return run_of_fold_1.printed


def test_one_fold_can_be_run_and_tested_again(printed_of_fold_1: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(printed_of_fold_1.splitlines()) == 1
    main(["test"])
    assert printed_of_fold_1.split()[:4] == capsys.readouterr().out.split()[:4]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data.folds", "1"], "--data.folds is 1: use 2 or more, or 0 for a single run."),
        (["--data.folds", "3", "--data.fold", "3"], "--data.fold is 3: folds are counted from 0, so it"),
        (["--data.folds", "3", "--trainer.devices", "2"], "--data.folds runs in one process"),
    ],
)
def test_wrong_folds_are_refused(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refused(["fit", *words], capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_cross_validation_is_not_silently_resumed_as_one_fold(
    printed_of_fold_1: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was killed in its second fold, and would end with the metrics of that fold only."""
    with pytest.raises(SystemExit) as stop:
        main(["fit", *SHORT, *FOLDS, "--ckpt_path", "last"])
    assert stop.value.code == 2
    assert "resumes the run of one fold: also give --data.fold 1, the fold of this" in capsys.readouterr().err
    for words in ([*FOLDS, "--data.fold", "1"], []):
        main(["fit", "--trainer.max_epochs", "3", "--ckpt_path", "last", *words])
        assert (ONE_FOLD in capsys.readouterr().err) == (not words)
