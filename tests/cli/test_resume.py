"""`torchnn fit --ckpt_path`: which flags apply, which are refused, and what a run folder holds afterwards."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.cli.helpers import refused, rows_of, run_of
from torchnn.cli import main
from torchnn.cli.resume import AGAIN, FOLLOWED, FREE, SETTLED, is_plain
from torchnn.cli.train import TorchnnCLI

NEVER_SAVED = {"ckpt_path", "config"}
OF_THE_RUN = {
    "seed_everything": "3",
    "trainer.max_epochs": "2",
    "trainer.gradient_clip_val": "5.0",
    "trainer.precision": "64-true",
    "trainer.accelerator": "cpu",
    "early_stopping.patience": "7",
    "checkpoint.save_top_k": "2",
    "last.every_seconds": "30.0",
    "model.hidden_sizes": "[5]",
    "model.optimizer_args": "{eps: 1.0e-7}",
    "data.batch_size": "64",
}
TEXT = {"trainer.max_time", "trainer.devices"}  # what they are kept as
QUICK = {"model.lr", "data.seed", "seed_everything", "early_stopping.patience", "trainer.max_epochs"}
ANOTHER = {
    "seed_everything": "4",
    "trainer.limit_train_batches": "3",
    "trainer.limit_val_batches": "1",
    "trainer.overfit_batches": "2",
    "trainer.accumulate_grad_batches": "2",
    "trainer.precision": "bf16-mixed",
    "trainer.val_check_interval": "0.5",
    "trainer.check_val_every_n_epoch": "2",
    "trainer.reload_dataloaders_every_n_epochs": "1",
    "early_stopping.monitor": "val_auroc",
    "early_stopping.mode": "max",
    "checkpoint.monitor": "val_auroc",
    "checkpoint.mode": "max",
    "checkpoint.save_top_k": "3",
    "checkpoint.every_n_train_steps": "5",
    "checkpoint.train_time_interval": "0:00:10",
    "checkpoint.every_n_epochs": "2",
    "trainer.max_epochs": "5",
    "trainer.min_epochs": "3",
    "trainer.max_steps": "100",
    "trainer.min_steps": "20",
    "trainer.max_time": "00:00:10:00",
    "trainer.accelerator": "auto",
    "trainer.strategy": "ddp",
    "trainer.devices": "1",
    "trainer.num_nodes": "2",
    "trainer.gradient_clip_val": "0.5",
    "trainer.gradient_clip_algorithm": "value",
    "trainer.deterministic": "true",
    "trainer.benchmark": "true",
    "trainer.detect_anomaly": "true",
    "trainer.inference_mode": "false",
    "trainer.use_distributed_sampler": "false",
    "trainer.sync_batchnorm": "true",
    "trainer.enable_checkpointing": "false",
    "trainer.log_every_n_steps": "3",
    "early_stopping.patience": "99",
    "early_stopping.min_delta": "0.1",
    "early_stopping.stopping_threshold": "0.01",
    "early_stopping.divergence_threshold": "9.0",
    "early_stopping.check_finite": "false",
    "early_stopping.strict": "true",
    "early_stopping.verbose": "true",
    "early_stopping.log_rank_zero_only": "true",
    "early_stopping.check_on_train_epoch_end": "true",
    "checkpoint.verbose": "true",
    "checkpoint.save_last": "true",
    "checkpoint.save_on_exception": "true",
    "checkpoint.save_weights_only": "true",
    "checkpoint.auto_insert_metric_name": "false",
    "checkpoint.save_on_train_epoch_end": "true",
    "checkpoint.enable_version_counter": "false",
    "last.every_seconds": "9.0",
    "last.every_steps": "7",
    "model.hidden_sizes": "[6]",
    "model.activation": "tanh",
    "model.output_activation": "tanh",
    "model.bias": "shared",
    "model.initialisation": "torch",
    "model.loss": "mse",
    "model.optimizer": "SGD",
    "model.optimizer_args": "{eps: 1.0e-6}",
    "model.lr": "0.1",
    "model.weight_decay": "0.0",
    "model.lr_scheduler": "StepLR",
    "model.lr_scheduler_args": "{step_size: 2}",
    "model.lr_scheduler_interval": "step",
    "model.pos_weight": "2.0",
    "model.threshold": "0.4",
    "model.cost_ratio": "3.0",
    "model.min_recall": "0.5",
    "model.calibrate": "true",
    "model.scaling": "robust",
    "model.categories": "embed",
    "data.batch_size": "32",
    "data.val_fraction": "0.2",
    "data.test_fraction": "0.2",
    "data.seed": "1",
    "data.path": "other.csv",
    "data.target": "y",
    "data.positive": "yes",
    "data.include": "[x]",
    "data.exclude": "[x]",
    "data.keep": "[x]",
    "data.types": "{x: number}",
    "data.id_column": "id",
    "data.weight_column": "w",
    "data.missing": "[x]",
    "data.delimiter": ";",
    "data.decimal": ",",
    "data.encoding": "latin-1",
    "data.time_format": "%d/%m/%Y",
    "data.max_categories": "5",
    "data.max_columns": "5",
    "data.split": "time",
    "data.split_column": "when",
    "data.val_path": "val.csv",
    "data.test_path": "test.csv",
    "data.folds": "5",
    "data.fold": "1",
    "data.part": "all",
    "data.stream": "true",
    "data.shuffle_rows": "9",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of two epochs with settings of its own."""
    root = tmp_path_factory.mktemp("finished")
    words = [word for name, value in OF_THE_RUN.items() for word in (f"--{name}", value)]
    main(["fit", *words, "--trainer.default_root_dir", str(root)])
    return run_of(0, str(root)) / "checkpoints/last.ckpt"


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command would have run with, instead of running."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(TorchnnCLI, "_run_subcommand", lambda self, _: seen.update(config=self._plain_config()))
    monkeypatch.setattr(TorchnnCLI, "instantiate_classes", lambda self: setattr(self, "trainer", None))
    return seen


def value_of(config: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        config = config[part]
    return config


def flags_of_fit() -> set[str]:
    parsers: dict[str, Any] = {}

    class Parsers(TorchnnCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            parsers["fit"] = self._parser("fit")
            raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchnn.cli.train.TorchnnCLI", Parsers)
        with pytest.raises(SystemExit):
            main(["fit"])
    words = [option for action in parsers["fit"]._actions for option in action.option_strings]
    names = {word.removeprefix("--") for word in words if word.startswith("--") and not word.endswith(("+", ".help"))}
    groups = {name for name in names if any(other.startswith(f"{name}.") for other in names)}
    return names - groups - {"help", "print_config"}


def test_every_flag_of_fit_has_one_place() -> None:
    flags = flags_of_fit()
    hyper_parameters = {flag for flag in flags if flag.startswith(("model.", "data."))}
    placed = [*SETTLED, *FOLLOWED, *AGAIN, *FREE, *NEVER_SAVED, *hyper_parameters]
    assert len(placed) == len(set(placed))
    assert set(placed) == flags | ({"config"} - flags)


def test_every_flag_that_a_checkpoint_could_silence_is_tried() -> None:
    hyper_parameters = {flag for flag in ANOTHER if flag.startswith(("model.", "data."))}
    tried = hyper_parameters | SETTLED | FOLLOWED
    assert set(ANOTHER) == tried
    assert hyper_parameters >= {flag for flag in flags_of_fit() if flag.startswith("model.")}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(ANOTHER)]
)
def test_a_flag_is_followed_applied_or_refused(
    name: str, finished: Path, used: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    resume = ["fit", "--ckpt_path", str(finished)]
    if name in FOLLOWED:
        main(resume)
        followed = value_of(used["config"], name)
        if name in OF_THE_RUN:
            assert followed == yaml.safe_load(OF_THE_RUN[name])
        main([*resume, f"--{name}", ANOTHER[name]])
        assert value_of(used["config"], name) == (ANOTHER[name] if name in TEXT else yaml.safe_load(ANOTHER[name]))
        assert value_of(used["config"], name) != followed
        return
    with pytest.raises(SystemExit) as stop:
        main([*resume, f"--{name}", ANOTHER[name]])
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert message.count("\n") == 1
    assert f"--{name} " in message
    assert "contradicts the checkpoint" in message
    assert used == {}


def test_a_default_given_by_a_file_is_given_all_the_same(
    finished: Path, tmp_path: Path, used: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text("model: {hidden_sizes: [16]}\n")
    with pytest.raises(SystemExit):
        main(["fit", "--config", "own.yaml", "--ckpt_path", str(finished)])
    assert "--model.hidden_sizes [16] contradicts the checkpoint" in capsys.readouterr().err.replace("(16,)", "[16]")
    main(["fit", "--config", str(finished.parent.parent / "config.yaml"), "--ckpt_path", str(finished)])
    assert used["config"]["model"]["hidden_sizes"] == [5]


@pytest.mark.parametrize("words", [["--trainer.max_epochs", "1"], ["--trainer.max_steps", "3"]])
def test_less_than_the_checkpoint_has_seen_is_refused(
    words: list[str], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(["fit", "--ckpt_path", str(finished), *words], capsys)
    assert f"{words[0]} {words[1]} is less than the" in message


@pytest.mark.slow
def test_what_was_code_has_to_be_given_again(capsys: pytest.CaptureFixture[str]) -> None:
    code = ["--trainer.callbacks", "lightning.pytorch.callbacks.RichModelSummary"]
    place = ["--checkpoint.dirpath", "elsewhere"]
    main(["fit", "--trainer.max_epochs", "1", *code, *place])
    capsys.readouterr()
    assert "had --trainer.callbacks" in refused(["fit", "--ckpt_path", "last", *place], capsys)
    assert "had --checkpoint.dirpath elsewhere" in refused(["fit", "--ckpt_path", "last", *code], capsys)
    main(["fit", "--ckpt_path", "last", *code, *place, "--trainer.max_epochs", "2"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trainer.strategy": "os.system"}, "names code or an unknown setting in trainer.strategy"),
        ({"trainer.strategy": {"class_path": "os.system"}}, "names code or an unknown setting in trainer.strategy"),
        ({"trainer.callbacks": "os.system"}, "names code or an unknown setting in trainer.callbacks"),
        ({"trainer.default_root_dir": "/"}, "names code or an unknown setting in trainer.default_root_dir"),
        ({"trainer.max_epochs": "many"}, "--trainer.max_epochs is 'many': expected a whole number or null."),
        (None, "does not say how its run was set up"),
    ],
)
def test_settings_planted_in_a_checkpoint_are_refused(
    change: dict[str, Any] | None, sentence: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(finished, weights_only=True)
    if change is None:
        content["torchnn"]["settings"] = 3
    else:
        content["torchnn"]["settings"]["values"] |= change
    torch.save(content, "planted.ckpt")
    assert sentence in refused(["fit", "--ckpt_path", "planted.ckpt"], capsys).replace("fit.trainer", "trainer")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["loops", "callbacks", "optimizer_states", "lr_schedulers", "torchnn"])
@pytest.mark.parametrize("planted", [{"a": 1}, [[]], 7])
def test_a_state_that_is_none_is_refused(
    part: str, planted: Any, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(finished, weights_only=True)
    content[part] = planted
    torch.save(content, "planted.ckpt")
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--ckpt_path", "planted.ckpt", "--trainer.max_epochs", "3"])
    message = capsys.readouterr().err
    assert (stop.value.code, message.count("\n")) == (2, 1), message
    assert "planted.ckpt" in message


def test_a_resumed_run_folder_tells_the_whole_story(capsys: pytest.CaptureFixture[str]) -> None:
    """The rate is so high that the best epoch lies before the interruption."""
    rate = ["--model.lr", "0.5"]
    main(["fit", "--trainer.max_epochs", "8", *rate, "--trainer.default_root_dir", "whole"])
    capsys.readouterr()
    main(["fit", "--trainer.max_epochs", "5", *rate])
    kept = {path: path.read_bytes() for path in run_of(0).rglob("*") if path.is_file()}
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "8"])
    assert {path: path.read_bytes() for path in run_of(0).rglob("*") if path.is_file()} == kept
    whole, resumed = rows_of(run_of(0, "whole") / "metrics.csv"), rows_of(run_of(1) / "metrics.csv")
    assert whole == resumed
    names = [{path.name for path in run.glob("checkpoints/*")} for run in (run_of(0, "whole"), run_of(1))]
    assert names[0] == names[1]
    assert len(names[0]) == 2
    (best,) = run_of(1).glob("checkpoints/best*")
    for path in (best, run_of(1) / "checkpoints/last.ckpt"):
        a, b = (
            torch.load(run / "checkpoints" / path.name, weights_only=True) for run in (run_of(0, "whole"), run_of(1))
        )
        assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])
    shutil.rmtree(run_of(0))
    main(["test"])


def test_a_finished_run_is_tested_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--trainer.max_epochs", "2"])
    before = capsys.readouterr().out.splitlines()[:-1]
    main(["fit", "--ckpt_path", "last"])
    streams = capsys.readouterr()
    assert streams.out.splitlines()[:-1] == before
    assert "nothing is left to train: give more --trainer.max_epochs" in streams.err


@pytest.mark.slow
def test_a_run_that_stopped_early_stays_stopped_until_a_limit_changes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--model.lr", "0.5", "--early_stopping.patience", "2"])
    epochs = torch.load(run_of(0) / "checkpoints/last.ckpt", weights_only=True)["torchnn"]["epochs"]
    main(["fit", "--ckpt_path", "last"])
    assert torch.load(run_of(1) / "checkpoints/last.ckpt", weights_only=True)["torchnn"]["epochs"] == epochs
    main(["fit", "--ckpt_path", "last", "--early_stopping.patience", "4"])
    assert torch.load(run_of(2) / "checkpoints/last.ckpt", weights_only=True)["torchnn"]["epochs"] > epochs


@pytest.mark.slow
def test_runs_without_a_folder_of_their_own_are_found_and_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trainer.logger", "false", "--trainer.max_epochs"]
    main(["fit", *words, "1"])
    first = Path("checkpoints/last.ckpt").read_bytes()
    main(["fit", *words, "2", "--ckpt_path", "last"])
    assert Path("checkpoints/last.ckpt").read_bytes() == first
    assert torch.load("checkpoints/last-v1.ckpt", weights_only=True)["torchnn"]["epochs"] == 2
    capsys.readouterr()
    main(["test"])
    assert "test takes checkpoints/best-epoch=" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["os.system", "a.b", {"class_path": "x"}, ["x"], "a/b", "a\nb"])
def test_names_that_could_be_classes_or_places_are_not_plain(value: Any) -> None:
    assert not is_plain(value)


def test_yaml_that_names_python_objects_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evil.yaml").write_text(f"model: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'ran'}]\n")
    refused(["fit", "--config", "evil.yaml"], capsys)
    assert not (tmp_path / "ran").exists()
