"""A run that is killed at any moment, repeatedly, and resumed ends like an uninterrupted one, bit for bit."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.cli.helpers import rows_of

FIT = ["fit", "--trainer.max_epochs", "12", "--data.batch_size", "4", "--last.every_steps", "7", "--model.lr", "0.002"]


def command(words: list[str], write_to_die_in: int | None = None) -> list[str]:
    """`torchnn`, which kills itself in one of its writes, when half of a checkpoint is in the temporary file."""
    if write_to_die_in is None:
        return [sys.executable, "-m", "torchnn", *words]
    script = (
        "import os, signal, sys\n"
        "from torchnn import files\n"
        "from torchnn.cli import main\n"
        "writes = 0\n"
        "def fsync(file):\n"
        "    global writes\n"
        "    writes += 1\n"
        f"    if writes == {write_to_die_in}:\n"
        "        os.ftruncate(file, os.fstat(file).st_size // 2)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.os.fsync = fsync\n"
        "main(sys.argv[1:])\n"
    )
    return [sys.executable, "-c", script, *words]


def last_of(root: Path) -> Path:
    return max(root.glob("lightning_logs/version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime_ns)


def runs_to_the_end(root: Path, words: list[str], seconds: float | None, write_to_die_in: int | None) -> bool:
    """Start or resume a run, and kill it some seconds after training began; return whether it ended before."""
    before = set(root.glob("lightning_logs/*"))
    resume = ["--ckpt_path", "last"] if list(root.glob("lightning_logs/*/checkpoints/last.ckpt")) else words[1:]
    with subprocess.Popen(
        command(["fit", *resume], write_to_die_in),
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None and not set(root.glob("lightning_logs/*/metrics.csv")) - {
            folder / "metrics.csv" for folder in before
        }:
            time.sleep(0.01)
        if seconds is not None:
            time.sleep(seconds)
            process.kill()
        _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    assert runs_to_the_end(root, FIT, None, None)
    return root


def assert_same_end(whole: Path, root: Path) -> None:
    a, b = (torch.load(last_of(folder), weights_only=True) for folder in (whole, root))
    assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])
    assert (a["epoch"], a["global_step"]) == (b["epoch"], b["global_step"])
    tables = [rows_of(last_of(folder).parent.parent / "metrics.csv") for folder in (whole, root)]
    assert tables[0] == tables[1]
    best = [sorted(path.name for path in last_of(folder).parent.glob("best*")) for folder in (whole, root)]
    assert best[0] == best[1]
    assert not list(last_of(root).parent.glob(".*"))


@pytest.mark.slow
def test_two_kills_one_of_them_during_a_write(whole: Path, tmp_path: Path) -> None:
    assert not runs_to_the_end(tmp_path, FIT, None, write_to_die_in=20)
    assert list(tmp_path.rglob("*.tmp"))
    assert not runs_to_the_end(tmp_path, FIT, 0.3, None)
    assert not list(last_of(tmp_path).parent.parent.parent.glob("version_0/checkpoints/*.tmp"))
    assert runs_to_the_end(tmp_path, FIT, None, None)
    assert_same_end(whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kills_at_random_moments(seed: int, whole: Path, tmp_path: Path) -> None:
    moments = random.Random(seed)
    kills = 0
    while kills < 6:
        in_a_write = moments.random() < 0.5
        seconds = None if in_a_write else moments.uniform(0, 1.5)
        if runs_to_the_end(tmp_path, FIT, seconds, moments.randrange(1, 60) if in_a_write else None):
            break
        kills += 1
    else:
        assert runs_to_the_end(tmp_path, FIT, None, None)
    assert kills >= 2
    assert_same_end(whole, tmp_path)


@pytest.mark.slow
def test_two_processes_that_die_within_an_epoch(tmp_path: Path) -> None:
    two = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    words = ["fit", "--trainer.max_epochs", "3", "--data.batch_size", "16", *two]
    script = (
        "import os, sys\n"
        "from torchnn.runs.savers import LastCheckpoint\n"
        "write = LastCheckpoint._write_inside_epoch\n"
        "def die(self, trainer, module):\n"
        "    write(self, trainer, module)\n"
        "    if trainer.global_step == 20:\n"
        "        os._exit(9)\n"
        "LastCheckpoint._write_inside_epoch = die\n"
        "from torchnn.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    (tmp_path / "die.py").write_text(script)
    whole, parts, resume = tmp_path / "whole", tmp_path / "parts", ["fit", "--ckpt_path", "last"]
    for root, command_words, status in (
        (whole, ["-m", "torchnn", *words], 0),
        (parts, [str(tmp_path / "die.py"), *words, "--last.every_steps", "5"], 9),
        (parts, ["-m", "torchnn", *resume], 0),
    ):
        root.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, *command_words], cwd=root, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == status, done.stderr
    assert_same_end(whole, parts)
