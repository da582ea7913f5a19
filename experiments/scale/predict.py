"""Predict many processes on your machine and wire: `python -m experiments.scale.predict --help`."""

import argparse
import math
import re
import sys
from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ..common.errors import OneSentenceParser
from .model import Wire, efficiency, num_bytes, operations, step_seconds

DESCRIPTION = "Predict the efficiency of many processes from three numbers of your machine."
WORKERS, BATCHES = (1, 2, 8, 64, 1024), (1024, 4096, 16384, 65536)


def above_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number above 0")
    return number


def whole(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number of at least 1")
    return int(text)


def sizes_from(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a network: write sizes such as 30-16-1")
    return tuple(map(int, text.split("-")))


def main(args: Sequence[str] | None = None) -> int:
    """Print a table with a row for each number of processes and a column for each batch."""
    parser = OneSentenceParser(prog="python -m experiments.scale.predict", description=DESCRIPTION)
    parser.add_argument("--sizes", type=sizes_from, required=True, help="sizes of the network, such as 30-64-64-1")
    parser.add_argument(
        "--flops", type=above_zero, required=True, help="floating-point operations per second of a process"
    )
    parser.add_argument("--bandwidth", type=above_zero, required=True, help="bytes per second that a process sends")
    parser.add_argument("--latency", type=above_zero, required=True, help="seconds that a message without bytes takes")
    parser.add_argument("--workers", action="append", type=whole, help=f"repeatable; default: {WORKERS}")
    parser.add_argument(
        "--batch", action="append", type=whole, help=f"rows of each process; repeatable; default: {BATCHES}"
    )
    options = parser.parse_args(args)
    wire, batches = Wire("yours", options.bandwidth, options.latency), options.batch or BATCHES
    of_row = operations(options.sizes) / options.flops
    table = Table("processes", *(f"{batch:,} rows each" for batch in batches), box=SIMPLE)
    for workers in options.workers or WORKERS:
        cells = []
        for batch in batches:
            call = options.sizes, batch, of_row, wire, workers, 0
            cells.append(f"{efficiency(*call):.1%} ({1e3 * step_seconds(*call):.3g} ms)")
        table.add_row(f"{workers:,}", *cells)
    Console().print(table)
    carried = num_bytes(options.sizes) / 2**20
    print(f"{carried:.4g} MiB of gradients; {operations(options.sizes):,} operations per row; no exchange is hidden")
    return 0


if __name__ == "__main__":
    sys.exit(main())
