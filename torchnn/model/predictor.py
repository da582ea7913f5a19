"""The predictions of a trained classifier: probabilities and classes, for a loader or for a table in any form."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from torchnn.data.batches import as_batch
from torchnn.data.module import TabularDataModule
from torchnn.model.checkpoint import CheckpointError, load_plain
from torchnn.model.decisions import as_probability
from torchnn.tables.columns import Schema
from torchnn.tables.faults import TableError

PREDICTED_AT_A_TIME = 65_536  # rows; limits the memory that the outputs of the layers take


class Predictor(pl.LightningModule):
    """The part of `BinaryClassifier` that predicts.

    Attributes:
        options: the hyperparameters, with `threshold` and `schema`.
        schema: the columns of the table that the model was trained on; None if it was trained on raw features.
        chosen_threshold: the threshold that validation chose, a scalar.
    """

    options: Any
    schema: Schema | None
    chosen_threshold: Tensor

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """The model of a checkpoint, ready to predict. No code in the file is run.

        Raises:
            CheckpointError: the checkpoint cannot be used; a ValueError that says why.
        """
        return cls.from_checkpoint(load_plain(Path(path)), Path(path))

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any], path: Path) -> Self:
        """The model of a checkpoint that is in memory, ready to predict.

        Args:
            checkpoint: its content.
            path: its file, for error messages.

        Raises:
            CheckpointError: it holds no model, a model of another shape, or weights that are not finite.
        """
        if not {"state_dict", "hyper_parameters"} <= checkpoint.keys():
            raise CheckpointError(f"checkpoint {path} does not hold a torchnn model: it has no hyperparameters.")
        try:
            model = cls(**checkpoint["hyper_parameters"])
            model.load_state_dict(checkpoint["state_dict"])
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"checkpoint {path} does not fit {cls.__name__}: {reason}") from error
        for name, value in checkpoint["state_dict"].items():
            if not bool(torch.isfinite(value).all()):
                raise CheckpointError(f"checkpoint {path} has values in {name} that are not finite: use another one.")
        return model.eval()

    def predict_proba(self, data: Any) -> np.ndarray:
        """Probabilities of class 0 and class 1 of each row, float64, shape (rows, 2).

        Args:
            data: a dataframe, an Arrow table, a dictionary of columns or the path of a table, with the columns that
                the model was trained on; or raw features (rows, in_features) as a tensor or array.

        Raises:
            TableError: a column is missing or does not fit; a ValueError that says which.
        """
        features = raw_features(data, self.options.schema)
        with torch.no_grad():
            outputs = [self(rows.to(self.device)) for rows in features.split(PREDICTED_AT_A_TIME)]
        positive = as_probability(torch.cat(outputs)).double().flatten().cpu().numpy()
        return np.stack([1 - positive, positive], axis=1)

    def predict(self, data: Any) -> np.ndarray:
        """The name of each row's class, shape (rows,); arguments and errors as `predict_proba`."""
        classes = np.array(("0", "1") if self.schema is None else self.schema.classes)
        predicted: np.ndarray = classes[(self.predict_proba(data)[:, 1] >= self.threshold).astype(int)]
        return predicted

    @property
    def threshold(self) -> float:
        """The probability from which a row is called class 1, as given or as chosen by validation."""
        given = self.options.threshold
        return float(self.chosen_threshold) if isinstance(given, str) else float(given)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Row number, probability of class 1 and label (0 or 1), each (rows,)."""
        batch = as_batch(batch)
        probability = as_probability(self(batch.features)).squeeze(-1)
        return {"row": batch.row, "probability": probability, "label": (probability >= self.threshold).int()}


def raw_features(data: Any, schema: dict[str, Any] | None) -> Tensor:
    """The input of a model, (rows, slots), from a table in any form; an array of raw features is returned as it is.

    Raises:
        TableError: a table for a model that was trained on raw features, or a table that lacks a column.
    """
    if isinstance(data, Tensor | np.ndarray):
        return torch.as_tensor(data)
    if schema is None:
        raise TableError("the model was trained without column names: give raw features, (rows, in_features).")
    return TabularDataModule(data, part="all", schema=schema, stream=False).table.features
