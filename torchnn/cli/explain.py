"""`torchnn explain`: its arguments, and its output in the terminal, as JSON and as an HTML page."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from rich.status import Status
from torch import Tensor

from torchnn.console import OneSentenceParser, fail, need
from torchnn.explain import Trace, trace
from torchnn.explain.render.page import GENERATOR, page
from torchnn.explain.render.terminal import Explanation
from torchnn.files import write_whole
from torchnn.modules.mlp import MLP

DESCRIPTION = (
    "Show backpropagation with all its numbers: the forward pass, every factor of the chain rule, the gradients by "
    "hand, by autograd and by central differences, and one step of gradient descent. Without --ckpt_path it explains a "
    "2-3-1 network on two points."
)
EPILOG = "Exit status: 0 if all gradients agree, 1 if some differ, 2 if an argument is wrong."
WIDTH_OF_A_FILE = 120  # columns, if the output is not a terminal
STEPS = 300  # of gradient descent, for the slider of the page
LARGEST_WIDTH = 64
# The network that is explained without a checkpoint. It is so small that every number fits on the screen.
WEIGHTS = ([[0.8, -0.5], [-0.6, 0.9], [0.4, 0.7]], [[0.9, -1.1, 0.3]])
BIASES = ([0.1, -0.2, 0.3], [0.2])


class WrongArgumentError(ValueError):
    """The command cannot run with these arguments. The message is one sentence that says what to change."""


def parser() -> argparse.ArgumentParser:
    arguments = OneSentenceParser(prog="torchnn explain", description=DESCRIPTION, epilog=EPILOG)
    arguments.add_argument(
        "--ckpt_path",
        metavar="FILE",
        help="a trained model to explain: a .ckpt file, or best or last of the newest run",
    )
    arguments.add_argument(
        "--row", metavar="N", type=rows_from, help="rows of its data, counted from 0, such as 17 or 17,18; default: 0"
    )
    arguments.add_argument("--data.path", dest="data_path", metavar="FILE", help="another table with the same columns")
    arguments.add_argument("--layer", type=int, metavar="L", help="show only this layer, counted from 1")
    arguments.add_argument(
        "--max-width",
        type=width_from,
        default=8,
        metavar="N",
        help=f"how many neurons and columns of a wide layer are shown, 1 to {LARGEST_WIDTH}; default: %(default)s",
    )
    arguments.add_argument(
        "--lr",
        type=float,
        default=0.5,
        metavar="η",
        help="learning rate of the step of gradient descent; default: %(default)s",
    )
    arguments.add_argument("--json", action="store_true", help="print every number as JSON")
    arguments.add_argument(
        "--html", type=Path, metavar="FILE", help="write an HTML page; only an earlier page of this command is replaced"
    )
    return arguments


def rows_from(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of rows: write whole numbers from 0, such as 17 or 17,18"
        )
    return [int(word) for word in words]


def width_from(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LARGEST_WIDTH:
        raise argparse.ArgumentTypeError(f"{text!r} is not a width: write a whole number from 1 to {LARGEST_WIDTH}")
    return int(text)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command, and exit."""
    options = parser().parse_args(args)
    try:
        if options.html is not None:
            check_page(options.html)
        with Status("computing every gradient in three ways", console=Console(stderr=True)):
            explained = explain(options)
        check_layer(options.layer, explained)
        show(options, explained)
    except ValueError as error:  # also from trace, and CheckpointError
        fail(str(error))
    except KeyboardInterrupt:
        fail("the explanation was interrupted; nothing was written.", 130)
    sys.exit(0 if explained.agrees else 1)


def explain(options: argparse.Namespace) -> Trace:
    """The trace that the options ask for."""
    steps = STEPS if options.html is not None else 0
    settings: dict[str, Any] = {"lr": options.lr, "steps": steps, "max_differences": max(256, options.max_width**2)}
    if options.ckpt_path is None:
        for name, given in (("--row", options.row), ("--data.path", options.data_path)):
            if given is not None:
                raise WrongArgumentError(f"{name} needs a trained model: give --ckpt_path too.")
        return trace(*example(), **settings)
    data = {} if options.data_path is None else {"path": options.data_path}
    return trained(options.ckpt_path, options.row or [0], data, settings)


def trained(ckpt_path: str, rows: Sequence[int], data: Mapping[str, Any], settings: Mapping[str, Any]) -> Trace:
    """The trace of a checkpoint on rows of its data."""
    with need("train", "torchnn explain --ckpt_path"):  # imports Lightning
        from torchnn.model.classifier import BinaryClassifier
        from torchnn.runs.checkpoints import find_checkpoint, read_checkpoint, table_options
        from torchnn.runs.example_rows import example_rows

    path = find_checkpoint(ckpt_path, Path("."))
    checkpoint = read_checkpoint(path)
    model = BinaryClassifier.load(path)
    examples = example_rows(model, table_options(checkpoint, path) or None, rows, data)
    named = ", ".join(f"row {row} ({label})" for row, label in zip(rows, examples.labels, strict=True))
    return trace(
        model.network,
        examples.x,
        examples.y,
        loss=model.options.loss,
        pos_weight=None if model.pos_weight is None else float(model.pos_weight),
        columns=examples.columns,
        about=f"{named} of the data of {path}",
        **settings,
    )


def example() -> tuple[MLP, Tensor, Tensor]:
    """A 2-3-1 sigmoid network with short weights, two points (2, 2) and their targets (2, 1)."""
    model = MLP([2, 3, 1], dtype=torch.float64)
    parameters = (torch.tensor(values) for pair in zip(WEIGHTS, BIASES, strict=True) for values in pair)
    model.load_state_dict(dict(zip(model.state_dict(), parameters, strict=True)))
    points = torch.tensor([[0.5, -1.0], [-1.5, 1.0]], dtype=torch.float64)
    return model, points, torch.tensor([[0.0], [1.0]], dtype=torch.float64)


def check_layer(layer: int | None, explained: Trace) -> None:
    if layer is not None and not 1 <= layer <= len(explained.layers):
        count = len(explained.layers)
        raise WrongArgumentError(f"--layer {layer} does not exist: the network has layers 1 to {count}.")


def check_page(path: Path) -> None:
    """Before computing anything, raise an error if the page cannot or must not be written there."""
    if path.is_dir():
        raise WrongArgumentError(f"--html {path} is a folder: give the name of a file.")
    if not path.parent.is_dir():
        raise WrongArgumentError(f"--html {path} cannot be written because the folder {path.parent} does not exist.")
    if path.exists():
        try:
            with path.open("rb") as file:
                is_ours = GENERATOR.encode() in file.read(1024)
        except OSError as error:
            raise WrongArgumentError(f"--html {path} cannot be read ({error.strerror}): give another name.") from error
        if not is_ours:
            raise WrongArgumentError(f"--html {path} exists and is not a page of torchnn explain: give another name.")


def write_page(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise WrongArgumentError(f"--html {path} cannot be written ({error.strerror}): give another name.") from error


def show(options: argparse.Namespace, explained: Trace) -> None:
    """Write the page if there is --html, and print what the options ask for."""
    if options.html is not None:
        replaced = options.html.exists()
        write_page(options.html, page(explained, options.max_width, options.layer))
        sys.stderr.write(f"torchnn: {'replaced' if replaced else 'wrote'} {options.html}\n")
    if options.json:
        sys.stdout.write(json.dumps(explained.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    elif options.html is None:
        console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)
        console.print(Explanation(explained, options.max_width, options.layer))
