"""torchnn with its defaults, as its user trains: data module, classifier, trainer, best weights."""

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
from torchnn.model.defaults import EARLY_STOPPING, MAX_EPOCHS
from torchnn.training import BinaryClassifier, TabularDataModule


def data_module(dataset: Dataset, train: np.ndarray, test: np.ndarray, seed: int) -> TabularDataModule:
    """The data of one run: `train` is divided into training and validation rows, `test` is held out."""
    return training.data_module(dataset, dataset.table.take(train), test_path=dataset.table.take(test), seed=seed)


def probabilities(dataset: Dataset, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Probability of class 1 of the held-out rows, from the weights that were best on validation."""
    pl.seed_everything(seed, verbose=False)
    data = data_module(dataset, train, test, seed)
    model = BinaryClassifier(data.num_features, schema=data.plain_schema)
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
