"""Every file that torchnn writes is written whole or not at all."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from tests.cli.helpers import SHORT, refused, run_of
from torchnn.cli.folds import FoldResult
from torchnn.cli.folds import write as write_folds
from torchnn.files import copy_whole, discard_leftovers, write_whole
from torchnn.runs.callbacks import new_figure, save_figure
from torchnn.runs.export import export_model
from torchnn.runs.predictions import write_table
from torchnn.runs.savers import AtomicCheckpointIO, CheckpointWriteError
from torchnn.training import BinaryClassifier


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_with(code: int) -> Callable[..., None]:
    def fail(*args: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_what_is_written_is_on_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "a/last.ckpt", []
    AtomicCheckpointIO().save_checkpoint({"a": 1}, path)

    def fsync(file: int) -> None:
        seen.append((torch.load(path, weights_only=True), os.fstat(file).st_size > 500, len(names(path.parent))))

    monkeypatch.setattr(os, "fsync", fsync)
    AtomicCheckpointIO().save_checkpoint({"a": 2}, path)
    assert seen == [({"a": 1}, True, 2)]
    assert torch.load(path, weights_only=True) == {"a": 2}
    assert names(path.parent) == ["last.ckpt"]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_write_that_fails_leaves_the_one_before(
    moment: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": 1}, path)
    monkeypatch.setattr(os if moment == "fsync" else Path, moment, fail_with(code))
    with pytest.raises(CheckpointWriteError, match=r"last\.ckpt could not be written .*but the previous one is kept"):
        AtomicCheckpointIO().save_checkpoint({"a": 2}, path)
    with pytest.raises(OSError, match=os.strerror(code)):
        copy_whole(path, tmp_path / "copy.ckpt")
    assert names(tmp_path) == ["last.ckpt"]
    assert torch.load(path, weights_only=True) == {"a": 1}


def predictions(folder: Path) -> None:
    write_table(iter([pa.table({"": [0], "row": [0]})]), folder / "p.parquet")


def predictions_as_text(folder: Path) -> None:
    write_table(iter([pa.table({"": [0], "row": [0]})]), folder / "p.csv")


def picture(folder: Path) -> None:
    save_figure(new_figure()[0], folder / "p.png")


def folds(folder: Path) -> None:
    write_folds(folder / "folds.csv", [FoldResult({"accuracy": 1.0}, None)])


def exported(folder: Path) -> None:
    export_model(BinaryClassifier(3, hidden_sizes=[2]), folder / "model.pt2", torch.zeros(2, 3))


def text(folder: Path) -> None:
    write_whole(folder / "test.json", "{}")


@pytest.mark.parametrize("write", [predictions, predictions_as_text, picture, folds, exported, text])
def test_a_file_that_is_not_on_the_disk_does_not_appear(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_with(errno.ENOSPC))
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            write(tmp_path)
    assert names(tmp_path) == []
    write(tmp_path)
    (name,) = names(tmp_path)
    assert (tmp_path / name).stat().st_size > 0


def test_temporary_files_of_dead_processes_are_removed_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = ["last.ckpt", f".last.ckpt.{os.getpid()}.tmp", ".mine.tmp", f"notes.{dead.pid}.tmp"]
    for name in [*kept, f".last.ckpt.{dead.pid}.tmp"]:
        (tmp_path / name).touch()
    discard_leftovers(tmp_path)
    assert names(tmp_path) == sorted(kept)


def test_a_full_disk_ends_the_run_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file may grow beyond 8 KiB, and every checkpoint would."""
    monkeypatch.chdir(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        message = refused(["fit", *SHORT], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "version_0/checkpoints/best-epoch=0.ckpt could not be written (File too large)" in message
    assert names(run_of(0) / "checkpoints") == []


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [16, 48, 80, 120, 200])
def test_every_checkpoint_on_a_file_system_that_fills_up_can_be_loaded(kilobytes: int, tmp_path: Path) -> None:
    """The file system is in memory; mounting it needs the right to do so."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a file system")
    words = ["fit", "--trainer.max_epochs", "30", "--last.every_steps", "5", "--checkpoint.save_top_k", "-1"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "torchnn", *words],
            cwd=disk,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert "free some space" in done.stderr
        for path in disk.rglob("*.ckpt"):
            torch.load(path, weights_only=True)
        assert not list(disk.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
