"""`torchnn export`: a trained model to ONNX or to a program of torch.export."""

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

PROVEN_ON = 10_000  # rows, at most


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
        "--data.path", dest="data", help="table whose rows prove the export (default: that of the training)"
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
        fail(f"export: {given.output}: {error.strerror}: give a file that can be written.")
    print(f"{given.output} answers as {path} does: at most {difference:.1e} apart on {len(rows):,} rows")
    sys.exit(0)


def real_rows(model: BinaryClassifier, options: dict[str, Any], path: str | None) -> torch.Tensor:
    """Raw features of a table that the model takes, (rows, columns).

    Raises:
        TableError: the table is gone, or does not fit.
    """
    options.pop("fingerprint", None)
    if path is not None:
        options = {**options, "path": path, "part": "all"}
    elif "path" not in options:
        raise TableError("the model was trained on a table in memory: give --data.path, a table that it is proven on.")
    data = TabularDataModule(**options, schema=model.options.schema)
    batches = islice(iter(data.predict_dataloader()), -(-PROVEN_ON // EVALUATION_BATCH_SIZE))
    return torch.cat([batch.features for batch in batches])[:PROVEN_ON]
