"""The job that this process is a rank of: what it says, it says once."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from subprocess import Popen
from typing import Any, NoReturn

from torchnn.console import INTERRUPTED, fail, say_alone, speaker
from torchnn.ranks.faults import Fault, described, is_of_a_connection, record_error
from torchnn.ranks.place import Place, place_of_launcher
from torchnn.ranks.store import CONNECT, SAME, Store, connected
from torchnn.ranks.watch import NAMING, Watch

TIMEOUT = 120.0  # seconds of silence after which a rank counts as dead, unless --ranks.timeout says otherwise
PATIENCE = 2.0  # seconds in which a fault of all ranks, such as a wrong flag, has come up in all of them


class Job:
    """A rank among others, or a process by itself; one for each process."""

    def __init__(self) -> None:
        self.watch: Watch | None = None
        self._shared: dict[str, str] = {}
        self._decisions = 0
        self._is_terminated = False

    @contextlib.contextmanager
    def speaking(self) -> Iterator[None]:
        """A command, of which the ranks say every fault once, and which ends in all of them if it ends in one."""
        token, before = speaker.set(self.say), signal.getsignal(signal.SIGTERM)
        try:
            yield
        finally:
            speaker.reset(token)
            self._leave()
            if signal.getsignal(signal.SIGTERM) != before:
                signal.signal(signal.SIGTERM, before)

    def join_launched(self, timeout: float) -> None:
        """Take the place that a launcher has given to this process, if there is one."""
        try:
            place = place_of_launcher()
        except RuntimeError as error:  # Lightning's, of variables that SLURM should have set
            fail(str(error))
        if place is not None:
            self.join(place, timeout)

    def join(self, place: Place, timeout: float) -> None:
        """Take a place among others; from now on a fault of any rank ends all of them.

        Args:
            place: of this process.
            timeout: seconds of silence after which a rank counts as dead.
        """
        if place.world_size == 1 or self.watch is not None:
            return
        signal.signal(signal.SIGTERM, self._terminated)
        try:
            watch = Watch(place, timeout, say_alone)
            watch.start()
        except RuntimeError as error:  # torch's
            where = f"{place.store_of} cannot be reached at {place.address}, port {place.port}"
            fail(f"{where} ({str(error).splitlines()[0]}): look at its output, and at the network.", status=1)
        self.watch = watch
        if watch.fault is not None:
            self._end_with(watch)
        for name, value in self._shared.items():
            watch.store.set(name, value)

    def decided(self, decide: Callable[[], str]) -> str:
        """What rank 0 decides, and only it, in all ranks; each of them asks for the same things in the same order."""
        watch = self.watch
        self._decisions += 1
        name = f"decision {self._decisions}"
        if watch is None or watch.place.rank == 0:
            self._shared[name] = value = decide()
            if watch is not None:
                watch.store.set(name, value)
            return value
        while (decision := watch.store.get(name)) is None:
            if watch.known.wait(0.05):
                self._end_with(watch)
        return decision

    def mind(self, children: Mapping[int, "Popen[bytes]"]) -> None:
        """Look after processes that this one has started, by rank."""
        if self.watch is not None:
            self.watch.children = children

    def alarm(self) -> None:
        """Something broke that may be another rank's fault."""
        if self.watch is not None and self.watch.fault is None:
            with contextlib.suppress(RuntimeError):
                self.watch.store.raise_alarm()

    def _terminated(self, signum: int, frame: Any) -> NoReturn:
        """A launcher ends the ranks that are left when one has died: which one, has to be found out before the end."""
        self.alarm()
        self._is_terminated = True
        sys.exit(128 + signum)

    def end_if_it_follows(self, error: Exception) -> None:
        """End without a word if an error is not this rank's own, but that of a rank that has gone."""
        if self.watch is None:
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.watch.leaving.set()
        if not is_of_a_connection(error):
            return
        self.alarm()
        if self.watch.known.wait(NAMING + PATIENCE):
            self._end_with(self.watch)
        fail(f"the ranks have lost each other, though all of them are alive: {described(error)}", status=1)

    def end_unforeseen(self, error: Exception) -> None:
        """End with one sentence for an error that nobody has foreseen, if there are others to be ended too."""
        if self.watch is not None:
            record_error(error)
            fail(f"{described(error)}", status=1)

    def say(self, sentence: str, status: int) -> None:
        """Say a sentence unless another rank has said what ends the job, with the name of the rank that it is of."""
        try:
            place = place_of_launcher() if self.watch is None else self.watch.place
        except (KeyError, RuntimeError, ValueError):  # of a launcher that leaves out what others give
            place = None
        if place is None or place.world_size == 1:
            say_alone(sentence)
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher that ends the others must not cut a sentence off
        if self.watch is not None:
            self.watch.leaving.set()
        if status == INTERRUPTED and self.watch is not None:
            alarmed, rank = self.watch.alarmed, place.rank
            self.watch.known.wait(NAMING + PATIENCE if alarmed else PATIENCE * min(rank, 1))
        fault = first = Fault(place.rank, place.name, sentence, status)
        is_of_all = False
        try:
            store = Store(connected(place, CONNECT), place.lobby) if self.watch is None else self.watch.store
            first, is_of_all = agree(store, fault, place.world_size - 1)
        except RuntimeError:  # torch's, when there is no store
            if self.watch is not None and self.watch.fault is not None:
                first = self.watch.fault
        if first == fault:
            say_alone(sentence if is_of_all else fault.whole)
        if self.watch is not None:
            self.watch.end(first)

    def _leave(self) -> None:
        if self.watch is not None:
            if self._is_terminated:
                self.watch.known.wait(NAMING + PATIENCE)
            self.watch.stop()
            if self.watch.fault is not None:
                self.watch.exit(self.watch.fault.status)
            self.watch = None
        self._shared.clear()
        self._decisions = 0

    @staticmethod
    def _end_with(watch: Watch) -> NoReturn:
        assert watch.fault is not None
        sys.exit(watch.fault.status)


def agree(store: Store, fault: Fault, others: int) -> tuple[Fault, bool]:
    """The fault that came first, and, if it is this one, whether all ranks have it.

    Args:
        store: of the job.
        fault: of this rank.
        others: how many there are.
    """
    first = store.propose(fault)
    if first != fault:
        store.count(SAME, int(first.sentence == fault.sentence))
        return first, False
    deadline = time.monotonic() + PATIENCE
    while store.count(SAME) < others and time.monotonic() < deadline:
        time.sleep(0.05)
    return first, store.count(SAME) >= others


job = Job()
