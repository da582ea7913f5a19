"""Checkpoints hold plain values only, are found, are checked to fit, and are never run as code."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs.helpers import trainer
from torchnn.model.checkpoint import CheckpointError
from torchnn.runs.checkpoints import find_checkpoint, read_checkpoint
from torchnn.training import BinaryClassifier, TabularDataModule


def test_a_checkpoint_is_plain_and_predicts_raw_numbers(tmp_path: Path) -> None:
    data, model = TabularDataModule(), BinaryClassifier(30, hidden_sizes=[5, 4], activation=["tanh", "relu"])
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, data)
    path = tmp_path / "model.ckpt"
    run.save_checkpoint(path)
    torch.load(path, weights_only=True)
    assert read_checkpoint(path)["hyper_parameters"]["hidden_sizes"] == [5, 4]
    loaded = BinaryClassifier.load_from_checkpoint(path, weights_only=True).eval()
    raw = data.table.features[:7]
    torch.testing.assert_close(loaded(raw), model.eval()(raw))


BIAS = "network.layers.0.bias"
WEIGHTS = BinaryClassifier(3).state_dict()


class Payload:
    """Runs code when unpickled, which must never happen."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_checkpoint_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": Payload(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="holds code or classes"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "no hyperparameters"),
        ([1], "no hyperparameters"),
        ({"state_dict": {}, "hyper_parameters": {"in_features": 3}}, "Missing key"),
        ({"state_dict": {}, "hyper_parameters": {"in_features": 3, "depth": 2}}, "unexpected keyword argument 'depth'"),
        ({"state_dict": {}, "hyper_parameters": {"in_features": 3, "optimizer": "os.system"}}, "optimizer is"),
        ({"state_dict": {}, "hyper_parameters": 3}, "BinaryClassifier"),
        ({"state_dict": {}, "hyper_parameters": {"in_features": 3, "_instantiator": "os.system"}}, "'_instantiator'"),
        ({"state_dict": {}, "hyper_parameters": {"in_features": 3, "_class_path": "os.system"}}, "'_class_path'"),
        ({"state_dict": WEIGHTS, "hyper_parameters": {"in_features": 4}}, "size mismatch"),
        ({"state_dict": {**WEIGHTS, "more": torch.ones(1)}, "hyper_parameters": {"in_features": 3}}, "Unexpected key"),
        ({"state_dict": {**WEIGHTS, BIAS: 7}, "hyper_parameters": {"in_features": 3}}, "BinaryClassifier"),
        (
            {
                "state_dict": {**WEIGHTS, BIAS: torch.full_like(WEIGHTS[BIAS], torch.nan)},
                "hyper_parameters": {"in_features": 3},
            },
            f"{BIAS} that are not finite",
        ),
        (torch.ones(3), "no hyperparameters"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "odd.ckpt")


def test_a_checkpoint_with_weights_only_cannot_be_resumed(tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "hyper_parameters": {"in_features": 3}}, tmp_path / "weights.ckpt")
    read_checkpoint(tmp_path / "weights.ckpt")
    with pytest.raises(CheckpointError, match="holds weights only: it can be tested, but not trained further"):
        read_checkpoint(tmp_path / "weights.ckpt", to_continue=True)


def test_a_pickle_that_calls_is_refused_in_every_format(tmp_path: Path) -> None:
    evil = tmp_path / "evil.ckpt"
    for write in (
        lambda: evil.write_bytes(pickle.dumps(Payload(tmp_path / "ran"))),
        lambda: torch.save({"state_dict": Payload(tmp_path / "ran")}, evil, _use_new_zipfile_serialization=False),
        lambda: torch.save(BinaryClassifier(3), evil),
    ):
        write()
        with pytest.raises(CheckpointError, match=r"evil\.ckpt"):
            read_checkpoint(evil)
    assert not (tmp_path / "ran").exists()


def test_a_folder_or_another_kind_of_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="is a directory: give the path of a"):
        find_checkpoint(str(tmp_path), tmp_path)
    path = tmp_path / "table.ckpt"
    for content in (b"a,b,c\n1,2,3\n", b"PK\x03\x04" + bytes(40), bytes(100), "näh".encode("utf-16")):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"table\.ckpt"):
            read_checkpoint(path)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        read_checkpoint(path)


def test_the_newest_last_is_that_of_any_run_and_never_a_temporary(tmp_path: Path) -> None:
    for age, name in enumerate(
        (
            "lightning_logs/version_9/checkpoints/last.ckpt",
            "checkpoints/last-v1.ckpt",
            "lightning_logs/version_10/checkpoints/last.ckpt",
            "lightning_logs/version_11/checkpoints/.last.ckpt.7.tmp",
            "lightning_logs/version_11/checkpoints/best-epoch=1.ckpt",
        )
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (age, age))
    assert find_checkpoint("last", tmp_path).parent.parent.name == "version_10"
    os.utime(tmp_path / "checkpoints/last-v1.ckpt", (99, 99))
    assert find_checkpoint("last", tmp_path).name == "last-v1.ckpt"
    for name in ("9", "10"):
        os.utime(tmp_path / f"lightning_logs/version_{name}/checkpoints/last.ckpt", (100, 100))
    assert find_checkpoint("last", tmp_path).parent.parent.name == "version_10", "of equal times, the later run"


def test_every_truncation_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.ckpt"
    model = BinaryClassifier(3)
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": {"in_features": 3}}, whole)
    content = whole.read_bytes()
    read_checkpoint(whole)
    for kept in [0, 1, 10, *range(100, len(content) - 1, len(content) // 20)]:
        (tmp_path / "cut.ckpt").write_bytes(content[:kept])
        with pytest.raises(CheckpointError, match=r"cut\.ckpt"):
            read_checkpoint(tmp_path / "cut.ckpt")


def test_best_is_the_best_of_the_newest_run_and_not_its_newest_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has a checkpoint: train with torchnn fit"):
        find_checkpoint("last", tmp_path)
    for version in (0, 1):
        folder = tmp_path / f"lightning_logs/version_{version}/checkpoints"
        folder.mkdir(parents=True)
        for name in ("best-epoch=1.ckpt", "best-epoch=2.ckpt"):
            (folder / name).touch()
        states = {
            "best": {"best_model_path": "elsewhere/best-epoch=1.ckpt"},
            "last": {"best_model_path": "x/last.ckpt"},
        }
        torch.save({"callbacks": states | {"stop": {"wait": 1}}}, folder / "last.ckpt")
        os.utime(folder / "last.ckpt", (version, version))
    assert find_checkpoint("last", tmp_path).parts[-3:] == ("version_1", "checkpoints", "last.ckpt")
    assert find_checkpoint("best", tmp_path).parts[-3:] == ("version_1", "checkpoints", "best-epoch=1.ckpt")
