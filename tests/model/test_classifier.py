"""The classifier: its steps, its metrics, its optimisers and schedules."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss, roc_auc_score
from torch import Tensor

from tests.reference import sequential
from tests.runs.helpers import trainer
from torchnn.training import BinaryClassifier, TabularDataModule


def test_training_fits_the_standardisation_on_training_rows_only_and_keeps_it(tmp_path: Path) -> None:
    data, model = TabularDataModule(), BinaryClassifier(30)
    trainer(tmp_path, max_epochs=1).fit(model, data)
    train = data.table.features[data.rows["train"]].double()
    torch.testing.assert_close(model.preprocess.mean, train.mean(0).float())
    torch.testing.assert_close(model.preprocess.scale, train.std(0, correction=0).float())
    raw = data.table.features[:3]
    by_hand = model.network((raw - train.mean(0).float()) / train.std(0, correction=0).float())
    torch.testing.assert_close(model(raw), by_hand)


def test_the_metrics_are_those_of_scikit_learn(tmp_path: Path) -> None:
    data, model = TabularDataModule(), BinaryClassifier(30, pos_weight=3.0)
    run = trainer(tmp_path, max_epochs=2)
    run.fit(model, data)
    (ours,) = run.test(model, data, verbose=False)
    rows = data.rows["test"]
    y = data.table.target[rows].numpy()
    with torch.no_grad():
        probability = model.cpu().eval()(data.table.features[rows]).squeeze(-1).double().numpy()
    label = probability >= 0.5
    expected = {
        "test_accuracy": accuracy_score(y, label),
        "test_auroc": roc_auc_score(y, probability),
        "test_average_precision": average_precision_score(y, probability),
        "test_f1": f1_score(y, label),
        "test_log_loss": log_loss(y, probability),
    }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-5), name
    weighted = -(
        3 * y * torch.log(torch.from_numpy(probability)).numpy()
        + (1 - y) * torch.log1p(-torch.from_numpy(probability)).numpy()
    )
    assert ours["test_loss"] == pytest.approx(weighted.mean(), rel=1e-5)


def test_a_training_step_has_the_loss_and_the_gradients_of_autograd() -> None:
    data, model = TabularDataModule(), BinaryClassifier(30, hidden_sizes=[8])
    model.preprocess.fit(data.training_features())
    model.double()
    reference = sequential([30, 8, 1]).double()
    with torch.no_grad():
        for a, b in zip(reference.parameters(), model.network.parameters(), strict=True):
            a.data.copy_(b)
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    batch = next(iter(data.train_dataloader()))
    loss = model.training_step(batch._replace(features=batch.features.double(), target=batch.target.double()), 0)
    x = model.preprocess(batch.features.double())
    expected = torch.nn.BCELoss()(reference(x), batch.target.double().unsqueeze(1))
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(loss, list(model.network.parameters()))
    torch.testing.assert_close(ours, torch.autograd.grad(expected, list(reference.parameters())), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_sizes": [0]}, r"hidden_sizes\[0\] is 0"),
        ({"hidden_sizes": [4, -3]}, r"hidden_sizes\[1\] is -3"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"pos_weight": 0.0}, "pos_weight is 0.0"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"activation": "softmax"}, "activation is 'softmax'"),
        ({"output_activation": "tanh"}, "output_activation is tanh"),
        ({"loss": "mse", "pos_weight": 2.0}, "pos_weight belongs to binary_cross_entropy"),
        ({"bias": "none"}, "bias is 'none'"),
        ({"initialisation": "zeros"}, "initialisation is 'zeros'"),
        ({"optimizer": "Adamm"}, "optimizer is 'Adamm'"),
        ({"optimizer_args": {"momentum": 1}}, "optimizer_args does not fit AdamW"),
        ({"optimizer": "LBFGS", "weight_decay": 0.1}, "LBFGS has no weight decay"),
        ({"lr_scheduler": "Cosine"}, "lr_scheduler is 'Cosine'"),
        ({"lr_scheduler": "StepLR"}, "lr_scheduler_args does not fit StepLR"),
    ],
)
def test_a_wrong_hyperparameter_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BinaryClassifier(3, **arguments)


@pytest.mark.parametrize(("name", "batch_size"), [("SGD", 16), ("LBFGS", 397), ("Adagrad", 16), ("RMSprop", 16)])
def test_other_optimisers_train(name: str, batch_size: int, tmp_path: Path) -> None:
    model = BinaryClassifier(30, optimizer=name, lr=0.05, weight_decay=0.0)
    run = trainer(tmp_path, max_epochs=2)
    run.fit(model, TabularDataModule(batch_size=batch_size))
    assert run.callback_metrics["val_loss"] < 0.69


@pytest.mark.parametrize(
    "schedule",
    [
        {"lr_scheduler": "StepLR", "lr_scheduler_args": {"step_size": 1, "gamma": 0.5}},
        {"lr_scheduler": "ReduceLROnPlateau", "lr_scheduler_args": {"mode": "max", "patience": 0, "factor": 0.5}},
        {"lr_scheduler": "ExponentialLR", "lr_scheduler_args": {"gamma": 0.9}, "lr_scheduler_interval": "step"},
    ],
)
def test_schedules_lower_the_rate(schedule: dict[str, Any], tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=3)
    run.fit(BinaryClassifier(30, lr=0.01, **schedule), TabularDataModule())
    assert run.optimizers[0].param_groups[0]["lr"] < 0.009


class Pairs:
    """A loader of another kind: pairs of features and target, 32 rows at a time."""

    def __init__(self, features: Tensor, target: Tensor) -> None:
        self.pairs = list(zip(features.split(32), target.split(32), strict=True))

    def __iter__(self) -> Any:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


def test_loaders_of_pairs_train_and_warn_that_nothing_is_standardised(tmp_path: Path) -> None:
    data, model = TabularDataModule(), BinaryClassifier(30)
    features, target = next(data.training_features()), data.table.target[data.rows["train"]]
    loader = Pairs(features, target)
    with pytest.warns(UserWarning, match="nothing is standardised"):
        trainer(tmp_path, max_epochs=1).fit(model, loader, loader)
    model = BinaryClassifier(30)
    model.preprocess.fit(features)
    run = trainer(tmp_path, max_epochs=3)
    run.fit(model, loader, loader)
    assert run.callback_metrics["val_auroc"] > 0.98


def test_predictions_have_row_probability_and_label() -> None:
    data, model = TabularDataModule(), BinaryClassifier(30, threshold=0.7)
    batch = next(iter(data.predict_dataloader()))
    prediction: dict[str, Tensor] = model.predict_step(batch, 0)
    assert torch.equal(prediction["row"], data.rows["test"])
    assert torch.equal(prediction["label"].bool(), prediction["probability"] >= 0.7)
