"""torchnn with its defaults, as its user trains: data module, classifier, trainer, best weights."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from torchnn.tables import Table
from torchnn.training import BinaryClassifier, TabularDataModule
from torchnn.training.data import split_by_class
from torchnn.training.defaults import EARLY_STOPPING, MAX_EPOCHS, batch_size_for

from .datasets import Dataset
from .encode import encode


class EncodedTable(TabularDataModule):
    """A table that was encoded outside, whose standardisation leaves indicators as they are."""

    is_indicator: Tensor

    @property
    def train_features(self) -> Tensor:
        """The training rows to fit a standardisation on, where each indicator has mean 0 and deviation 1."""
        features = super().train_features
        even = features[: len(features) - len(features) % 2].clone()
        even[:, self.is_indicator] = torch.tensor([-1.0, 1.0]).repeat(len(even) // 2).unsqueeze(1)
        return even


def data_module(dataset: Dataset, train: np.ndarray, test: np.ndarray, seed: int) -> TabularDataModule:
    """The data of one run: `train` is divided into training and validation rows, `test` is held out.

    All that stands between a raw table and the library; what it does is what the library's own reading of tables does.
    """
    data, encoded = EncodedTable(seed=seed), encode(dataset.columns, train)
    names = tuple(f"x{i}" for i in range(encoded.values.shape[1]))
    target = torch.from_numpy(dataset.labels).float()
    data.table = Table(torch.from_numpy(encoded.values), target, names, ("0", "1"))
    data.is_indicator = torch.from_numpy(encoded.is_indicator)
    fraction = data.hparams["val_fraction"]
    rows = torch.from_numpy(train)
    parts = split_by_class(target[rows], fraction / 2, fraction / 2, seed)  # no further rows are held out
    val = torch.cat([parts["val"], parts["test"]])
    data.rows = {"train": rows[parts["train"]], "val": rows[val], "test": torch.from_numpy(test)}
    data.batch_size = batch_size_for(len(data.rows["train"]))
    return data


def probabilities(dataset: Dataset, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Probability of class 1 of the held-out rows, from the weights that were best on validation."""
    pl.seed_everything(seed, verbose=False)
    data = data_module(dataset, train, test, seed)
    model = BinaryClassifier(data.num_features)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
        best = ModelCheckpoint(folder, monitor=EARLY_STOPPING["monitor"])
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=MAX_EPOCHS,
            callbacks=[EarlyStopping(**EARLY_STOPPING), best],
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=Path(folder),
        )
        trainer.fit(model, data)
        batches: Any = trainer.predict(model, data, ckpt_path=best.best_model_path, weights_only=True)
    return torch.cat([batch["probability"] for batch in batches]).double().numpy()
