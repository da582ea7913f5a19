"""The classifier, its data and its callbacks, without the command line."""

import math
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from tests.reference import sequential
from torchnn.training import BinaryClassifier, TabularDataModule
from torchnn.training.batches import BatchLoader
from torchnn.training.callbacks import StopOnNaN, TrainingDivergedError
from torchnn.training.checkpoints import CheckpointError, find_checkpoint, read_checkpoint
from torchnn.training.data import split_by_class
from torchnn.training.standardise import Standardise
from torchnn.training.tables import Table


def table(num_rows: int) -> Table:
    features = torch.arange(2.0 * num_rows).view(num_rows, 2)
    return Table(features, (torch.arange(num_rows) % 3 == 0).float(), ("a", "b"), ("no", "yes"))


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "accelerator": "cpu",
    }
    options.setdefault("enable_checkpointing", False)
    return pl.Trainer(default_root_dir=folder, num_sanity_val_steps=0, log_every_n_steps=1, **quiet, **options)


def test_the_split_is_stratified_disjoint_and_repeatable() -> None:
    data = TabularDataModule()
    parts = data.rows.values()
    assert torch.equal(torch.cat(list(parts)).sort().values, torch.arange(569))
    for part in parts:
        assert data.table.target[part].mean().item() == pytest.approx(0.627, abs=0.01)
    again, other = TabularDataModule(), TabularDataModule(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(parts, again.rows.values(), strict=True))
    assert not torch.equal(data.rows["test"], other.rows["test"])


def test_the_fractions_are_those_asked_for() -> None:
    rows = split_by_class(torch.arange(1000) % 2, val_fraction=0.2, test_fraction=0.1, seed=0)
    assert {name: len(part) for name, part in rows.items()} == {"train": 700, "val": 200, "test": 100}


def test_standardisation_equals_scikit_learns_and_survives_a_constant_column() -> None:
    features = torch.randn(50, 3) * torch.tensor([1.0, 1e4, 0.0]) + torch.tensor([0.0, 1e6, 5.0])
    standardise = Standardise(3)
    standardise.fit(features)
    expected = torch.from_numpy(StandardScaler().fit_transform(features.double().numpy())).float()
    torch.testing.assert_close(standardise(features), expected, rtol=1e-4, atol=1e-4)
    assert not standardise(features)[:, 2].any()


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_ranks_in_order_see_every_row_once(num_ranks: int) -> None:
    rows = torch.arange(10, 21)
    loaders = [BatchLoader(table(30), rows, 4, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    assert torch.equal(torch.cat([b.row for loader in loaders for b in loader]).sort().values, rows)
    assert [len(loader) for loader in loaders] == [len(list(loader)) for loader in loaders]


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_shuffling_differs_by_epoch_and_ranks_stay_in_step(num_ranks: int) -> None:
    rows = torch.arange(10, 21)
    loaders = [BatchLoader(table(30), rows, 4, 7, rank, num_ranks) for rank in range(num_ranks)]
    epochs = []
    for epoch in range(3):
        for loader in loaders:
            loader.set_epoch(epoch)
        seen = [torch.cat([b.row for b in loader]) for loader in loaders]
        assert len({len(list(loader)) for loader in loaders} | {len(loader) for loader in loaders}) == 1
        assert len({len(part) for part in seen}) == 1
        together = torch.cat(seen)
        assert len(together.unique()) == len(together) == 11 - 11 % num_ranks
        epochs.append(together.tolist())
    assert len({tuple(order) for order in epochs}) == 3
    loaders[0].set_epoch(2)
    assert torch.cat([b.row for b in loaders[0]]).tolist() == epochs[2][: len(epochs[2]) // num_ranks]


def test_a_batch_holds_the_rows_it_names() -> None:
    for batch in BatchLoader(table(30), torch.arange(30), 8, shuffle_seed=0):
        assert torch.equal(batch.features[:, 0], 2.0 * batch.row)
        assert torch.equal(batch.target, (batch.row % 3 == 0).float())


def test_training_fits_the_standardisation_on_training_rows_only_and_keeps_it(tmp_path: Path) -> None:
    data, model = TabularDataModule(), BinaryClassifier(30)
    trainer(tmp_path, max_epochs=1).fit(model, data)
    train = data.table.features[data.rows["train"]].double()
    torch.testing.assert_close(model.standardise.mean, train.mean(0).float())
    torch.testing.assert_close(model.standardise.scale, train.std(0, correction=0).float())
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


def test_a_step_of_the_classifier_is_a_step_of_autograd() -> None:
    data, model = TabularDataModule(), BinaryClassifier(30, hidden_sizes=[8])
    model.standardise.fit(data.train_features)
    model.double()
    twin = sequential([30, 8, 1]).double()
    with torch.no_grad():
        for a, b in zip(twin.parameters(), model.network.parameters(), strict=True):
            a.data.copy_(b)
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    batch = next(iter(data.train_dataloader()))
    loss = model.training_step(batch._replace(features=batch.features.double(), target=batch.target.double()), 0)
    x = model.standardise(batch.features.double())
    expected = torch.nn.BCELoss()(twin(x), batch.target.double().unsqueeze(1))
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(loss, list(model.network.parameters()))
    torch.testing.assert_close(ours, torch.autograd.grad(expected, list(twin.parameters())), rtol=1e-9, atol=1e-12)


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
        ({"optimizer": "LBFGS", "weight_decay": 0.1}, "LBFGS has none"),
        ({"lr_scheduler": "Cosine"}, "lr_scheduler is 'Cosine'"),
        ({"lr_scheduler": "StepLR"}, "lr_scheduler_args does not fit StepLR"),
    ],
)
def test_a_wrong_hyper_parameter_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BinaryClassifier(3, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "iris"}, "dataset is 'iris'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "nothing is left"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_wrong_data_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TabularDataModule(**arguments)


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


class BadFeatures(pl.Callback):
    """From epoch 1 on, a training row holds a value that is no number."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.current_epoch == 1:
            data.table.features[data.rows["train"][:1]] = torch.nan


class HugeRate(pl.Callback):
    """From epoch 1 on, the learning rate is far too high."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            trainer.optimizers[0].param_groups[0]["lr"] = 1e38


@pytest.mark.parametrize(
    ("fault", "cause"), [(HugeRate, "learning rate 1e.38 is probably too high"), (BadFeatures, "features hold values")]
)
def test_a_loss_that_is_no_number_stops_before_a_checkpoint_is_overwritten(
    fault: type[pl.Callback], cause: str, tmp_path: Path
) -> None:
    saver = ModelCheckpoint(tmp_path, filename="last", enable_version_counter=False)
    model, callbacks = BinaryClassifier(30, optimizer="SGD"), [fault(), StopOnNaN(), saver]
    run = trainer(tmp_path, max_epochs=3, enable_checkpointing=True, callbacks=callbacks)
    with pytest.raises(
        TrainingDivergedError, match=rf"in epoch 1: .*{cause}.*; the last good checkpoint is .*last.ckpt"
    ):
        run.fit(model, TabularDataModule())
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    assert all(bool(torch.isfinite(value).all()) for value in kept["state_dict"].values())


def test_a_checkpoint_is_plain_and_predicts_raw_numbers(tmp_path: Path) -> None:
    data, model = TabularDataModule(), BinaryClassifier(30, hidden_sizes=[5, 4], activation=["tanh", "relu"])
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, data)
    path = tmp_path / "model.ckpt"
    run.save_checkpoint(path)
    torch.load(path, weights_only=True)
    assert read_checkpoint(path)["hyper_parameters"]["hidden_sizes"] == [5, 4]
    loaded = BinaryClassifier.load_from_checkpoint(path, weights_only=True).eval()
    raw = data.table.features[:7]
    torch.testing.assert_close(loaded(raw), model.eval()(raw))


class Payload:
    """Runs code when unpickled, which must never happen."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_checkpoint_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": Payload(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="holds code or classes"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "no hyper-parameters"),
        ([1], "no hyper-parameters"),
        ({"state_dict": {}, "hyper_parameters": {"in_features": 3}}, "Missing key"),
        ({"state_dict": {}, "hyper_parameters": {"in_features": 3, "depth": 2}}, "unexpected keyword argument 'depth'"),
        ({"state_dict": {}, "hyper_parameters": {"in_features": 3, "optimizer": "os.system"}}, "optimizer is"),
        ({"state_dict": {}, "hyper_parameters": 3}, "BinaryClassifier"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "odd.ckpt")


def test_every_truncation_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.ckpt"
    model = BinaryClassifier(3)
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": {"in_features": 3}}, whole)
    content = whole.read_bytes()
    read_checkpoint(whole)
    for kept in [0, 1, 10, *range(100, len(content) - 1, len(content) // 20)]:
        (tmp_path / "cut.ckpt").write_bytes(content[:kept])
        with pytest.raises(CheckpointError, match=r"cut\.ckpt"):
            read_checkpoint(tmp_path / "cut.ckpt")


def test_best_is_the_best_of_the_newest_run_and_not_its_newest_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has a checkpoint: train with torchnn fit"):
        find_checkpoint("last", tmp_path)
    for version in (0, 1):
        folder = tmp_path / f"lightning_logs/version_{version}/checkpoints"
        folder.mkdir(parents=True)
        for name in ("best-epoch=1.ckpt", "best-epoch=2.ckpt"):
            (folder / name).touch()
        states = {
            "best": {"best_model_path": "elsewhere/best-epoch=1.ckpt"},
            "last": {"best_model_path": "x/last.ckpt"},
        }
        torch.save({"callbacks": states | {"stop": {"wait": 1}}}, folder / "last.ckpt")
        os.utime(folder / "last.ckpt", (version, version))
    assert find_checkpoint("last", tmp_path).parts[-3:] == ("version_1", "checkpoints", "last.ckpt")
    assert find_checkpoint("best", tmp_path).parts[-3:] == ("version_1", "checkpoints", "best-epoch=1.ckpt")


def test_more_ranks_than_rows_leave_the_others_without_a_batch() -> None:
    loaders = [BatchLoader(table(3), torch.arange(2), 4, rank=rank, num_ranks=3) for rank in range(3)]
    assert [len(list(loader)) for loader in loaders] == [len(loader) for loader in loaders] == [1, 1, 0]


class Pairs:
    """Somebody's own loader: features and target, 32 rows at a time."""

    def __init__(self, features: Tensor, target: Tensor) -> None:
        self.pairs = list(zip(features.split(32), target.split(32), strict=True))

    def __iter__(self) -> Any:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


def test_loaders_of_pairs_train_and_say_that_nothing_is_standardised(tmp_path: Path) -> None:
    data, model = TabularDataModule(), BinaryClassifier(30)
    features, target = data.train_features, data.table.target[data.rows["train"]]
    loader = Pairs(features, target)
    with pytest.warns(UserWarning, match="nothing is standardised"):
        trainer(tmp_path, max_epochs=1).fit(model, loader, loader)
    model = BinaryClassifier(30)
    model.standardise.fit(features)
    run = trainer(tmp_path, max_epochs=3)
    run.fit(model, loader, loader)
    assert run.callback_metrics["val_auroc"] > 0.98


def test_predictions_have_row_probability_and_label() -> None:
    data, model = TabularDataModule(), BinaryClassifier(30, threshold=0.7)
    batch = next(iter(data.predict_dataloader()))
    prediction: dict[str, Tensor] = model.predict_step(batch, 0)
    assert torch.equal(prediction["row"], data.rows["test"])
    assert torch.equal(prediction["label"].bool(), prediction["probability"] >= 0.7)
