"""The three ways to launch a job, with the files that users get."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.distributed.commands import CPU, LAUNCHERS, TORCHRUN, done, environment, free_port, sentences, weights
from tests.distributed.hosts import start_torchrun, two_hosts

SHORT = [*CPU, "--trainer.max_epochs", "2"]
SLURM_OF_ALL = {"SLURM_JOB_ID": "4321", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"}


def slurm(rank: int) -> dict[str, str]:
    """The environment that srun gives to one of two tasks on one node."""
    return {**SLURM_OF_ALL, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}


def run_by_srun(words: list[str], folder: Path, **env: str) -> list[tuple[int, str, str]]:
    """Run two tasks at once, and return exit status, output and errors of each."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    tasks = [
        subprocess.Popen(
            words,
            cwd=folder,
            env=environment(**where, **slurm(rank), **env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    outputs = [task.communicate(timeout=400) for task in tasks]
    return [(task.returncode, *output) for task, output in zip(tasks, outputs, strict=True)]


def test_the_launch_files_have_the_form_that_a_shell_and_slurm_need() -> None:
    for path in LAUNCHERS.glob("launch_*"):
        assert done(["bash", "-n", path], LAUNCHERS).stderr == ""
    lines = (LAUNCHERS / "launch_slurm.sbatch").read_text().splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH")]
    commands = [line for line in lines[1:] if line and not line.startswith("#")]
    assert lines.index(directives[-1]) < lines.index(commands[0]), "SLURM stops reading at the first command"
    assert {"#SBATCH --signal=USR1@90", "#SBATCH --requeue"} <= set(directives)
    assert commands[-1].startswith("exec srun ")


@pytest.mark.slow
def test_the_trainer_torchrun_and_slurm_give_the_same_bits(tmp_path: Path) -> None:
    by = {name: tmp_path / name for name in ("trainer", "torchrun", "slurm")}
    for folder in by.values():
        folder.mkdir()
    for name, words in (
        ("trainer", [LAUNCHERS / "launch_trainer.sh", *SHORT]),
        ("torchrun", [*TORCHRUN, "-m", "torchnn", "fit", *SHORT]),
    ):
        ended = done(words, by[name])
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("accuracy ") == 1
        assert sentences(ended.stderr) == []
    tasks = run_by_srun(["torchnn", "fit", *SHORT], by["slurm"])
    assert [status for status, _, _ in tasks] == [0, 0], tasks
    assert tasks[1][1:] == ("", ""), "only rank 0 prints"
    state = {name: weights(folder, 0) for name, folder in by.items()}
    for name in ("torchrun", "slurm"):
        assert all(torch.equal(state["trainer"][key], state[name][key]) for key in state[name])


@pytest.mark.slow
def test_torchrun_on_two_hosts(tmp_path: Path) -> None:
    with two_hosts() as hosts:
        running = start_torchrun(hosts, SHORT, tmp_path)
        outputs = [process.communicate(timeout=400)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    assert sum(output.count("accuracy ") for output in outputs) == 1
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model.lr", "fast"], "--model.lr is 'fast': expected a number."),
        (["--data.path", "none.csv", "--data.target", "y"], "none.csv does not exist: give the path of a table."),
        (
            ["--trainer.devices", "4"],
            "--trainer.devices is 4, but the launcher has started 2 processes on a host: leave it out.",
        ),
    ],
)
def test_every_rank_reports_a_mistake_in_one_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    tasks = run_by_srun(["torchnn", "fit", *CPU, *words], tmp_path)
    assert [status for status, _, _ in tasks] == [2, 2]
    assert [errors for _, _, errors in tasks] == [f"torchnn: rank {rank}: {sentence}\n" for rank in (0, 1)]


@pytest.mark.slow
def test_slurm_queues_a_job_again_and_it_resumes_from_its_own_checkpoint(tmp_path: Path) -> None:
    """USR1 arrives before a step; the next turn of the job resumes."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (commands / "scontrol").chmod(0o755)
    words = ["python", "-m", "tests.distributed.faulty", "fit", *CPU, "--trainer.max_epochs", "6"]
    words += ["--data.batch_size", "16", "--last.every_steps", "5"]
    path = f"{commands}{os.pathsep}{environment()['PATH']}"
    tasks = run_by_srun(words, tmp_path, FAULT="SIGUSR1 0 30", PATH=path)
    assert [status for status, _, _ in tasks] == [0, 0], tasks
    assert (tmp_path / "asked").read_text() == "requeue 4321\n"
    assert sentences(tasks[0][2]) == ["torchnn: the time of job 4321 is nearly over: it is queued again"]
    assert not list(tmp_path.rglob("hpc_ckpt*")), "Lightning would save anywhere in a step"

    killed = tmp_path / "killed"
    killed.mkdir()
    tasks = run_by_srun(words, killed, FAULT="SIGKILL 1 40")
    assert tasks[0][0] != 0
    assert tasks[1][0] == -9
    tasks = run_by_srun(words, killed, FAULT="SIGUSR1 9 9", SLURM_RESTART_COUNT="1")
    (resumed,) = sentences(tasks[0][2])
    assert resumed.endswith("which resumes from lightning_logs/version_0/checkpoints/last.ckpt")
    whole, again = weights(tmp_path, 0), weights(killed, 1)
    assert all(torch.equal(whole[key], again[key]) for key in whole)
