"""The store through which the ranks of a job talk, of which no call waits for another rank."""

from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, TCPStore

from torchnn.ranks.faults import Fault
from torchnn.ranks.place import Place

CONNECT = 10.0  # seconds to find the store of a launcher, which is there before the ranks are
NEWS, FAULT, ALARM, HEARD, SAME = "news", "fault", "alarm", "heard", "same"


def connected(place: Place, seconds: float) -> TCPStore:
    """The store of torch.distributed that is at a place.

    Args:
        place: of this process.
        seconds: how long to wait for it to be there.

    Raises:
        RuntimeError: it is not.
    """
    return TCPStore(
        place.address,
        place.port,
        is_master=place.hosts_store,
        timeout=timedelta(seconds=seconds),
        wait_for_workers=False,
        multi_tenant=True,
    )


class Store:
    """Values and counts by name.

    Args:
        tcp: where they are.
        room: keeps the names of one attempt from those of another, since torchrun's store outlives both.

    Raises:
        RuntimeError: in every method: torch's, when the store does not answer.
    """

    def __init__(self, tcp: TCPStore, room: str) -> None:
        self.room = PrefixStore(f"torchnn/{room}", tcp)

    def count(self, key: str, more: int = 0) -> int:
        """Add to a count, and read it."""
        return self.room.add(key, more)

    def set(self, key: str, value: str) -> None:
        self.room.set(key, value)

    def get(self, key: str) -> str | None:
        """A value, None if nobody has set it."""
        return self.room.get(key).decode() if self.room.check([key]) else None

    def first(self, key: str, value: str) -> str:
        """Set a value if nobody has, and return the one that is there now."""
        return self.room.compare_set(key, "", value).decode()

    def propose(self, fault: Fault) -> Fault:
        """Give the cause of the end, and get the one that came first."""
        first = Fault.from_text(self.first(FAULT, fault.to_text()))
        self.count(NEWS, 1)
        return first

    def fault(self) -> Fault | None:
        """The cause of the end, if there is one."""
        text = self.get(FAULT)
        return None if text is None else Fault.from_text(text)

    def raise_alarm(self) -> None:
        """Ask for signs of life now: a connection has broken."""
        self.set(ALARM, "on")
        self.count(NEWS, 1)
