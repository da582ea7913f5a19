"""A job that its launcher starts again: which attempt this is, and what it resumes from."""

import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from torchnn.runs.launcher import launched, refuse_other_sizes, requeued_by_slurm
from torchnn.runs.rendezvous import current_attempt, join_attempt
from torchnn.runs.restart import is_restarted, last_of_job, names_of_job

TIMEOUT = timedelta(seconds=20)
TORCHRUN = {
    **{"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "GROUP_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
    **{"GROUP_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "job"},
}
SLURM = {
    **{"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_PROCID": "0"},
    **{"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "4321"},
}


@pytest.fixture(autouse=True)
def _no_attempt_is_remembered() -> Iterator[None]:
    yield
    current_attempt.cache_clear()


def numbers_of_attempt(port: int, world_size: int) -> list[int]:
    """What the ranks of one attempt agree on; each rank is a thread with a connection of its own."""
    numbers = [0] * world_size

    def join(rank: int) -> None:
        store = TCPStore("127.0.0.1", port, is_master=False, timeout=TIMEOUT)
        numbers[rank] = join_attempt(store, rank, world_size, TIMEOUT)

    ranks = [threading.Thread(target=join, args=(rank,)) for rank in range(world_size)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    return numbers


def test_all_ranks_of_an_attempt_agree_on_its_number_also_after_ranks_that_died() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    assert numbers_of_attempt(store.port, 3) == [1, 1, 1]
    store.set("ticket of rank 1", "left by a process that died before it joined")
    assert numbers_of_attempt(store.port, 3) == [2, 2, 2]
    assert numbers_of_attempt(store.port, 2) == [3, 3], "another number of ranks"


def test_an_attempt_that_a_rank_never_joins_fails_in_time() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with pytest.raises(TimeoutError, match="not all of the 2 ranks joined attempt 1"):
        join_attempt(store, 0, 2, timedelta(seconds=0.1))


def test_a_process_of_torchrun_knows_its_job_and_its_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    own = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in {**TORCHRUN, **own, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    (first,) = names_of_job()
    assert not is_restarted()
    current_attempt.cache_clear()  # as in a process that torchrun has started again
    assert names_of_job() == [first]
    assert is_restarted()


def test_slurm_says_whether_a_job_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names_of_job() == []
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert names_of_job() == ["slurm 4321.0"]
    assert not is_restarted()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert is_restarted()
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert names_of_job() == []


@pytest.mark.parametrize("environment", [TORCHRUN, SLURM])
def test_the_number_of_processes_is_that_of_the_launcher(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert launched() == {}
    with mock.patch.dict(os.environ, environment):
        assert launched() == {"devices": 2, "num_nodes": 2}
        refuse_other_sizes({"trainer.devices": "auto", "trainer.num_nodes": 2})
        with pytest.raises(SystemExit):
            refuse_other_sizes({"trainer.devices": 4})
    assert "--trainer.devices is 4, but the launcher has started 2 processes on a host" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        ('#!/bin/sh\necho "$@" > "$ASKED"\n', "is queued again"),
        ("#!/bin/sh\necho no such job >&2\nexit 1\n", "could not be queued again (no such job)"),
        (None, "could not be queued again ([Errno 2] No such file or directory: 'scontrol')"),
    ],
)
def test_the_signal_before_the_time_limit_queues_the_job_again(
    command: str | None,
    outcome: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    if command is not None:
        (tmp_path / "scontrol").write_text(command)
        (tmp_path / "scontrol").chmod(0o755)
    for name, value in {**SLURM, "ASKED": str(tmp_path / "asked"), "PATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with requeued_by_slurm():
        signal.raise_signal(signal.SIGUSR1)
    assert capsys.readouterr().err == f"torchnn: the time of job 4321 is nearly over: it {outcome}\n"
    if outcome == "is queued again":
        assert (tmp_path / "asked").read_text() == "requeue 4321\n"
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_restart_takes_a_checkpoint_of_its_own_job_only(tmp_path: Path) -> None:
    for run, (job, fold) in enumerate((("mine", 0), ("mine", 1), ("mine", None), ("another's", None))):
        path = tmp_path / "lightning_logs" / f"version_{run}" / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        settings = {"settings": {"values": {}, "code": {}, "job": [job]}}
        torch.save({"torchnn": settings, "datamodule_hyper_parameters": {"fold": fold}}, path)
    for fold, name in ((0, "version_0"), (None, "version_2")):
        found = last_of_job(tmp_path, ["mine"], fold)
        assert found is not None
        assert found.parts[-3] == name
    assert last_of_job(tmp_path, ["nobody's"], None) is None
