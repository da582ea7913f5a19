"""The arguments of the command, and the parts it runs."""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

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

DESCRIPTION = "Measure a training step of torchnn against autograd and the other ways to the same gradients."
PARTS = (
    *("autocast", "grid", "small-steps", "without-loss", "block-rows", "memory", "accuracy", "training"),
    *("streaming", "large-table"),
)
RESULTS = Path(__file__).parent / "results"
AUTOCAST_POINT = Point(DEEP, 65536)
POINTS_WITHOUT_LOSS = [Point(sizes, batch) for sizes in GRID_SIZES[:4] for batch in GRID_BATCHES[2:]]
SMALL_POINTS = [Point(sizes, batch) for sizes in GRID_SIZES[:3] for batch in GRID_BATCHES[:2]]
POINTS_OF_BLOCKS = [Point(sizes, 65536) for sizes in GRID_SIZES[:4]]
WIDTH_OF_A_FILE = 120
PROGRESS = SpinnerColumn(), "{task.description}", TimeElapsedColumn()
FAILED, BAD_ARGUMENT, NOISY, INTERRUPTED = 1, 2, 3, 130


class OneSentenceParser(argparse.ArgumentParser):
    """Without a page of usage before each error."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_ARGUMENT, f"benchmark: {message}.\n")


def sizes_from(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)*-1", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no network: write sizes that end in one output, such as 30-16-1")
    return tuple(map(int, text.split("-")))


def batch_from(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no batch size: write a whole number, 1 or more")
    return int(text)


def seconds_from(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write a number of seconds above 0")
    return seconds


def parsed(args: Sequence[str] | None) -> argparse.Namespace:
    parser = OneSentenceParser(prog="python -m experiments.benchmark", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the files go; default: results/ beside this")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part to run, instead of all; repeatable")
    parser.add_argument("--sizes", action="append", type=sizes_from, help="a network of the grid; repeatable")
    parser.add_argument("--batches", action="append", type=batch_from, help="a batch size of the grid; repeatable")
    parser.add_argument("--seconds-per-point", type=seconds_from, default=15.0, help="default: %(default)s")
    parser.add_argument("--allow-busy", action="store_true", help="begin although the machine is busy")
    options = parser.parse_args(args)
    if (options.sizes or options.batches) and options.out is None:
        parser.error("a part of the grid would replace the results of the whole: give --out too")
    options.out = options.out or RESULTS
    if not options.allow_busy and (why := why_busy()):
        parser.error(why)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out} cannot be a folder ({error.strerror})")
    return options


def run(options: argparse.Namespace, progress: Progress) -> Findings:
    parts, findings, budget = options.only or PARTS, Findings(), options.seconds_per_point
    points = [Point(s, b) for s in options.sizes or GRID_SIZES for b in options.batches or GRID_BATCHES]
    task = progress.add_task("", total=None)

    def tell(text: str) -> None:
        progress.update(task, description=text)

    if "autocast" in parts:
        tell(f"autocast: {AUTOCAST_POINT.name}")
        findings.autocast.append(measure_autocast(AUTOCAST_POINT, budget))
    if "grid" in parts:
        for number, point in enumerate(points, 1):
            if why := why_too_large(point):
                findings.notes.append(f"{point.name} is left out: {why}.")
                continue
            tell(f"point {number} of {len(points)}: {point.name}")
            measured = measure_point(point, budget)
            findings.grid.append(measured)
            findings.notes += [f"{name}: {why}." for name, why in measured.skipped.items()]
    if "small-steps" in parts:
        for point in SMALL_POINTS:
            tell(f"a small step: {point.name}")
            findings.small_steps.append(measure_small_step(point, budget))
    if "without-loss" in parts:
        for point in POINTS_WITHOUT_LOSS:
            tell(f"without a loss: {point.name}")
            findings.without_loss.append(measure_without_loss(point, budget))
    if "block-rows" in parts:
        for point in POINTS_OF_BLOCKS:
            tell(f"rows of a block: {point.name}")
            findings.block_rows.append(measure_block_rows(point, budget))
        tell(f"rows of a block, bfloat16: {AUTOCAST_POINT.name}")
        findings.block_rows_bfloat16.append(measure_block_rows(AUTOCAST_POINT, budget, bfloat16=True))
    if "memory" in parts:
        for batch in BATCHES:
            for name in (OURS, EAGER):
                tell(f"memory: {name} at {batch:,}")
                if why := why_no_memory(name, batch, available_bytes()):
                    findings.notes.append(f"memory of {name} at {batch:,} rows is left out: {why}.")
                    continue
                findings.memory.append(measure_memory(name, batch))
    if "accuracy" in parts:
        tell("accuracy")
        findings.accuracy = measure_accuracy()
    if "training" in parts:
        tell("training")
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
        tell("streaming")
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
        tell("large table")
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
        sys.stderr.write("benchmark: interrupted, earlier results are untouched.\n")
        return INTERRUPTED
    except (WrongGradientError, MemoryMeasurementError) as error:
        sys.stderr.write(f"benchmark: {error}\n")
        return FAILED
    console.print(f"wrote {', '.join(names)} in {options.out}", markup=False)
    if not findings.is_result:
        console.print(NOT_A_RESULT)
        return NOISY
    return 0
