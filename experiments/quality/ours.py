"""torchnn with its defaults, through each of its two entry points: `torchnn fit` and the scikit-learn estimator."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from experiments.common import training
from experiments.common.datasets import Dataset
from torchnn.model.defaults import BEST_CHECKPOINT, EARLY_STOPPING, TRAINER
from torchnn.sklearn import TorchnnClassifier
from torchnn.training import BinaryClassifier, TabularDataModule


def data_module(dataset: Dataset, train: np.ndarray, test: np.ndarray, seed: int) -> TabularDataModule:
    """The data of one run: `train` is divided into training and validation rows, `test` is held out."""
    return training.data_module(dataset, dataset.table.take(train), test_path=dataset.table.take(test), seed=seed)


def fit_probabilities(dataset: Dataset, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Probability of class 1 of the held-out rows, from what `torchnn fit` builds: data module, classifier, trainer."""
    pl.seed_everything(seed, verbose=False)
    data = data_module(dataset, train, test, seed)
    model = BinaryClassifier(data.num_features, schema=data.plain_schema)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
        best = ModelCheckpoint(folder, **BEST_CHECKPOINT)
        trainer = pl.Trainer(
            **TRAINER,
            accelerator="cpu",
            callbacks=[EarlyStopping(**EARLY_STOPPING), best],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=Path(folder),
        )
        trainer.fit(model, data)
        batches: Any = trainer.predict(model, data, ckpt_path=best.best_model_path, weights_only=True)
    return torch.cat([batch["probability"] for batch in batches]).double().numpy()


def estimator_probabilities(dataset: Dataset, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Probability of class 1 of the held-out rows, from `TorchnnClassifier`."""
    classifier = TorchnnClassifier(accelerator="cpu", random_state=seed)
    classifier.fit(dataset.columns.take(train), dataset.labels[train])
    return classifier.predict_proba(dataset.columns.take(test))[:, 1]


# The names of the entry points in tables and files.
ENTRY_POINTS = {"torchnn fit": fit_probabilities, "torchnn.sklearn": estimator_probabilities}
