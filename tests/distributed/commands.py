"""Runs commands in subprocesses, with the environment that launchers need."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).parents[2]
LAUNCHERS = REPOSITORY / "experiments" / "scale"
FAULTY = [sys.executable, "-m", "tests.distributed.faulty"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
CPU = ["--trainer.accelerator", "cpu"]
LONG = [*CPU, "--trainer.max_epochs", "3000", "--early_stopping.patience", "3000"]


def environment(**more: str) -> dict[str, str]:
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    paths = {"PATH": commands, "PYTHONPATH": str(REPOSITORY), "TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **paths, **more}


def done(words: Sequence[Any], folder: Path, seconds: float = 400, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def sentences(output: str) -> list[str]:
    """The lines of torchnn, without those of a launcher."""
    return [line for line in output.splitlines() if line.startswith("torchnn: ")]


def weights(root: Path, version: int) -> dict[str, torch.Tensor]:
    path = root / "lightning_logs" / f"version_{version}" / "checkpoints" / "last.ckpt"
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
