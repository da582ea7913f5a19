"""Signs of life between the ranks of a job, through a store that all of them reach."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import NoReturn

from torchnn.ranks.faults import Fault, record
from torchnn.ranks.place import Place
from torchnn.ranks.store import ALARM, HEARD, NEWS, Store, connected

POLL = 0.5  # seconds between two looks at the store
NAMING = 3.0  # seconds without a sign of life that tell the dead from the living, once a connection has broken
GRACE = 3.0  # seconds in which the main thread has heard of a fault by itself
LEAVE = 7.0  # seconds more in which it has said a sentence, and tidied up
LONGEST_REST = 5.0  # seconds between two signs of life
START = 300.0  # seconds that a rank may take to appear: to import and to read its flags
LEFT = 2**40  # signs of life of a rank that ended well

UNHEARD = (
    "its host is cut off, down or stopped; if it was only slow, give more --ranks.timeout, and go on with "
    "--ckpt_path last"
)


class Watch:
    """Two threads that end this process if a rank dies, is cut off or has a fault, whatever the main thread waits for.

    One gives signs of life, and looks for those of the others: rank 0 for all, and all for rank 0. The other notices
    that the first gets no answer any more. Signs of life come from a thread, so that long work is no silence.

    Args:
        place: of this process.
        timeout: seconds of silence after which a rank counts as dead.
        speak: says a sentence.
    """

    def __init__(self, place: Place, timeout: float, speak: Callable[[str], None]) -> None:
        self.place, self.timeout, self.speak = place, timeout, speak
        self.tcp = connected(place, max(timeout, START))
        self.all_attempts, self.lobby = Store(self.tcp, "all attempts"), Store(self.tcp, place.lobby)
        self.room = place.lobby
        self.store = self.lobby
        self.children: Mapping[int, subprocess.Popen[bytes]] = {}
        self.fault: Fault | None = None
        self.known = threading.Event()
        self.leaving = threading.Event()  # the main thread has heard of a fault, or has one
        self.alarmed = False
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._rounds = self._news = 0
        self._rest = max(1, round(min(LONGEST_REST, timeout / 10) / POLL))  # rounds between two signs of life
        watched = range(place.world_size) if place.rank == 0 else [0]
        self._signs = {rank: 0 for rank in watched if rank != place.rank}
        self._silent = dict.fromkeys(self._signs, 0.0)

    def start(self) -> None:
        """Appear among the others; if one of them has a fault already, that is `fault`."""
        if self.place.in_torchrun:
            self.room = self._room()
            self.store = Store(self.tcp, self.room)
        self.store.set(f"name of {self.place.rank}", self.place.name)
        self.store.count(f"signs of {self.place.rank}", 1)
        for task in (self._talk, self._keep_time):
            threading.Thread(target=task, name=f"torchnn-{task.__name__}", daemon=True).start()

    def _room(self) -> str:
        """A name of this attempt: rank 0's, who gives it to those only that ask in the same attempt."""
        mine = uuid.uuid4().hex
        if self.place.rank > 0:
            self.all_attempts.set(f"question of {self.place.rank}", mine)
        deadline = time.monotonic() + START
        while self.place.rank > 0 and time.monotonic() < deadline:
            if (room := self.all_attempts.get(f"answer to {mine}")) is not None:
                return room
            if (fault := self.lobby.fault()) is not None:
                self.end(fault)
                break
            time.sleep(0.05)
        return mine

    def _let_in(self) -> None:
        """Answer those who have not found the room, and hear what they say before they do."""
        for rank in (rank for rank, signs in self._signs.items() if signs == 0):
            question = self.all_attempts.get(f"question of {rank}")
            if question is not None:
                self.all_attempts.first(f"answer to {question}", self.room)
        if (fault := self.lobby.fault()) is not None:
            self.store.propose(fault)

    def stop(self) -> None:
        """This rank ends, and says so if it ends well; rank 0 stays as long as others need its store."""
        self._stopped.set()
        self.leaving.set()
        with contextlib.suppress(RuntimeError):  # torch's, when the store is gone
            if self.fault is None:
                self.store.count(f"signs of {self.place.rank}", LEFT)
            if self.place.hosts_store:
                self._linger(NAMING if self.fault else self.timeout)

    def _linger(self, seconds: float) -> None:
        others = range(1, self.place.world_size)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.fault is None:
                known = all(self.store.count(f"signs of {rank}") >= LEFT for rank in others)
            else:
                known = self.store.count(HEARD) >= len(others)
            if known or all(rank in self.children and self.children[rank].poll() is not None for rank in others):
                return
            time.sleep(0.05)

    def _talk(self) -> None:
        try:
            while not self._stopped.wait(POLL) and self.fault is None:
                self._round()
                self._rounds += 1
        except RuntimeError as error:  # torch's, when the store does not answer
            if not self._stopped.is_set() and self.fault is None:
                reason = str(error).splitlines()[0]
                self._end_alone(f"is gone without a word ({reason}): it was killed, or its host went down")

    def _keep_time(self) -> None:
        silent, rounds = 0.0, -1
        while not self._stopped.wait(POLL) and self.fault is None:
            silent = 0.0 if self._rounds != rounds else silent + POLL
            rounds = self._rounds
            if silent > self.timeout:
                self._end_alone(f"has not been heard of for {silent:g} s: {UNHEARD}", takes_parent=True)

    def _round(self) -> None:
        if self.place.rank == 0 and self.place.in_torchrun and 0 in self._signs.values():
            self._let_in()
        news = self.store.count(NEWS)
        if news != self._news:
            self._news = news
            if (fault := self.store.fault()) is not None:
                self.store.count(HEARD, 1)
                self.end(fault)
                return
            self.alarmed = self.store.get(ALARM) is not None
            self._silent = dict.fromkeys(self._silent, 0.0)
        self._mind_children()
        if self.alarmed or self._rounds % self._rest == 0:
            self.store.count(f"signs of {self.place.rank}", 1)
            self._listen(POLL if self.alarmed else POLL * self._rest)

    def _listen(self, seconds: float) -> None:
        for rank, before in self._signs.items():
            signs = self.store.count(f"signs of {rank}")
            self._silent[rank] = 0.0 if signs != before or signs >= LEFT else self._silent[rank] + seconds
            self._signs[rank] = signs
        dead = [rank for rank in self._signs if self._silent[rank] > self._patience(rank)]
        if dead:
            self._announce(dead[0], self._cause(dead[0]), also=dead[1:])

    def _patience(self, rank: int) -> float:
        if self._signs[rank] == 0:
            return max(self.timeout, START)
        return min(self.timeout, NAMING) if self.alarmed else self.timeout

    def _cause(self, rank: int) -> str:
        if self._signs[rank] == 0:
            return f"has not appeared within {self._silent[rank]:g} s: look at the output of its launcher."
        if self.alarmed:
            return "is gone without a word: it was killed, for lack of memory perhaps, or its host went down."
        return f"has not been heard of for {self._silent[rank]:g} s: {UNHEARD}."

    def _mind_children(self) -> None:
        for rank, child in self.children.items():
            status = child.poll()
            if status is not None and status != 0 and self._signs.get(rank, 0) < LEFT:
                how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status} without a word"
                memory = ", as the system does for lack of memory" if status == -9 else ""
                self._announce(rank, f"{how}{memory}.")
                return

    def _announce(self, rank: int, cause: str, also: list[int] | None = None) -> None:
        name = self.store.get(f"name of {rank}") or f"rank {rank}"
        name += "".join(f", {self.store.get(f'name of {other}') or f'rank {other}'}" for other in also or [])
        fault = Fault(self.place.rank, "", f"{name} {cause}", 1)
        first = self.store.propose(fault)
        if first == fault:
            self.speak(fault.whole)
        self.end(first)

    def _end_alone(self, what: str, takes_parent: bool = False) -> None:
        """End without the store, through which the ranks would agree on who speaks."""
        fault = Fault(self.place.rank, self.place.name, f"{self.place.store_of} {what}.", 1)
        if self.fault is None and self.place.speaks_without_store:
            self.speak(fault.whole)
        if takes_parent and self.place.parent and self.place.parent == os.getppid():  # rank 0, which may be stopped
            os.kill(self.place.parent, signal.SIGKILL)
        self.end(fault)

    def end(self, fault: Fault) -> None:
        """Let the main thread end by itself, which tidies up; if it cannot, end the process."""
        with self._lock:
            if self.fault is not None:
                return
            self.fault = fault
        record(fault)
        self.known.set()
        threading.Thread(target=self._last_resort, args=(fault.status,), name="torchnn-end", daemon=True).start()

    def _last_resort(self, status: int) -> None:
        if self.leaving.wait(GRACE):
            time.sleep(LEAVE)
        self.exit(status)

    def exit(self, status: int) -> NoReturn:
        """End the process without tidying up: a thread of torch that waits for a peer would abort it there."""
        for child in self.children.values():
            if child.poll() is None:
                child.kill()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
