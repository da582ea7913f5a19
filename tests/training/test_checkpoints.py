"""Checkpoints are plain, found, proven to fit, and never run."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.helpers import trainer
from torchnn.training import BinaryClassifier, TabularDataModule
from torchnn.training.checkpoints import CheckpointError, find_checkpoint, read_checkpoint


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
        ({"state_dict": {}}, "no hyper-parameters"),
        ([1], "no hyper-parameters"),
        ({"state_dict": {}, "hyper_parameters": {"in_features": 3}}, "Missing key"),
        ({"state_dict": {}, "hyper_parameters": {"in_features": 3, "depth": 2}}, "unexpected keyword argument 'depth'"),
        ({"state_dict": {}, "hyper_parameters": {"in_features": 3, "optimizer": "os.system"}}, "optimizer is"),
        ({"state_dict": {}, "hyper_parameters": 3}, "BinaryClassifier"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "odd.ckpt")


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
