"""Write a trained model as ONNX or as a program of torch.export, and compare the two on real rows."""

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from torchnn.console import OneSentenceParser, fail
from torchnn.data.module import EVALUATION_BATCH_SIZE, TabularDataModule
from torchnn.model.classifier import BinaryClassifier
from torchnn.runs.checkpoints import find_checkpoint, read_checkpoint, table_options
from torchnn.runs.export import export_model
from torchnn.tables import TableError

MOST_COMPARED_ROWS = 10_000  # that the two models are compared on


def main(args: Sequence[str]) -> None:
    """Run `torchnn export`.

    Args:
        args: the words after `torchnn export`.

    Raises:
        SystemExit: with status 2 after wrong input.
    """
    parser = OneSentenceParser(prog="torchnn export", description=__doc__)
    parser.add_argument("output", type=Path, help="new file, .onnx or .pt2")
    parser.add_argument("--ckpt_path", default="best", help="a .ckpt file, or best or last of the newest run")
    parser.add_argument(
        "--data.path", dest="data", help="table on whose rows the two models are compared (default: the training table)"
    )
    given = parser.parse_args(args)
    try:
        path = find_checkpoint(given.ckpt_path, Path())
        checkpoint = read_checkpoint(path)
        model = BinaryClassifier.load(path)
        rows = real_rows(model, table_options(checkpoint, path), given.data)
        difference = export_model(model, given.output, rows)
    except ValueError as error:  # CheckpointError, ExportError, TableError, and options that do not fit a table
        fail(f"export: {error}")
    except OSError as error:
        fail(f"export: {given.output} cannot be written ({error.strerror}): give another file.")
    print(f"{given.output} gives the outputs of {path}: they differ by at most {difference:.1e} on {len(rows):,} rows")
    sys.exit(0)


def real_rows(model: BinaryClassifier, options: dict[str, Any], path: str | None) -> torch.Tensor:
    """The raw features of the rows on which the models are compared, (rows, columns).

    Raises:
        TableError: the table does not exist any more, or does not fit the model.
    """
    options.pop("fingerprint", None)
    if path is not None:
        options = {**options, "path": path, "part": "all"}
    elif "path" not in options:
        raise TableError(
            "the model was trained on a table in memory: give --data.path, a table to check the exported model with."
        )
    data = TabularDataModule(**options, schema=model.options.schema)
    batches = islice(iter(data.predict_dataloader()), -(-MOST_COMPARED_ROWS // EVALUATION_BATCH_SIZE))
    return torch.cat([batch.features for batch in batches])[:MOST_COMPARED_ROWS]
