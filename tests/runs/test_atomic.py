"""A checkpoint is written whole or not at all."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.helpers import SHORT, refused, run_of
from torchnn.cli import main
from torchnn.files import copy_whole, discard_leftovers
from torchnn.runs.savers import AtomicCheckpointIO, CheckpointWriteError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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

    def fail(*args: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail) if moment == "fsync" else monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(CheckpointWriteError, match=r"last\.ckpt could not be written .*the one before it is kept"):
        AtomicCheckpointIO().save_checkpoint({"a": 2}, path)
    with pytest.raises(OSError, match=os.strerror(code)):
        copy_whole(path, tmp_path / "copy.ckpt")
    assert names(tmp_path) == ["last.ckpt"]
    assert torch.load(path, weights_only=True) == {"a": 1}


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path: Path) -> None:
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
    """No file may grow beyond 8 KiB, which every checkpoint does."""
    monkeypatch.chdir(tmp_path)
    main(["fit", *SHORT])
    capsys.readouterr()
    before = (run_of(0) / "checkpoints/last.ckpt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        message = refused(["fit", *SHORT], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "version_1/checkpoints/best-epoch=0.ckpt could not be written (File too large)" in message
    assert names(run_of(1) / "checkpoints") == []
    assert (run_of(0) / "checkpoints/last.ckpt").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [16, 48, 80, 120, 200])
def test_a_file_system_that_fills_up_leaves_what_can_be_loaded(kilobytes: int, tmp_path: Path) -> None:
    """A file system in memory, which needs the rights to mount one."""
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
        assert "make room" in done.stderr
        for path in disk.rglob("*.ckpt"):
            torch.load(path, weights_only=True)
        assert not list(disk.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
