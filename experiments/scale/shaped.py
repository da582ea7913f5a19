"""Two processes on a wire as slow as one says: a network namespace of their own whose loopback the kernel holds back.

Both directions share the loopback device, so it gets twice the rate that each direction has of a wire between hosts.
"""

import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..common.command import FOLDER
from ..common.unavailable import UnavailableError
from .processes import Request, measured

BURST, QUEUE = "256kb", "256mb"  # what may pass at once; what may wait, so that nothing is dropped


def measured_on_a_wire(request: Request, gigabits: float) -> list[dict[str, Any]]:
    """As `measured` with two processes.

    Args:
        request: what they measure.
        gigabits: a second that each of the two can send while it receives as many.
    """
    if not all(map(shutil.which, ("unshare", "ip", "tc"))):
        raise UnavailableError("a wire of a given speed needs Linux with unshare, ip and tc.")
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder, "request"), Path(folder, "rows")
        asked.write_bytes(pickle.dumps(request))
        shape = (
            f"ip link set lo up && tc qdisc add dev lo root tbf rate {2 * gigabits:g}gbit burst {BURST} limit {QUEUE}"
        )
        module = [sys.executable, "-m", __name__, str(asked), str(answer)]
        words = ["unshare", "--net", "sh", "-c", f'{shape} && exec "$@"', "sh", *module]
        done = subprocess.run(words, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
        if not answer.exists():
            why = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise UnavailableError(f"a wire of {gigabits:g} Gbit/s cannot be had here ({why[0]}).")
        rows: list[dict[str, Any]] = pickle.loads(answer.read_bytes())
        return rows


if __name__ == "__main__":
    rows = measured(pickle.loads(Path(sys.argv[1]).read_bytes()), 2)
    Path(sys.argv[2]).write_bytes(pickle.dumps(rows))
