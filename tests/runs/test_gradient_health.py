"""`GradientHealth` measures what explain measures, at the right steps, without changing the training."""

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from tests.runs.helpers import trainer
from torchnn.cli import main
from torchnn.explain import trace
from torchnn.explain.measures import saturated_share
from torchnn.runs.gradient_health import layers_of_untouched, measure
from torchnn.training import BinaryClassifier, GradientHealth, TabularDataModule


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fit(folder: Path, *callbacks: pl.Callback, **options: Any) -> BinaryClassifier:
    torch.manual_seed(0)
    model = BinaryClassifier(30, hidden_sizes=[6, 4], activation=["tanh", "relu"])
    trainer(folder, max_epochs=2, callbacks=list(callbacks), **options).fit(model, TabularDataModule())
    return model


def test_it_measures_every_n_steps_into_the_logger_and_a_picture(tmp_path: Path) -> None:
    health, logger = GradientHealth(every_n_steps=5), CSVLogger(tmp_path, name="runs")
    torch.manual_seed(0)
    model = BinaryClassifier(30, hidden_sizes=[6, 4], activation=["tanh", "relu"])
    run = trainer(tmp_path, max_epochs=2, callbacks=[health])
    run.loggers = [logger]
    run.fit(model, TabularDataModule())
    folder = Path(logger.log_dir)
    steps = [int(row["step"]) for row in rows_of(folder / "metrics.csv") if row["gradient_norm/layer_1"]]
    assert steps == [0, 5, 10, 15, 20, 25]  # two epochs of 13 batches
    assert set(health.history) == {
        *(f"gradient_{kind}/layer_{layer}" for kind in ("norm", "ratio") for layer in (1, 2, 3)),
        *("saturated/layer_1", "dead/layer_2", "saturated/layer_3", "lost_errors"),
    }
    assert (folder / "gradient_health.png").stat().st_size > 10_000
    assert not model.network._forward_pre_hooks


def test_the_numbers_are_those_of_explain() -> None:
    torch.manual_seed(0)
    model = BinaryClassifier(3, hidden_sizes=[4]).double()
    x, y = torch.randn(9, 3, dtype=torch.float64) * 8, (torch.arange(9.0).double() % 2).unsqueeze(-1)
    model.network(x, y).backward()
    found = measure(layers_of_untouched(model.network), x, y)
    report = trace(model.network, x, y)
    for number, layer in enumerate(report.layers, 1):
        norm = float(layer.grad_weight.by_hand.norm())
        assert found[f"gradient_norm/layer_{number}"] == pytest.approx(norm, rel=1e-6)
        share = float(saturated_share(layer.a, "sigmoid").mean())
        assert found[f"saturated/layer_{number}"] == pytest.approx(share)
        assert 0 < share < 1 or number == 2
    assert found["gradient_ratio/layer_2"] == 1


def test_lost_errors_are_counted() -> None:
    model = BinaryClassifier(1, hidden_sizes=[])
    with torch.no_grad():
        next(model.network.parameters()).fill_(30.0)
    x, y = torch.ones(4, 1), torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    assert measure(layers_of_untouched(model.network), x, y)["lost_errors"] == 0.5


class Trained(pl.LightningModule):
    """A module of a user, with a Sequential that is not called `network`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.dropout = nn.Dropout()
        self.body = nn.Sequential(*layers)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z = self.body(batch.features)
        return torch.nn.functional.binary_cross_entropy_with_logits(z.squeeze(-1), batch.target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-9)


def test_it_finds_the_network_of_another_module(tmp_path: Path) -> None:
    health = GradientHealth(every_n_steps=4)
    model = Trained(nn.Linear(30, 4), nn.ReLU(), nn.Linear(4, 1))
    trainer(tmp_path, max_steps=8, callbacks=[health]).fit(model, TabularDataModule().train_dataloader())
    assert {len(points) for points in health.history.values()} == {2}
    assert "lost_errors" not in health.history  # the network does not know its loss


def test_a_module_without_a_network_is_refused_before_anything_trains(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="GradientHealth finds no network in Trained"):
        trainer(tmp_path, max_steps=1, callbacks=[GradientHealth()]).fit(
            Trained(nn.Linear(30, 1), nn.GELU()), TabularDataModule().train_dataloader()
        )


def test_training_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    watched = fit(tmp_path, GradientHealth(every_n_steps=1)).state_dict()
    alone = fit(tmp_path).state_dict()
    assert all(torch.equal(watched[name], alone[name]) for name in alone)


def test_it_is_switched_on_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    callback = ["--trainer.callbacks+=torchnn.training.GradientHealth", "--trainer.callbacks.every_n_steps", "3"]
    main(["fit", "--trainer.max_epochs", "1", *callback])
    folder = tmp_path / "lightning_logs" / "version_0"
    steps = [row["step"] for row in rows_of(folder / "metrics.csv") if row["gradient_ratio/layer_1"]]
    assert steps == ["0", "3", "6", "9", "12"]
    assert (folder / "gradient_health.png").is_file()


def test_it_measures_once_for_accumulated_gradients(tmp_path: Path) -> None:
    health = GradientHealth(every_n_steps=2)
    fit(tmp_path, health, accumulate_grad_batches=4)
    steps = [step for step, _ in health.history["gradient_norm/layer_1"]]
    assert steps == sorted(set(steps))
    assert all(step % 2 == 0 for step in steps)


def test_a_resumed_run_keeps_what_was_measured() -> None:
    health = GradientHealth()
    health.history = {"gradient_norm/layer_1": [(0, 1.0)]}
    other = GradientHealth()
    other.load_state_dict(health.state_dict())
    assert other.history == health.history


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="every_n_steps is 0"):
        GradientHealth(every_n_steps=0)
