"""Ranks that are killed, hang or fail: every process ends, the report names the rank, and a restart resumes the run."""

import re
import subprocess
from pathlib import Path

import pytest
import torch

from tests.distributed.commands import FAULTY, LONG, TORCHRUN, done, sentences, weights

TWO = ["fit", *LONG, "--trainer.devices", "2"]
IN_TIME = 300  # seconds in all, most of them to start


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "statuses", "reason"),
    [
        ("SIGKILL 1 30", (1, -9), ""),
        ("SIGKILL 0 30", (-9,), ""),
        ("raise 1 30", (1, -9), "[rank1]: ValueError: a planted fault\n"),
        ("refuse 1 30", (1, 2, -9), "torchnn: rank 1: a planted mistake.\n"),
    ],
)
def test_all_processes_of_a_trainer_end_if_one_dies(
    fault: str, statuses: tuple[int, ...], reason: str, tmp_path: Path
) -> None:
    """The other rank hangs in no case: `done` waits until both have closed their output."""
    ended = done([*FAULTY, *TWO], tmp_path, IN_TIME, FAULT=fault)
    assert ended.returncode in statuses
    assert reason in ended.stderr


DDP = "lightning.pytorch.strategies.DDPStrategy"
TIMEOUT = ["--trainer.strategy", DDP, "--trainer.strategy.timeout", "0:00:20"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words", "rank", "reason"),
    [
        ("SIGKILL 1 30", [], 1, r"Signal 9 \(SIGKILL\) received by PID"),
        ("refuse 1 30", [], 1, r"rank 1: a planted mistake\.\n"),
        ("raise 1 30", [], 1, r"ValueError: a planted fault\n"),
        ("SIGSTOP 1 30", TIMEOUT, 0, r"Timed out waiting|timeout caused pair closure"),
    ],
)
def test_torchrun_names_the_rank_that_failed_first(
    fault: str, words: list[str], rank: int, reason: str, tmp_path: Path
) -> None:
    """Of a rank that hangs it names one that waited until the timeout of the process group."""
    launch = [*TORCHRUN, "--shutdown-timeout", "3", *FAULTY[1:], "fit", *LONG, *words]
    ended = done(launch, tmp_path, IN_TIME, FAULT=fault)
    assert ended.returncode == 1
    root_cause = ended.stderr.rsplit("Root Cause (first observed failure):", 1)[1]
    assert f"  rank      : {rank} " in root_cause
    assert re.search(reason, root_cause)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_restarted_job_ends_as_an_undisturbed_one(rank: int, tmp_path: Path) -> None:
    words = ["fit", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "8", "--data.batch_size", "16"]
    words += ["--last.every_steps", "7", "--model.lr", "0.002"]
    launch = [*TORCHRUN, "--max-restarts", "1", "--shutdown-timeout", "3", *FAULTY[1:], *words]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder, fault in ((whole, "SIGKILL 9 9"), (killed, f"SIGKILL {rank} 40")):
        folder.mkdir()
        ended = done(launch, folder, FAULT=fault)
        assert ended.returncode == 0, ended.stderr
    (resumed,) = sentences(ended.stderr)
    assert resumed.endswith("restarted this job, which resumes from lightning_logs/version_0/checkpoints/last.ckpt")
    expected, reached = weights(whole, 0), weights(killed, 1)
    assert all(torch.equal(expected[key], reached[key]) for key in expected)


@pytest.mark.slow
def test_a_full_disk_of_rank_0_is_reported_in_one_sentence(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.strip()}")
    try:
        ended = done([*FAULTY, *TWO, "--trainer.default_root_dir", disk], tmp_path, IN_TIME, FAULT="SIGKILL 9 9")
    finally:
        subprocess.run(["umount", disk], check=True)
    assert ended.returncode in (2, -9), "an error of its own, or Lightning has ended it after the other rank"
    (sentence,) = sentences(ended.stderr)
    assert sentence.startswith("torchnn: rank 0: ")
    assert "No space left on device" in sentence
