"""Rows of the data that a checkpoint was trained on, preprocessed for its network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchnn.data.module import TabularDataModule
from torchnn.model.checkpoint import CheckpointError
from torchnn.model.classifier import BinaryClassifier


@dataclass(frozen=True)
class ExampleRows:
    """Rows for a trained network.

    Attributes:
        x: preprocessed by the model, float64, (rows, columns).
        y: targets, float64, (rows, 1).
        columns: names of the columns of `x`.
        labels: the name of each row's class.
    """

    x: Tensor
    y: Tensor
    columns: tuple[str, ...]
    labels: tuple[str, ...]


def example_rows(
    model: BinaryClassifier, trained_on: Mapping[str, Any] | None, rows: Sequence[int], data: Mapping[str, Any]
) -> ExampleRows:
    """Take rows of a table by their position, which is the number in the predictions.

    Args:
        model: with its fitted preprocessing.
        trained_on: arguments of the `TabularDataModule` of the training, from the checkpoint, if it names them.
        rows: positions in the table, from 0.
        data: arguments that replace those of the training, as {"path": "other.csv"}.

    Raises:
        CheckpointError: no data are named, or the table does not have a row.
        TableError: the table lacks a column that the model or the loss needs.
    """
    options = {name: value for name, value in {**(trained_on or {}), **data}.items() if name != "fingerprint"}
    if trained_on is None and not data:
        raise CheckpointError("the checkpoint does not name the data it was trained on: give --data.path.")
    module = TabularDataModule(**{**options, "part": "all", "stream": False, "schema": model.options.schema})
    module.test_dataloader()  # reads the target
    table = module.table
    for row in rows:
        if not 0 <= row < len(table):
            raise CheckpointError(f"--row {row} does not exist: the data has rows 0 to {len(table) - 1}.")
    chosen = torch.tensor(list(rows))
    preprocess = model.preprocess.double()
    with torch.no_grad():
        x = preprocess(table.features[chosen].double())
    y = table.target[chosen].double()
    labels = tuple(table.classes[round(target)] for target in y.tolist())
    names = table.columns if model.schema is None else preprocess.out_names
    return ExampleRows(x=x, y=y.unsqueeze(-1), columns=names, labels=labels)
