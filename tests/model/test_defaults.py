"""The default settings: the decay, the schedule, the batch size, and what they reach."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from scipy.special import expit
from sklearn.datasets import make_circles
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from tests.runs.helpers import table, trainer
from torchnn.data.batches import BatchLoader, batch_size_for
from torchnn.model.defaults import BEST_CHECKPOINT, EARLY_STOPPING, MAX_EPOCHS
from torchnn.training import BinaryClassifier, TabularDataModule


class WithoutLength:
    """A loader without `__len__`."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


def param_group(run: Any) -> dict[str, Any]:
    found: dict[str, Any] = run.optimizers[0].param_groups[0]
    return found


@pytest.mark.parametrize(
    ("model", "options", "decay"),
    [
        ({}, {}, 2 / 25),
        ({}, {"accumulate_grad_batches": 2}, 2 / 13),
        ({}, {"limit_train_batches": 5}, 2 / 5),
        ({"weight_decay": 0.3}, {}, 0.3),
        ({"optimizer": "SGD"}, {}, 0.0),
        ({"optimizer": "LBFGS", "hidden_sizes": [4]}, {"limit_train_batches": 2}, None),  # it has no weight decay
    ],
)
def test_the_decay_follows_the_steps_of_an_epoch(
    model: dict[str, Any], options: dict[str, Any], decay: float | None, tmp_path: Path
) -> None:
    run = trainer(tmp_path, max_epochs=1, **options)
    run.fit(BinaryClassifier(30, **model), TabularDataModule(batch_size=16))  # 397 rows: 25 steps
    assert param_group(run).get("weight_decay") == (None if decay is None else pytest.approx(decay))


def test_a_loader_without_a_length_gets_the_decay_of_torch(tmp_path: Path) -> None:
    loader = BatchLoader(table(8), torch.arange(8), batch_size=4)
    model = BinaryClassifier(2)
    model.preprocess.fit(loader.table.features)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, WithoutLength(loader), loader)
    assert param_group(run)["weight_decay"] == 0.01


@pytest.mark.parametrize(
    ("options", "epochs"), [({}, 13), ({"limit_val_batches": 0}, 13), ({"check_val_every_n_epoch": 2}, 25)]
)
def test_a_loss_that_stops_falling_halves_the_rate(options: dict[str, Any], epochs: int, tmp_path: Path) -> None:
    model = BinaryClassifier(30, lr=1e-30)  # the first validation sets the best loss, 11 more do not improve it
    run = trainer(tmp_path, max_epochs=epochs, **options)
    run.fit(model, TabularDataModule(batch_size=397))
    assert param_group(run)["lr"] == pytest.approx(0.5e-30)


def test_another_schedule_gets_no_arguments_of_the_default_one(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=1)
    run.fit(BinaryClassifier(30, lr_scheduler="LinearLR"), TabularDataModule())
    assert param_group(run)["lr"] == pytest.approx(0.02 / 3 + (0.02 - 0.02 / 3) / 5)


def test_the_batch_grows_with_the_rows() -> None:
    sizes = [batch_size_for(rows) for rows in (0, 1, 4_500, 4_600, 91_000, 10**9)]
    assert sizes == [32, 32, 32, 64, 1024, 1024]
    assert TabularDataModule().batch_size == 32
    assert TabularDataModule(batch_size=7).batch_size == 7


def data_of(x: np.ndarray, y: np.ndarray) -> TabularDataModule:
    table: Any = {"y": y.astype(int), **{f"x{i}": column for i, column in enumerate(x.T)}}
    return TabularDataModule(table, "y")


def held_out_auroc(data: TabularDataModule, folder: Path, max_epochs: int = MAX_EPOCHS) -> tuple[float, float]:
    """Of torchnn with its defaults, and of logistic regression on training and validation rows together."""
    best = ModelCheckpoint(folder, **BEST_CHECKPOINT)
    callbacks = [EarlyStopping(**EARLY_STOPPING), best]
    run = trainer(folder, max_epochs=max_epochs, callbacks=callbacks, enable_checkpointing=True)
    torch.manual_seed(0)
    model = BinaryClassifier(data.num_features)
    run.fit(model, data)
    (ours,) = run.test(model, data, ckpt_path=best.best_model_path, verbose=False, weights_only=True)
    rest, test = torch.cat([data.rows["train"], data.rows["val"]]), data.rows["test"]
    scaler = StandardScaler().fit(data.table.features[rest])
    x, y = data.table.features, data.table.target
    linear = LogisticRegression().fit(scaler.transform(x[rest]), y[rest])
    return ours["test_auroc"], roc_auc_score(y[test], linear.decision_function(scaler.transform(x[test])))


def test_a_linear_problem_is_learned_as_well_as_by_logistic_regression(tmp_path: Path) -> None:
    """Tanh in the place of sigmoid overfits these rows, and is .010 below logistic regression."""
    random = np.random.default_rng(2)
    x = random.normal(size=(300, 5))
    y = random.random(300) < expit(x @ [0.5, 1, 1.5, 2, 2.5])
    ours, linear = held_out_auroc(data_of(x, y), tmp_path)
    assert 0.85 < linear < 0.95
    assert ours >= linear - 0.003


def test_a_problem_that_needs_a_network_gets_one(tmp_path: Path) -> None:
    data = data_of(*make_circles(200, noise=0.1, factor=0.5, random_state=0))
    ours, linear = held_out_auroc(data, tmp_path, max_epochs=60)
    assert linear < 0.7
    assert ours > 0.98
