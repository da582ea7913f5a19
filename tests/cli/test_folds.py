"""Cross-validation: a run for each fold, every row held out once, mean and spread of what they reach."""

from pathlib import Path
from statistics import mean, stdev

import pytest
import torch

from tests.cli.helpers import SHORT, refused, rows_of, run_of
from torchnn.cli import main
from torchnn.training import TabularDataModule


def test_every_fold_is_a_run_and_the_report_is_their_mean(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", *SHORT, "--data.folds", "3"])
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


def test_one_fold_can_be_run_alone_and_tested_again(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", *SHORT, "--data.folds", "3", "--data.fold", "1"])
    trained = capsys.readouterr().out
    assert len(trained.splitlines()) == 1
    main(["test"])
    assert trained.split()[:4] == capsys.readouterr().out.split()[:4]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data.folds", "1"], "--data.folds is 1: use 2 or more, or 0 for a single run."),
        (["--data.folds", "3", "--data.fold", "3"], "--data.fold is 3: folds are counted from 0, so it"),
        (["--data.folds", "3", "--trainer.devices", "2"], "--data.folds runs in one process"),
    ],
)
def test_folds_that_are_none_are_refused(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refused(["fit", *words], capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_cross_validation_does_not_silently_go_on_as_one_fold(capsys: pytest.CaptureFixture[str]) -> None:
    """Killed in its second fold, it would end with the figures of that fold alone."""
    folds = ["--data.folds", "3"]
    main(["fit", *SHORT, *folds, "--data.fold", "1"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["fit", *SHORT, *folds, "--ckpt_path", "last"])
    assert stop.value.code == 2
    assert "goes on with the run of one fold: give its --data.fold 1 too, then run each" in capsys.readouterr().err
    for words in ([*folds, "--data.fold", "1"], []):
        main(["fit", "--trainer.max_epochs", "3", "--ckpt_path", "last", *words])
        assert ("last.ckpt, the run of --data.fold 1 alone\n" in capsys.readouterr().err) == (not words)
