"""Two processes on a wire of a given speed: a network namespace in which the kernel limits the loopback device.

Both directions share the loopback device, so its rate is twice that of each direction of a wire between hosts.
"""

import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..common.command import FOLDER
from ..common.errors import UnavailableError
from .processes import Request, measured

BURST, QUEUE = "256kb", "256mb"  # bytes that may pass at once, and bytes that may wait, so that nothing is dropped


def measured_on_a_wire(request: Request, gigabits: float) -> list[dict[str, Any]]:
    """Measure two processes, as `measured` does.

    Args:
        request: what they measure.
        gigabits: gigabits per second that each process can send while it receives at the same rate.
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
            raise UnavailableError(f"a wire of {gigabits:g} Gbit/s is not possible here ({why[0]}).")
        rows: list[dict[str, Any]] = pickle.loads(answer.read_bytes())
        return rows


if __name__ == "__main__":
    rows = measured(pickle.loads(Path(sys.argv[1]).read_bytes()), 2)
    Path(sys.argv[2]).write_bytes(pickle.dumps(rows))
