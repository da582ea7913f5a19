"""The data module: a table, split and served in batches."""

from typing import Literal

import lightning.pytorch as pl
import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from torchnn.training.batches import BatchLoader
from torchnn.training.defaults import batch_size_for
from torchnn.training.tables import EMBEDDED, Table

EVALUATION_BATCH_SIZE = 4096


class TabularDataModule(pl.LightningDataModule):
    """A table for binary classification, split by class proportions into training, validation and held-out rows.

    Args:
        dataset: name of an embedded data set; "breast_cancer" is scikit-learn's (569 rows, 30 columns).
        batch_size: rows in a training batch, per process; auto for the power of two nearest to a hundredth of the
            training rows, from 32 to 1024.
        val_fraction: fraction of the rows that validation gets, between 0 and 1.
        test_fraction: fraction of the rows that are held out for the test, between 0 and 1.
        seed: seed of the split and of the order of the batches; independent of the seed of the weights.

    Raises:
        ValueError: a batch size below 1, a fraction outside (0, 1), or fractions that leave nothing to train on.

    >>> data = TabularDataModule()
    >>> data.num_features, {part: len(rows) for part, rows in data.rows.items()}
    (30, {'train': 397, 'val': 86, 'test': 86})
    """

    def __init__(
        self,
        dataset: Literal["breast_cancer"] = "breast_cancer",
        batch_size: int | Literal["auto"] = "auto",
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if dataset not in EMBEDDED:
            raise ValueError(f"dataset is {dataset!r}: choose one of {', '.join(EMBEDDED)}.")
        if batch_size != "auto" and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: a batch has 1 row or more.")
        for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 < fraction < 1:
                raise ValueError(f"{name} is {fraction}: it lies between 0 and 1.")
        if val_fraction + test_fraction >= 1:
            raise ValueError(
                f"val_fraction + test_fraction is {val_fraction + test_fraction}: nothing is left to train."
            )
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed is {seed}: it lies between 0 and 2**32 − 1.")
        self.save_hyperparameters()  # a checkpoint names the split that it must not be tested on
        self.seed = seed
        self.table: Table = EMBEDDED[dataset]()
        self.rows = split_by_class(self.table.target, val_fraction, test_fraction, seed)
        self.batch_size = batch_size_for(len(self.rows["train"])) if batch_size == "auto" else batch_size

    @property
    def num_features(self) -> int:
        """Number of columns a model gets."""
        return self.table.features.shape[1]

    @property
    def train_features(self) -> Tensor:
        """Raw features of the training rows, (rows, columns): all that a model may fit its standardisation on."""
        return self.table.features[self.rows["train"]]

    def train_dataloader(self) -> BatchLoader:
        return self._loader("train", self.batch_size, shuffle_seed=self.seed)

    def val_dataloader(self) -> BatchLoader:
        return self._loader("val", EVALUATION_BATCH_SIZE)

    def test_dataloader(self) -> BatchLoader:
        return self._loader("test", EVALUATION_BATCH_SIZE)

    def predict_dataloader(self) -> BatchLoader:
        """The held-out rows; every process gets all of them, so that the one which writes has them all."""
        return BatchLoader(self.table, self.rows["test"], EVALUATION_BATCH_SIZE)

    def _loader(self, part: str, batch_size: int, shuffle_seed: int | None = None) -> BatchLoader:
        rank, num_ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return BatchLoader(self.table, self.rows[part], batch_size, shuffle_seed, rank, num_ranks)


def split_by_class(target: Tensor, val_fraction: float, test_fraction: float, seed: int) -> dict[str, Tensor]:
    """Row numbers of "train", "val" and "test", disjoint, each with the class proportions of `target` (rows,)."""
    rows, labels = np.arange(len(target)), target.numpy()
    share_of_rest = val_fraction / (1 - test_fraction)
    try:
        rest, test = train_test_split(rows, test_size=test_fraction, stratify=labels, random_state=seed)
        train, val = train_test_split(rest, test_size=share_of_rest, stratify=labels[rest], random_state=seed)
    except ValueError as error:
        raise ValueError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} of {len(rows)} rows leave a part without "
            "a row of each class: choose others."
        ) from error
    return {name: torch.from_numpy(np.sort(part)) for name, part in (("train", train), ("val", val), ("test", test))}
