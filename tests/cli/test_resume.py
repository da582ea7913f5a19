"""`torchnn fit --ckpt_path`: which flags apply, which are refused, and what a run folder holds afterwards."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.cli.helpers import refused, rows_of, run_of
from torchnn.cli import main
from torchnn.cli.resume import (
    CODE_OR_PLACE,
    MAY_DIFFER,
    OF_EACH_CALL,
    flat,
    hyper_parameters,
    is_plain,
    resumed_settings,
    settings_of,
)
from torchnn.cli.train import TorchnnCLI
from torchnn.model.checkpoint import CheckpointError
from torchnn.runs.resume import SECTION

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
PATH = Path("some.ckpt")
ANOTHER = 987_654  # a value that no flag has


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of two epochs with settings of its own."""
    root = tmp_path_factory.mktemp("finished")
    words = [word for name, value in OF_THE_RUN.items() for word in (f"--{name}", value)]
    main(["fit", *words, "--trainer.default_root_dir", str(root)])
    return run_of(0, str(root)) / "checkpoints/last.ckpt"


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The configuration that the command would have run with, instead of running."""
    return keep_configuration(monkeypatch)


def keep_configuration(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(TorchnnCLI, "_run_subcommand", lambda self, _: seen.update(config=self._plain_config()))
    monkeypatch.setattr(TorchnnCLI, "instantiate_classes", lambda self: setattr(self, "trainer", None))
    return seen


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        seen = keep_configuration(patch)
        main(["fit"])
    return dict(flat(seen["config"]))


@pytest.fixture
def flags(defaults: dict[str, Any]) -> dict[str, Any]:
    """Every flag of `torchnn fit` with its default."""
    return dict(defaults)


def checkpoint_of(settings: dict[str, Any], **section: Any) -> dict[str, Any]:
    return {SECTION: {"settings": settings, "epochs": 0, "batches": 0, **section}, "global_step": 0}


def test_only_the_short_list_of_flags_may_differ(flags: dict[str, Any]) -> None:
    """Every flag of the parser is given with another value, also one that no list names."""
    flags |= {"trainer.new_in_lightning": 1, "unknown": None}
    checkpoint = checkpoint_of(settings_of(nested(flags)))
    for flag in flags:
        if flag.startswith(("model.", "data.")):
            continue
        given, values = {flag: ANOTHER}, {**flags, flag: ANOTHER}
        if flag in MAY_DIFFER | OF_EACH_CALL:
            assert flag not in resumed_settings(checkpoint, PATH, given, values)
        else:
            with pytest.raises(CheckpointError, match=f"--{flag} {ANOTHER} contradicts the checkpoint {PATH}"):
                resumed_settings(checkpoint, PATH, given, values)
        assert flag not in resumed_settings(checkpoint, PATH, {flag: flags[flag]}, flags), "given as it was"
    assert flags.keys() >= MAY_DIFFER | CODE_OR_PLACE | (OF_EACH_CALL - {"config"})


def test_no_hyper_parameter_of_model_and_data_may_differ(flags: dict[str, Any]) -> None:
    groups = {"model": "hyper_parameters", "data": "datamodule_hyper_parameters"}
    checkpoint = {saved: dict(nested(flags)[group]) for group, saved in groups.items()}
    for flag, value in flags.items():
        group, _, name = flag.partition(".")
        if group not in groups or flag in ("model.in_features", "model.schema", "data.schema"):
            continue
        with pytest.raises(CheckpointError, match=f"--{flag} {ANOTHER} contradicts the checkpoint {PATH}"):
            list(hyper_parameters(checkpoint, PATH, nested({**flags, flag: ANOTHER}), [flag]))
        assert (group, name, value) in hyper_parameters(checkpoint, PATH, nested({**flags, flag: ANOTHER}), [])


def nested(flags: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for flag, value in flags.items():
        *groups, name = flag.split(".")
        (config.setdefault(groups[0], {}) if groups else config)[name] = value
    return config


def test_a_flag_that_is_not_given_is_taken_from_the_checkpoint(flags: dict[str, Any]) -> None:
    changed = {flag: ANOTHER if is_plain(value) else value for flag, value in flags.items()}
    taken = resumed_settings(checkpoint_of(settings_of(nested({**changed, **of_code(flags)}))), PATH, {}, flags)
    assert all(value == changed[flag] for flag, value in taken.items())
    kept = {flag for flag, value in flags.items() if is_plain(value) and not flag.startswith(("model.", "data."))}
    assert taken.keys() == kept - OF_EACH_CALL - CODE_OR_PLACE


def of_code(flags: dict[str, Any]) -> dict[str, Any]:
    return {flag: flags[flag] for flag in CODE_OR_PLACE}


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("trainer.callbacks", [{"class_path": "lightning.pytorch.callbacks.RichModelSummary"}]),
        ("trainer.plugins", "SomePlugin"),
        ("trainer.strategy", {"class_path": "lightning.pytorch.strategies.DDPStrategy"}),
        ("checkpoint.dirpath", "elsewhere"),
    ],
)
def test_code_and_places_have_to_be_given_again(flag: str, value: Any, flags: dict[str, Any]) -> None:
    own = {**flags, flag: value}
    checkpoint = checkpoint_of(settings_of(nested(own)))
    with pytest.raises(CheckpointError, match=f"used --{flag} .* never taken from a checkpoint: give it again"):
        resumed_settings(checkpoint, PATH, {}, flags)
    assert flag not in resumed_settings(checkpoint, PATH, {flag: value}, own)


def test_a_checkpoint_of_version_0_1_is_resumed(flags: dict[str, Any]) -> None:
    """It listed under `again` what had been given, and did not hold every flag, or the class paths of today."""
    values = {"seed_everything": 3, "trainer.max_epochs": 7}
    old = {"values": values, "again": {"checkpoint.dirpath": "elsewhere"}}
    given, own = {"checkpoint.dirpath": "elsewhere"}, {**flags, "checkpoint.dirpath": "elsewhere"}
    assert resumed_settings(checkpoint_of(old), PATH, given, own) == values
    with pytest.raises(CheckpointError, match=r"used --checkpoint\.dirpath elsewhere"):
        resumed_settings(checkpoint_of(old), PATH, {}, flags)
    old["again"] = {"trainer.callbacks": "[{'class_path': 'torchnn.training.GradientHealth'}]"}
    callbacks = {"trainer.callbacks": [{"class_path": "torchnn.runs.gradient_health.GradientHealth"}]}
    all_of_a_file = {flag: value for flag, value in flags.items() if flag not in values} | callbacks
    assert resumed_settings(checkpoint_of(old), PATH, all_of_a_file, flags | callbacks) == values


@pytest.mark.parametrize(("flag", "limit"), [("trainer.max_epochs", 1), ("trainer.max_steps", 12)])
def test_less_than_the_checkpoint_has_seen_is_refused(flag: str, limit: int, flags: dict[str, Any]) -> None:
    checkpoint = checkpoint_of(settings_of(nested(flags)), epochs=1, batches=6) | {"global_step": 13}
    with pytest.raises(CheckpointError, match=f"--{flag} {limit} is less than the"):
        resumed_settings(checkpoint, PATH, {flag: limit}, {**flags, flag: limit})
    assert resumed_settings(checkpoint, PATH, {flag: 13}, {**flags, flag: 13})
    assert resumed_settings(checkpoint, PATH, {flag: -1}, {**flags, flag: -1}), "no limit"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("trainer.strategy", "os.system"),
        ("trainer.strategy", {"class_path": "os.system"}),
        ("trainer.callbacks", "RichModelSummary"),
        ("trainer.plugins", "SomePlugin"),
        ("trainer.logger", "CSVLogger"),
        ("trainer.default_root_dir", "elsewhere"),
        ("checkpoint.dirpath", "elsewhere"),
        ("model.optimizer", "SGD"),
    ],
)
def test_code_and_places_planted_in_a_checkpoint_are_refused(flag: str, value: Any, flags: dict[str, Any]) -> None:
    settings = settings_of(nested(flags))
    settings["values"][flag] = value
    with pytest.raises(CheckpointError, match=f"names code or a place to write to in {flag}: do not trust it"):
        resumed_settings(checkpoint_of(settings), PATH, {}, flags)


@pytest.mark.parametrize("settings", [3, {}, {"values": 3}, {"values": {}, "code": [3]}, {"values": {}, "code": 3}])
def test_settings_that_cannot_be_read_are_refused(settings: Any, flags: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="does not say how its run was set up"):
        resumed_settings(checkpoint_of(settings), PATH, {}, flags)


@pytest.mark.parametrize("value", ["os.system", "a.b", {"class_path": "x"}, ["x"], "a/b", "a\nb"])
def test_names_that_could_be_classes_or_places_are_not_plain(value: Any) -> None:
    assert not is_plain(value)


def test_the_command_runs_with_the_settings_of_the_checkpoint(
    finished: Path, tmp_path: Path, used: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    resume = ["fit", "--ckpt_path", str(finished)]
    main(resume)
    values = dict(flat(used["config"]))
    assert {name: values[name] for name in OF_THE_RUN} == {
        name: yaml.safe_load(value) for name, value in OF_THE_RUN.items()
    }
    main([*resume, "--trainer.max_epochs", "5", "--trainer.strategy", "ddp", "--trainer.max_time", "00:00:10:00"])
    assert dict(flat(used["config"])) == {
        **values,
        **{"trainer.max_epochs": 5, "trainer.strategy": "ddp", "trainer.max_time": "00:00:10:00"},
    }
    used.clear()
    for name, value in (("seed_everything", "4"), ("trainer.gradient_clip_val", "0.5"), ("model.lr", "0.1")):
        assert f"--{name} {value} contradicts the checkpoint" in refused([*resume, f"--{name}", value], capsys)
    content = torch.load(finished, weights_only=True)
    content[SECTION]["settings"]["values"]["trainer.max_epochs"] = "many"
    torch.save(content, "planted.ckpt")
    message = refused(["fit", "--ckpt_path", "planted.ckpt"], capsys).replace("fit.trainer", "trainer")
    assert "--trainer.max_epochs is 'many': expected a whole number or null." in message
    assert used == {}


def test_a_default_that_a_file_gives_counts_as_given(
    finished: Path, tmp_path: Path, used: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text("model: {hidden_sizes: [16]}\n")
    with pytest.raises(SystemExit):
        main(["fit", "--config", "own.yaml", "--ckpt_path", str(finished)])
    assert "--model.hidden_sizes [16] contradicts the checkpoint" in capsys.readouterr().err.replace("(16,)", "[16]")
    main(["fit", "--config", str(finished.parent.parent / "config.yaml"), "--ckpt_path", str(finished)])
    assert used["config"]["model"]["hidden_sizes"] == [5]


@pytest.mark.slow
def test_callbacks_are_given_again_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    code = ["--trainer.callbacks", "lightning.pytorch.callbacks.RichModelSummary"]
    place = ["--checkpoint.dirpath", "elsewhere"]
    main(["fit", "--trainer.max_epochs", "1", *code, *place])
    capsys.readouterr()
    assert "used --trainer.callbacks" in refused(["fit", "--ckpt_path", "last", *place], capsys)
    assert "used --checkpoint.dirpath elsewhere" in refused(["fit", "--ckpt_path", "last", *code], capsys)
    main(["fit", "--ckpt_path", "last", *code, *place, "--trainer.max_epochs", "2"])


@pytest.mark.slow
@pytest.mark.parametrize("part", ["loops", "callbacks", "optimizer_states", "lr_schedulers", "torchnn"])
@pytest.mark.parametrize("planted", [{"a": 1}, [[]], 7])
def test_a_state_that_cannot_be_resumed_is_refused(
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


def test_a_resumed_run_folder_holds_the_whole_run(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_run_with_nothing_left_to_train_is_tested_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--trainer.max_epochs", "2"])
    before = capsys.readouterr().out.splitlines()[:-1]
    main(["fit", "--ckpt_path", "last"])
    streams = capsys.readouterr()
    assert streams.out.splitlines()[:-1] == before
    assert "nothing is left to train: give a higher --trainer.max_epochs" in streams.err


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


def test_yaml_that_names_python_objects_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evil.yaml").write_text(f"model: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'ran'}]\n")
    refused(["fit", "--config", "evil.yaml"], capsys)
    assert not (tmp_path / "ran").exists()
