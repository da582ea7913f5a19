"""The `torchnn` command as a person uses it: the main job and the flags."""

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score

from tests.cli.conftest import FinishedRun
from tests.cli.helpers import SHORT, printed_metrics, refused, rows_of, run_of
from torchnn.cli import main
from torchnn.training import BinaryClassifier, TabularDataModule


def test_the_main_job_trains_tests_and_leaves_a_run_folder(main_job: FinishedRun) -> None:
    metrics = printed_metrics(main_job.printed)
    assert metrics["accuracy"] > 0.93
    assert metrics["auroc"] > 0.98
    assert metrics["log_loss"] < 0.25
    assert main_job.printed.splitlines()[-1] == f"run {run_of(0)}"
    folder = main_job.folder / run_of(0)
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    best = {name for name in names if name.startswith("checkpoints/best")}
    assert len(best) == 1
    assert names - best >= {
        *("config.yaml", "metrics.csv", "learning_curve.png", "roc.png", "checkpoints/last.ckpt"),
    }
    for picture in ("learning_curve.png", "roc.png"):
        colours = Image.open(folder / picture).convert("RGB").getcolors(maxcolors=1 << 20)
        assert colours is not None
        assert len(colours) > 50, "an empty picture"


def test_test_takes_the_best_checkpoint_of_the_newest_run(
    copy_of_short_run: FinishedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    best = str(next(run_of(0).glob("checkpoints/best*")))
    for words in ([], ["--ckpt_path", best]):
        main(["test", *words])
        assert printed_metrics(capsys.readouterr().out) == printed_metrics(copy_of_short_run.printed)


def test_the_printed_metrics_are_those_of_the_checkpoint_on_held_out_rows(main_job: FinishedRun) -> None:
    printed = printed_metrics(main_job.printed)
    best = next((main_job.folder / run_of(0)).glob("checkpoints/best*"))
    model = BinaryClassifier.load_from_checkpoint(best, weights_only=True).eval()
    data = TabularDataModule()
    rows = data.rows["test"]
    with torch.no_grad():
        probability = model(data.table.features[rows]).squeeze(-1)
    assert printed["accuracy"] == pytest.approx(accuracy_score(data.table.target[rows], probability >= 0.5), abs=1e-4)
    assert printed["auroc"] == pytest.approx(roc_auc_score(data.table.target[rows], probability), abs=1e-4)


def test_the_same_configuration_gives_the_same_bits_and_another_seed_does_not() -> None:
    words = ["--model.hidden_sizes", "[8,4]", "--model.activation", "[tanh,relu]", "--model.lr", "0.02"]
    main(["fit", *SHORT, *words, "--seed_everything", "1"])
    main(["fit", "--config", str(run_of(0) / "config.yaml")])
    main(["fit", *SHORT, *words, "--seed_everything", "2"])
    a, b, c = (torch.load(run_of(version) / "checkpoints/last.ckpt", weights_only=True) for version in range(3))
    assert a["hyper_parameters"] == b["hyper_parameters"]
    assert a["state_dict"].keys() == b["state_dict"].keys()
    assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])
    first = "network.layers.0.weight"
    assert not torch.equal(a["state_dict"][first], c["state_dict"][first])


def test_last_is_rewritten_every_epoch_when_the_best_is_old() -> None:
    """A rate so high that a later epoch is worse than an earlier one."""
    main(["fit", "--trainer.max_epochs", "6", "--model.lr", "0.5"])
    best, last = (
        torch.load(path, weights_only=True)["epoch"]
        for path in (next(run_of(0).glob("checkpoints/best*")), run_of(0) / "checkpoints/last.ckpt")
    )
    assert last == 5
    assert best < last


def test_every_kind_of_hyper_parameter_reaches_the_run() -> None:
    words = ["--model.bias", "shared", "--model.initialisation", "torch", "--model.optimizer", "SGD"]
    words += ["--model.optimizer_args", "{momentum: 0.9}", "--model.lr", "0.05", "--model.weight_decay", "0.001"]
    words += ["--model.lr_scheduler", "StepLR", "--model.lr_scheduler_args.step_size", "1", "--model.pos_weight", "2"]
    words += ["--model.threshold", "0.4", "--data.batch_size", "64", "--data.val_fraction", "0.2"]
    main(["fit", *SHORT, *words, "--data.seed", "3", "--early_stopping.patience", "1"])
    saved = torch.load(run_of(0) / "checkpoints/last.ckpt", weights_only=True)
    options = saved["hyper_parameters"]
    assert (options["bias"], options["optimizer"], options["pos_weight"], options["threshold"]) == (
        "shared",
        "SGD",
        2,
        0.4,
    )
    assert saved["optimizer_states"][0]["param_groups"][0]["momentum"] == 0.9
    assert saved["state_dict"]["network.layers.0.bias"].shape == (1,)
    config = yaml.safe_load((run_of(0) / "config.yaml").read_text())
    assert (config["data"]["batch_size"], config["data"]["seed"]) == (64, 3)
    rates = [row["lr-SGD"] for row in rows_of(run_of(0) / "metrics.csv") if row["lr-SGD"]]
    assert [float(rate) for rate in rates] == pytest.approx([0.05, 0.005])


def test_resuming_ends_where_an_uninterrupted_run_ends() -> None:
    main(["fit", "--trainer.max_epochs", "3", "--trainer.default_root_dir", "whole"])
    main(["fit", "--trainer.max_epochs", "1", "--trainer.default_root_dir", "parts"])
    main(["fit", "--trainer.max_epochs", "3", "--trainer.default_root_dir", "parts", "--ckpt_path", "last"])
    whole = torch.load(run_of(0, "whole") / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    parts = torch.load(run_of(1, "parts") / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_checkpoint_is_tested_on_the_rows_that_its_own_run_held_out(capsys: pytest.CaptureFixture[str]) -> None:
    """With the default seed, some of them would be rows that it was trained on."""
    main(["fit", *SHORT, "--data.seed", "3", "--data.test_fraction", "0.3"])
    trained = printed_metrics(capsys.readouterr().out)
    main(["test", "--data.batch_size", "8"])
    assert printed_metrics(capsys.readouterr().out) == trained
    message = refused(["test", "--data.seed", "4"], capsys)
    assert "--data.seed 4 contradicts the checkpoint" in message
    main(["predict"])
    assert [int(row["row"]) for row in rows_of(Path(capsys.readouterr().out.split()[-1]))] == TabularDataModule(
        seed=3, test_fraction=0.3
    ).rows["test"].tolist()


def test_predictions_name_row_probability_and_class(
    copy_of_short_run: FinishedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["predict"])
    path = Path(capsys.readouterr().out.split()[-1])
    table, data = rows_of(path), TabularDataModule()
    assert [int(row["row"]) for row in table] == data.rows["test"].tolist()
    assert all((float(row["probability"]) >= 0.5) == (row["label"] == "benign") for row in table)


@pytest.mark.slow
def test_two_processes_train_and_test_and_print_once(tmp_path: Path) -> None:
    """Lightning's own launcher starts the second process from the command line, so that this runs outside pytest."""
    words = [*SHORT, "--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = subprocess.run(
        [sys.executable, "-m", "torchnn", "fit", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a pipe shows no progress"
    assert printed_metrics(done.stdout).keys() >= {"accuracy", "auroc", "log_loss"}
    assert done.stdout.splitlines()[-1].split()[0] == "run"
    assert len(done.stdout.splitlines()) == 7
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


@pytest.mark.parametrize(("precision", "loss"), [("bf16-mixed", "binary_cross_entropy"), ("64-true", "mse")])
def test_other_precisions_train(precision: str, loss: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", *SHORT, "--trainer.precision", precision, "--model.loss", loss])
    assert printed_metrics(capsys.readouterr().out)["auroc"] > 0.9


def test_a_metric_that_is_better_when_high_keeps_its_best_epoch() -> None:
    main(["fit", "--trainer.max_epochs", "6", "--checkpoint.monitor", "val_auroc", "--model.lr", "0.003"])
    scores = {
        int(row["epoch"]): float(row["val_auroc"]) for row in rows_of(run_of(0) / "metrics.csv") if row["val_auroc"]
    }
    (best,) = run_of(0).glob("checkpoints/best*")
    assert scores[torch.load(best, weights_only=True)["epoch"]] == max(scores.values()) > scores[0]


def test_a_run_that_ends_before_its_first_validation_keeps_its_last_weights(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2"])
    assert torch.load(run_of(0) / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 2
    main(["fit", "--trainer.max_steps", "5"])
    assert printed_metrics(capsys.readouterr().out)["accuracy"] > 0


def test_runs_without_a_folder_of_their_own_do_not_replace_each_other() -> None:
    for seed in ("1", "2"):
        main(["fit", *SHORT, "--trainer.logger", "false", "--seed_everything", seed])
    first, second = (torch.load(f"checkpoints/last{v}.ckpt", weights_only=True)["state_dict"] for v in ("", "-v1"))
    assert not torch.equal(first["network.layers.0.weight"], second["network.layers.0.weight"])


def test_a_run_without_validation_is_judged_by_its_training_loss() -> None:
    words = ["--early_stopping.monitor", "train_loss", "--checkpoint.monitor", "train_loss"]
    main(["fit", *SHORT, "--trainer.limit_val_batches", "0", *words])
    assert (run_of(0) / "learning_curve.png").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_gpu_trains(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", *SHORT, "--trainer.accelerator", "gpu", "--trainer.devices", "1", "--trainer.precision", precision])
    assert printed_metrics(capsys.readouterr().out)["auroc"] > 0.9


def test_a_dry_run_and_a_run_without_logger_leave_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", "--trainer.fast_dev_run", "true"])
    assert capsys.readouterr().out == "dry run: every stage ran on one batch, nothing was kept\n"
    main(["fit", *SHORT, "--trainer.logger", "false", "--trainer.enable_checkpointing", "false"])
    assert list(tmp_path.iterdir()) == []


def test_help_explains_each_argument_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "learning rate, above 0; with a schedule, the initial rate. (type: float, default: 0.02)" in text
    assert "from 32 to 1024. (type: Union[int, Literal['auto']], default: auto)" in text
    for name in BinaryClassifier.__init__.__annotations__.keys() - {"return", "in_features"}:
        described = text.split(f"--model.{name} ")[-1].split("(type: ")[0]
        assert len(described.split()) > 4, f"--model.{name} is not explained"


def test_the_configuration_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--model.lr", "0.5", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["model"]["lr"] == 0.5


def test_a_terminal_shows_progress(tmp_path: Path) -> None:
    """A pseudo-terminal of 120 columns, in which the bar is drawn."""
    words = [sys.executable, "-m", "torchnn", "fit", "--trainer.max_epochs", "1"]
    keeper, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    with subprocess.Popen(words, cwd=tmp_path, stdout=terminal, stderr=subprocess.PIPE) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # how a pseudo-terminal says that the other end is closed
            while chunk := os.read(keeper, 4096):
                shown += chunk
    os.close(keeper)
    assert process.returncode == 0
    assert "Epoch 0/0" in shown.decode()
    assert "accuracy" in shown.decode()
