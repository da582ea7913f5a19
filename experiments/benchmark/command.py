"""The arguments of the command, and its parts."""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from ..common.command import PROGRESS, WIDTH_OF_A_FILE
from ..common.errors import INTERRUPTED, OneSentenceParser
from .accuracy import measure_accuracy
from .contenders import EAGER, OURS, WrongGradientError
from .measure import (
    measure_autocast,
    measure_block_rows,
    measure_point,
    measure_small_step,
    measure_without_loss,
    why_busy,
)
from .memory import BATCHES, MemoryMeasurementError, available_bytes, measure_memory, why_no_memory
from .problems import DEEP, GRID_BATCHES, GRID_SIZES, THREADS, Point, why_too_large
from .report import NOT_A_RESULT, Findings, show, write

DESCRIPTION = "Measure a training step of torchnn against autograd and other ways to compute the same gradients."
PARTS = (
    *("autocast", "grid", "small-steps", "without-loss", "block-rows", "memory", "accuracy", "training"),
    *("streaming", "large-table"),
)
RESULTS = Path(__file__).parent / "results"
AUTOCAST_POINT = Point(DEEP, 65536)
POINTS_WITHOUT_LOSS = [Point(sizes, batch) for sizes in GRID_SIZES[:4] for batch in GRID_BATCHES[2:]]
SMALL_POINTS = [Point(sizes, batch) for sizes in GRID_SIZES[:3] for batch in GRID_BATCHES[:2]]
POINTS_OF_BLOCKS = [Point(sizes, 65536) for sizes in GRID_SIZES[:4]]
FAILED, NOISY = 1, 3  # exit statuses


def sizes_from(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)*-1", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a network: write sizes that end in one output, such as 30-16-1"
        )
    return tuple(map(int, text.split("-")))


def batch_from(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a batch size: write a whole number of at least 1")
    return int(text)


def seconds_from(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: write a number of seconds above 0")
    return seconds


def parsed(args: Sequence[str] | None) -> argparse.Namespace:
    parser = OneSentenceParser(prog="python -m experiments.benchmark", description=DESCRIPTION)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder for the files; default: results/ next to the code"
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="run only this part; repeatable")
    parser.add_argument("--sizes", action="append", type=sizes_from, help="a network of the grid; repeatable")
    parser.add_argument("--batches", action="append", type=batch_from, help="a batch size of the grid; repeatable")
    parser.add_argument("--seconds-per-point", type=seconds_from, default=15.0, help="default: %(default)s")
    parser.add_argument("--allow-busy", action="store_true", help="start even if the machine is busy")
    options = parser.parse_args(args)
    if (options.sizes or options.batches) and options.out is None:
        parser.error("a part of the grid would replace the results of the whole grid: give --out too")
    options.out = options.out or RESULTS
    if not options.allow_busy and (why := why_busy()):
        parser.error(why)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out} cannot be created ({error.strerror})")
    return options


def run(options: argparse.Namespace, progress: Progress) -> Findings:
    parts, findings, budget = options.only or PARTS, Findings(), options.seconds_per_point
    points = [Point(s, b) for s in options.sizes or GRID_SIZES for b in options.batches or GRID_BATCHES]
    task = progress.add_task("", total=None)

    def show_progress(text: str) -> None:
        progress.update(task, description=text)

    if "autocast" in parts:
        show_progress(f"autocast: {AUTOCAST_POINT.name}")
        findings.autocast.append(measure_autocast(AUTOCAST_POINT, budget))
    if "grid" in parts:
        for number, point in enumerate(points, 1):
            if why := why_too_large(point):
                findings.notes.append(f"{point.name} is skipped: {why}.")
                continue
            show_progress(f"point {number} of {len(points)}: {point.name}")
            measured = measure_point(point, budget)
            findings.grid.append(measured)
            findings.notes += [f"{name}: {why}." for name, why in measured.skipped.items()]
    if "small-steps" in parts:
        for point in SMALL_POINTS:
            show_progress(f"a small step: {point.name}")
            findings.small_steps.append(measure_small_step(point, budget))
    if "without-loss" in parts:
        for point in POINTS_WITHOUT_LOSS:
            show_progress(f"without a loss: {point.name}")
            findings.without_loss.append(measure_without_loss(point, budget))
    if "block-rows" in parts:
        for point in POINTS_OF_BLOCKS:
            show_progress(f"rows of a block: {point.name}")
            findings.block_rows.append(measure_block_rows(point, budget))
        show_progress(f"rows of a block, bfloat16: {AUTOCAST_POINT.name}")
        findings.block_rows_bfloat16.append(measure_block_rows(AUTOCAST_POINT, budget, bfloat16=True))
    if "memory" in parts:
        for batch in BATCHES:
            for name in (OURS, EAGER):
                show_progress(f"memory: {name} at {batch:,}")
                if why := why_no_memory(name, batch, available_bytes()):
                    findings.notes.append(f"memory of {name} at {batch:,} rows is skipped: {why}.")
                    continue
                findings.memory.append(measure_memory(name, batch))
    if "accuracy" in parts:
        show_progress("accuracy")
        findings.accuracy = measure_accuracy()
    if "training" in parts:
        show_progress("training")
        from .training import measure_training

        training = measure_training()
        findings.training = [
            {
                "torchnn_rows_per_second": round(training.of_ours),
                "plain_rows_per_second": round(training.of_plain),
                "ratio": round(training.ratio, 4),
            }
        ]
    if "streaming" in parts:
        show_progress("streaming")
        from .streaming import measure_streaming

        streaming = measure_streaming()
        findings.streaming = [
            {
                "streaming_rows_per_second": round(streaming.of_stream),
                "in_memory_rows_per_second": round(streaming.of_memory),
                "ratio": round(streaming.ratio, 4),
            }
        ]
    if "large-table" in parts:
        show_progress("large table")
        from .streaming import measure_large_table

        large = measure_large_table()
        findings.large_table = [
            {
                "rows": large.num_rows,
                "parquet_mib": round(large.parquet_bytes / 2**20),
                "peak_mib": round(large.peak_bytes / 2**20),
                "seconds": round(large.seconds),
            }
        ]
    return findings


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = parsed(args)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
    torch.set_num_threads(THREADS)
    try:
        with Progress(*PROGRESS, console=console, transient=True) as progress:
            findings = run(options, progress)
        show(console, findings)
        names = write(options.out, findings)
    except KeyboardInterrupt:
        sys.stderr.write("benchmark: interrupted; earlier results are unchanged.\n")
        return INTERRUPTED
    except (WrongGradientError, MemoryMeasurementError) as error:
        sys.stderr.write(f"benchmark: {error}\n")
        return FAILED
    console.print(f"wrote {', '.join(names)} in {options.out}", markup=False)
    if not findings.is_result:
        console.print(NOT_A_RESULT)
        return NOISY
    return 0
