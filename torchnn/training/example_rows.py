"""Rows of the data that a checkpoint was trained on, as its network sees them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchnn.training.checkpoints import CheckpointError
from torchnn.training.classifier import BinaryClassifier
from torchnn.training.data import TabularDataModule


@dataclass(frozen=True)
class ExampleRows:
    """Some rows for a trained network.

    Attributes:
        x: standardised as the model standardises, float64, (rows, columns).
        y: targets, float64, (rows, 1).
        columns: names of the columns.
        labels: the name of each row's class.
    """

    x: Tensor
    y: Tensor
    columns: tuple[str, ...]
    labels: tuple[str, ...]


def example_rows(
    model: BinaryClassifier, trained_on: Mapping[str, Any] | None, rows: Sequence[int], data: Mapping[str, Any]
) -> ExampleRows:
    """Take rows of a table by their position in it, as `predictions.csv` counts.

    Args:
        model: with its fitted standardisation.
        trained_on: arguments of the `TabularDataModule` of the training, from the checkpoint, if it names them.
        rows: positions in the table, from 0.
        data: arguments that replace those of the training, as {"path": "other.csv"}.

    Raises:
        CheckpointError: data that nobody names, an argument that the data module does not take, a table with another
            number of columns, or a row that the table does not have.
    """
    if trained_on is None and not data:
        raise CheckpointError("the checkpoint does not name the data it was trained on: give --data.path.")
    try:
        module = TabularDataModule(**{**(trained_on or {}), **data})
    except TypeError as error:
        given = ", ".join(f"--data.{name} {value}" for name, value in data.items())
        raise CheckpointError(f"{given or 'the data of the checkpoint'} cannot be read ({error}).") from error
    table = module.table
    if module.num_features != model.options.in_features:
        raise CheckpointError(
            f"the checkpoint takes {model.options.in_features} columns, the data has {module.num_features}: "
            "use the data it was trained on."
        )
    for row in rows:
        if not 0 <= row < len(table):
            raise CheckpointError(f"--row {row} is not there: the data has rows 0 to {len(table) - 1}.")
    standardise = model.standardise.double()
    chosen = torch.tensor(list(rows))
    x = standardise(table.features[chosen].double())
    y = table.target[chosen].double()
    labels = tuple(table.classes[int(target)] for target in y.tolist())
    return ExampleRows(x, y.unsqueeze(-1), table.columns, labels)
