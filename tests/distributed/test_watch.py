"""The signs of life of ranks that are threads of one process here, and what is said when they stop."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from tests.distributed.commands import free_port
from torchnn.ranks import watch as watching
from torchnn.ranks.faults import Fault, is_of_a_connection
from torchnn.ranks.job import agree
from torchnn.ranks.place import Place, launched, place_of_launcher
from torchnn.ranks.restart import last_of_job
from torchnn.ranks.store import Store, connected
from torchnn.ranks.watch import Watch

TORCHRUN = {
    **{"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "GROUP_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
    **{"GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "head", "MASTER_PORT": "29400", "TORCHELASTIC_RUN_ID": "job"},
    **{"TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_USE_AGENT_STORE": "True"},
}
SLURM = {
    **{"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_PROCID": "3"},
    **{"SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_ID": "4321", "SLURM_NODELIST": "node[7-8]"},
}


@pytest.fixture(autouse=True)
def _environment_put_back() -> Iterator[None]:
    """Lightning writes SLURM's first host into the environment, which commands of other tests would inherit."""
    with mock.patch.dict(os.environ):
        yield


class Ranks:
    """Ranks of a job, each with its watch, and what all of them have said."""

    def __init__(self, count: int, timeout: float = 1.0) -> None:
        self.said: list[str] = []
        port = free_port()
        places = [Place(rank, count, rank, 0, "127.0.0.1", port, rank == 0) for rank in range(count)]
        self.watches = [Watch(place, timeout, self.said.append) for place in places]
        for watch in self.watches:
            watch.start()

    def kill(self, rank: int) -> None:
        self.watches[rank]._stopped.set()

    def faults(self, seconds: float, without: int | None = None) -> list[Fault | None]:
        deadline = time.monotonic() + seconds
        for watch in self.watches:
            if watch.place.rank != without:
                watch.known.wait(max(0.0, deadline - time.monotonic()))
        return [watch.fault for watch in self.watches if watch.place.rank != without]

    def end(self) -> None:
        for watch in self.watches:
            watch._stopped.set()


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ranks]]:
    monkeypatch.setattr(watching, "POLL", 0.05)
    monkeypatch.setattr(watching, "NAMING", 0.5)
    monkeypatch.setattr(Watch, "_last_resort", lambda *_: None)  # it would end the tests
    made: list[Ranks] = []

    def make(*args: Any) -> Ranks:
        made.append(Ranks(*args))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_ranks_that_live_are_left_alone(ranks: Callable[..., Ranks]) -> None:
    three = ranks(3, 0.5)
    assert three.faults(1.5) == [None] * 3
    assert three.said == []


@pytest.mark.parametrize("dead", [0, 2])
def test_a_rank_that_is_silent_is_named_once(dead: int, ranks: Callable[..., Ranks]) -> None:
    three = ranks(3)
    three.kill(dead)
    faults = three.faults(6, without=dead)
    assert len(three.said) == 1
    assert three.said[0].startswith(f"rank {dead} (process ")
    assert "has not been heard of for" in three.said[0]
    assert [fault is not None and (fault.whole, fault.status) for fault in faults] == [(three.said[0], 1)] * 2


def test_a_broken_connection_names_the_dead_before_the_timeout(ranks: Callable[..., Ranks]) -> None:
    three = ranks(3, 100.0)
    three.kill(1)
    three.watches[2].store.raise_alarm()
    three.faults(6, without=1)
    assert len(three.said) == 1
    assert three.said[0].startswith("rank 1 ")
    assert "is gone without a word" in three.said[0]


def test_a_rank_that_has_ended_well_is_not_dead(ranks: Callable[..., Ranks]) -> None:
    two = ranks(2, 0.3)
    two.watches[1].stop()
    assert two.faults(1, without=1) == [None]


def test_the_first_fault_is_that_of_all(ranks: Callable[..., Ranks]) -> None:
    three = ranks(3, 100.0)
    first, second = Fault(1, "rank 1", "no room", 2), Fault(2, "rank 2", "no room either", 2)
    assert three.watches[1].store.propose(first) == first
    assert three.watches[2].store.propose(second) == first
    assert three.faults(6) == [first] * 3


@pytest.mark.parametrize("of_all", [True, False])
def test_a_fault_of_all_ranks_needs_no_name(of_all: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchnn.ranks.job.PATIENCE", 0.5)
    place = Place(0, 2, 0, 0, "127.0.0.1", free_port(), True)
    stores = [Store(connected(replace(place, hosts_store=rank == 0), 10), "room") for rank in (0, 1)]
    faults = [Fault(0, "rank 0", "wrong", 2), Fault(1, "rank 1", "wrong" if of_all else "lost", 2)]
    found: dict[int, tuple[Fault, bool]] = {}
    first = threading.Thread(target=lambda: found.update({0: agree(stores[0], faults[0], 1)}))
    first.start()
    while stores[1].fault() is None:
        time.sleep(0.01)
    found[1] = agree(stores[1], faults[1], 1)
    first.join()
    assert found == {0: (faults[0], of_all), 1: (faults[0], False)}


def test_a_restart_does_not_hear_the_fault_of_the_attempt_before(
    ranks: Callable[..., Ranks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    place = Place(0, 2, 0, 0, "127.0.0.1", free_port(), False, in_torchrun=True)
    torchrun = connected(replace(place, hosts_store=True), 10)
    rooms = []
    for attempt in range(2):
        two = [Watch(replace(place, rank=rank), 100.0, lambda _: None) for rank in (0, 1)]
        starts = [threading.Thread(target=watch.start) for watch in two]
        for start in starts:
            start.start()
        for start in starts:
            start.join()
        assert two[0].room == two[1].room
        rooms.append(two[0].room)
        assert not any(watch.known.wait(0.3) for watch in two), f"attempt {attempt} heard an older one"
        two[1].store.propose(Fault(1, "rank 1", "of this attempt", 1))
        assert all(watch.known.wait(5) for watch in two)
    assert rooms[0] != rooms[1]
    assert torchrun.num_keys() > 0  # it has been there all the time


@pytest.mark.parametrize(
    ("error", "follows"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:5"), True),
        (torch.distributed.DistNetworkError("broken"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_errors_that_follow_from_another_rank(error: Exception, follows: bool) -> None:
    assert is_of_a_connection(error) == follows
    wrapped = ValueError("wrapped")
    wrapped.__cause__ = error
    assert is_of_a_connection(wrapped) == follows


def test_the_place_is_that_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_of_launcher() is None
    assert launched() == {}
    with monkeypatch.context() as patch:
        for name, value in TORCHRUN.items():
            patch.setenv(name, value)
        assert place_of_launcher() == Place(3, 4, 1, 1, "head", 29400, False, in_torchrun=True)
        assert launched() == {"devices": 2, "num_nodes": 2}
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    assert place_of_launcher() == Place(3, 4, 1, 1, "node7", 19321, False)
    assert launched() == {"devices": 2, "num_nodes": 2}


def test_a_restart_takes_the_checkpoint_of_its_own_job_alone(tmp_path: Path) -> None:
    for run, (job, fold) in enumerate((("mine", 0), ("mine", 1), ("mine", None), ("another's", None))):
        path = tmp_path / "lightning_logs" / f"version_{run}" / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        settings = {"settings": {"values": {}, "again": {}, "job": [job]}}
        torch.save({"torchnn": settings, "datamodule_hyper_parameters": {"fold": fold}}, path)
    for fold, name in ((0, "version_0"), (None, "version_2")):
        found = last_of_job(tmp_path, ["mine"], fold)
        assert found is not None
        assert found.parts[-3] == name
    assert last_of_job(tmp_path, ["nobody's"], None) is None
