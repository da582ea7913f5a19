"""Ranks that are killed, cut off, stopped, or have a fault: one sentence, an end in time, and a way to go on."""

import errno
import re
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.distributed.commands import FAULTY, LONG, TORCHRUN, done, sentences, weights
from tests.distributed.hosts import start_torchrun, two_hosts

TWO = ["fit", *LONG, "--trainer.devices", "2"]
IN_TIME = 90  # seconds in all, most of them to start; the timeout is 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "status", "name", "cause"),
    [
        ("SIGKILL 1 30", 1, "rank 1", "was killed by signal 9, as the system does for lack of memory"),
        ("SIGKILL 0 30", -9, "rank 0", "is gone without a word"),
        ("SIGSTOP 1 30", 1, "rank 1", "has not been heard of for 5.5 s"),
        ("SIGSTOP 0 30", -9, "rank 0", "has not been heard of for 5.5 s"),
        ("raise 1 30", 1, "rank 1", "ValueError: a planted fault (faulty.py, line "),
    ],
)
def test_a_rank_that_dies_beside_a_trainer(fault: str, status: int, name: str, cause: str, tmp_path: Path) -> None:
    ended = done([*FAULTY, *TWO], tmp_path, IN_TIME, FAULT=fault)
    assert ended.returncode == status
    (sentence,) = ended.stderr.splitlines()
    assert name in sentence
    assert cause in sentence


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_restarts_a_job_that_ends_as_an_undisturbed_one(rank: int, tmp_path: Path) -> None:
    words = ["fit", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "8", "--data.batch_size", "16"]
    words += ["--last.every_steps", "7", "--model.lr", "0.002"]
    launch = [*TORCHRUN, "--max-restarts", "1", *FAULTY[1:], *words]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder, fault in ((whole, "SIGKILL 9 9"), (killed, f"SIGKILL {rank} 40")):
        folder.mkdir()
        ended = done(launch, folder, FAULT=fault)
        assert ended.returncode == 0, ended.stderr
    died, went_on = sentences(ended.stderr)
    assert died.startswith(f"torchnn: rank {rank} (process ")
    assert went_on.endswith("which goes on from lightning_logs/version_0/checkpoints/last.ckpt")
    expected, reached = weights(whole, 0), weights(killed, 1)
    assert all(torch.equal(expected[key], reached[key]) for key in expected)


@pytest.mark.slow
def test_a_host_that_is_cut_off(tmp_path: Path) -> None:
    with two_hosts() as hosts:
        running = start_torchrun(hosts, LONG, tmp_path)
        try:
            deadline = time.monotonic() + IN_TIME
            while not list(tmp_path.glob("lightning_logs/*/metrics.csv")) and time.monotonic() < deadline:
                time.sleep(0.1)
            hosts[1].cut_off()
            outputs = [running[0].communicate(timeout=IN_TIME)[0], first_sentence(running[1])]
            process = int(re.findall(r"process (\d+)", outputs[1])[0])
            deadline = time.monotonic() + 20
            while lives(process) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not lives(process), "torchrun waits for its store for minutes, but no rank does"
        finally:
            for launcher in running:
                launcher.kill()
                launcher.communicate(timeout=IN_TIME)
    for output, gone in zip(outputs, ("rank 1 ", "torchrun on the host of rank 0 "), strict=True):
        (sentence,) = sentences(output)
        assert gone in sentence
        assert "has not been heard of for 5.5 s" in sentence
    assert running[0].returncode == 1


def lives(process: int) -> bool:
    """Whether a process runs; one that has ended and that its parent has not asked about does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def first_sentence(process: "subprocess.Popen[str]") -> str:
    """The first line that torchnn says; the launcher may live on."""
    assert process.stdout is not None
    return next(line for line in process.stdout if line.startswith("torchnn: "))


@pytest.mark.slow
def test_a_full_disk_of_rank_0(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.strip()}")
    try:
        ended = done([*FAULTY, *TWO, "--trainer.default_root_dir", disk], tmp_path, IN_TIME, FAULT="SIGKILL 9 9")
    finally:
        subprocess.run(["umount", disk], check=True)
    assert ended.returncode == 2
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith("torchnn: rank 0 (process ")
    assert f"({errno.errorcode[errno.ENOSPC]}" in sentence or "No space left on device" in sentence
