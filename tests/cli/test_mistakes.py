"""One sentence and status 2 for every mistake, and how to continue after Ctrl-C."""

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import FinishedRun, train
from tests.cli.helpers import SHORT, refused, run_of
from torchnn.cli import main
from torchnn.console import cannot_write
from torchnn.training import BinaryClassifier

ONE_EPOCH = ["--trainer.max_epochs", "1"]


@pytest.mark.parametrize(
    ("schedule", "args"),
    [("CosineAnnealingLR", "{T_max: 0}"), ("OneCycleLR", "{max_lr: 0.1, total_steps: 14}")],
)
def test_a_schedule_that_fails_is_named(schedule: str, args: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model.lr_scheduler", schedule, "--model.lr_scheduler_args", args]
    message = refused(["fit", "--trainer.max_epochs", "2", *words, "--model.lr_scheduler_interval", "step"], capsys)
    assert f"{schedule} fails with lr_scheduler_args" in message


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["fit", "--model.hiden_sizes", "[3]"],
            "--model.hiden_sizes is not an argument: did you mean --model.hidden_sizes?",
        ),
        (["fit", "--trainer.acelerator=cpu"], "did you mean --trainer.accelerator?"),
        (
            ["fit", "--model.hidden_sizes", "[0]"],
            "--model.hidden_sizes[0] is 0: a hidden layer needs at least 1 neuron.",
        ),
        (["fit", "--model.hidden_sizes", "[4,-3]"], "--model.hidden_sizes[1] is -3"),
        (["fit", "--model.hidden_sizes", "[a]"], "--model.hidden_sizes is 'a': expected a whole number."),
        (
            ["fit", "--model.activation", "softmax"],
            "--model.activation is 'softmax': choose one of identity, sigmoid, tanh, relu, step.",
        ),
        (["fit", "--model.lr", "fast"], "--model.lr is 'fast': expected a number."),
        (["fit", "--model.lr", "-1"], "--model.lr is -1.0: give a finite number above 0."),
        (["fit", "--model.lr", ".inf"], "--model.lr is inf: give a finite number above 0."),
        (["fit", "--model.bias", "some"], "expected true or false or one of 'shared'"),
        (["fit", "--model.optimizer", "Adamm"], "--model.optimizer is 'Adamm': choose one of"),
        (["fit", "--data.dataset", "iris"], "--data.dataset is 'iris': expected one of 'breast_cancer'."),
        (["fit", "--data.val_fraction", "2"], "--data.val_fraction is 2.0: it must be between 0 and 1."),
        (["fit", "--trainer.max_epochs", "many"], "--trainer.max_epochs is 'many': expected a whole number or null."),
        (["fit", "--trainer.devices", "0"], "the Trainer rejects its arguments: `Trainer(devices="),
        (["fit", "--trainer.barebones", "true"], "--trainer.barebones turns off the metrics"),
        (
            ["fit", "--early_stopping.monitor", "val_acc"],
            "--early_stopping.monitor is 'val_acc': choose one of val_loss",
        ),
        (["predict", "--trainer.logger", "false"], "no run in lightning_logs has a checkpoint"),
        (["fit", "--trainer.max_epochs", "0"], "would train nothing"),
        (
            ["fit", "--trainer.limit_val_batches", "0"],
            "which computes val_loss: also set --early_stopping.monitor train_loss.",
        ),
        (
            ["fit", "--trainer.default_root_dir", "/proc/1/none"],
            "give a --trainer.default_root_dir that is writable",
        ),
        (["fit", "--model.optimizer", "SparseAdam"], "--model.optimizer is 'SparseAdam': choose one of"),
        (
            ["fit", "--trainer.max_epoch", "3"],
            "--trainer.max_epoch is not an argument: did you mean --trainer.max_epochs?",
        ),
        (["fit", "--trainer.limit_test_batches", "0"], "--trainer.limit_test_batches 0 leaves nothing to fit"),
        (["fit", "--seed_everything", "-1"], "--seed_everything: -1 is not in bounds"),
        (["fit", "--checkpoint.monitor", "val_auroc", "--checkpoint.mode", "min"], "would keep the worst val_auroc"),
        (["fit", "--data.val_fraction", "0.001"], "--data.val_fraction 0.001 and test_fraction 0.15 of 569 rows leave"),
        (["fit", "--config", "none.yaml"], "none.yaml does not exist."),
        (["test"], "no run in lightning_logs has a checkpoint: train with torchnn fit"),
        (["test", "--ckpt_path", "none.ckpt"], "--ckpt_path none.ckpt does not exist"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert sentence in refused(words, capsys)
    assert list(tmp_path.iterdir()) == [], "a refused command left something behind"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model: {hiden_sizes: [3]}", "--model.hiden_sizes is not an argument: did you mean --model.hidden_sizes?"),
        ("ranks: {timeout: 120.0}", "--ranks.timeout is not an argument: see --help."),  # in every file of 0.1
    ],
)
def test_an_unknown_argument_in_a_configuration_is_named_like_a_flag(
    text: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("config.yaml").write_text(text)
    assert refused(["fit", "--config", "config.yaml"], capsys) == f"torchnn: {sentence}\n"


@pytest.mark.parametrize("words", [["--model.activation", "softmax"], ["--model.lr", "-1"], ["--data.folds", "3"]])
def test_a_wrong_model_is_refused_before_a_table_is_read(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--model.hidden_sizes", "[0]"] if words[0] == "--data.folds" else []
    sentence = refused(["fit", "--data.path", "none.csv", "--data.target", "y", *words, *wrong], capsys)
    assert (wrong or words)[0] in sentence


def test_a_flag_that_contradicts_the_checkpoint_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    train(tmp_path, "--trainer.max_epochs", "1", "--model.hidden_sizes", "[5]")
    untouched = {path: path.read_bytes() for path in run_of(0).rglob("*") if path.is_file()}
    wrong = ["--model.lr", "0.5"], ["--model.hidden_sizes", "[16]"]  # the second is the default: a flag all the same
    for words in wrong:
        message = refused(["fit", "--ckpt_path", "last", *words], capsys)
        assert f"{words[0]} {words[1]} contradicts the checkpoint" in message.replace("(16,)", "[16]")
    main(["test", "--model.threshold", "0.9"])
    assert {path: path.read_bytes() for path in run_of(0).rglob("*") if path.is_file()} == untouched


def test_a_diverging_run_ends_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(["fit", *SHORT, "--model.lr", "1e38", "--model.optimizer", "SGD"], capsys)
    assert "in epoch 0: the learning rate 1e+38 is probably too high: lower it (--model.lr)" in message


@pytest.mark.parametrize("name", [None, "metrics.csv"])
def test_a_disk_that_is_full_elsewhere_is_named(name: str | None) -> None:
    sentence = cannot_write(OSError(errno.ENOSPC, "No space left on device", name))
    assert sentence is not None
    assert sentence.startswith(f"{name or 'the run folder'}: No space left on device: free some space, or give")
    assert cannot_write(OSError("somebody's own")) is None


class Interrupted:
    """A `torchnn fit` in a process of its own that gets Ctrl-C."""

    def __init__(self, folder: Path) -> None:
        words = ["fit", "--trainer.max_epochs", "100000", "--early_stopping.patience", "100000"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "torchnn", *words],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def stop_when(self, ready: Any) -> tuple[int, str]:
        deadline = time.monotonic() + 60
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.process.send_signal(signal.SIGINT)
        _, message = self.process.communicate(timeout=60)
        return self.process.returncode, message


def test_ctrl_c_says_how_to_continue_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    last = tmp_path / run_of(0) / "checkpoints/last.ckpt"
    status, message = Interrupted(tmp_path).stop_when(last.exists)
    assert status == 130
    assert message.count("\n") == 1, message
    assert "continue with torchnn fit --ckpt_path" in message
    torch.load(last, weights_only=True)


@pytest.mark.parametrize(
    ("words", "step", "sentence"),
    [
        (
            ["fit", "--trainer.max_epochs", "1"],
            "training_step",
            "interrupted in epoch 0; no checkpoint had been saved.",
        ),
        (
            ["fit", "--trainer.max_epochs", "1"],
            "test_step",
            "interrupted after training; torchnn test measures the trained model.",
        ),
        (["test"], "test_step", "interrupted; start torchnn test again."),
        (["validate"], "validation_step", "interrupted; start torchnn validate again."),
        (["predict", "--output", "o.csv"], "predict_step", "interrupted; start torchnn predict again."),
        (["export", "m.onnx"], "load", "interrupted; start torchnn export again."),
    ],
)
def test_an_interruption_says_how_to_continue(
    words: list[str],
    step: str,
    sentence: str,
    copy_of_short_run: FinishedRun,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:

    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(BinaryClassifier, step, interrupted)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 130
    assert f"torchnn: {sentence}" in capsys.readouterr().err
    assert not [*Path().glob("*o.csv*"), *Path().glob("*m.onnx*")]
