"""What validation chooses (threshold, temperature) and the weights of rows, against brute force, scipy and numpy."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit

from tests.runs.helpers import trainer
from tests.tables.helpers import good, lines, read, text, write
from torchnn.data.batches import Batch
from torchnn.model.decisions import ThresholdRule, best_temperature, best_threshold
from torchnn.model.metrics import MeanLoss
from torchnn.training import BinaryClassifier


def merit(rule: str, called: np.ndarray, y: np.ndarray, w: np.ndarray, cost: float, recall: float, t: float) -> float:
    hits, alarms, missed = (w * y)[called].sum(), (w * (1 - y))[called].sum(), (w * y)[~called].sum()
    if rule == "f1":
        return float(2 * hits / (2 * hits + alarms + missed))
    if rule == "cost":
        return float(-(cost * missed + alarms))
    return t if hits >= recall * w @ y - 1e-9 else -np.inf


@pytest.mark.parametrize("rule", ["f1", "cost", "recall"])
@pytest.mark.parametrize("seed", range(30))
def test_no_other_threshold_is_better(rule: ThresholdRule, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = int(random.integers(2, 60))
    p = random.random(rows) if seed % 3 else random.integers(0, 6, rows) / 5  # ties, 0 and 1 among them
    y = np.r_[0, 1, random.random(rows - 2) < p[2:]].astype(float)
    w = random.integers(0, 4, rows) + 0.5 if seed % 2 else np.ones(rows)
    cost, recall = float(random.choice([0.2, 1, 5])), float(random.choice([0.5, 0.55, 0.9, 1]))
    rows_of = (torch.from_numpy(p), torch.from_numpy(y), torch.from_numpy(w))
    chosen = best_threshold(rule, *rows_of, cost, recall)
    p = p.astype(np.float32)
    values = [*np.unique(p), 2.0]
    best = max(merit(rule, p >= t, y, w, cost, recall, t) for t in values if rule == "cost" or t < 2)
    called = p >= np.float32(chosen)
    lowest = p[called].min() if called.any() else 2.0
    assert merit(rule, called, y, w, cost, recall, lowest) == pytest.approx(best, abs=1e-12)


def test_the_threshold_separates_neighbouring_float32_probabilities() -> None:
    p = torch.tensor([0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))]).double()
    chosen = best_threshold("f1", p, torch.tensor([0.0, 1.0]).double(), torch.ones(2).double(), 1.0, 0.9)
    assert (p.float() >= torch.tensor(chosen)).tolist() == [False, True]


@pytest.mark.parametrize("seed", range(20))
def test_no_other_temperature_has_a_smaller_loss(seed: int) -> None:
    random = np.random.default_rng(seed)
    z = random.normal(random.normal(), random.choice([0.1, 2, 30]), 80)
    y = (random.random(80) < expit(z * random.choice([0.2, 1, 3]))).astype(float)
    y[:4], z[:4] = [0, 1, 0, 1], [1, -1, -1, 1]
    w = random.random(80) + 0.1

    def loss(log_slope: float) -> float:
        s = z * np.exp(log_slope)
        return float(-(w * (y * log_expit(s) + (1 - y) * log_expit(-s))).sum())

    best = minimize_scalar(loss, bounds=(np.log(1e-3), np.log(1e3)), method="bounded", options={"xatol": 1e-10})
    found = best_temperature(torch.from_numpy(z), torch.from_numpy(y), torch.from_numpy(w))
    assert loss(-np.log(found)) <= best.fun + 1e-9
    assert found == pytest.approx(np.exp(-best.x), rel=1e-4)


def test_the_temperature_is_1_for_separated_classes_and_bounded_for_reversed_ones() -> None:
    z, y = torch.tensor([-2.0, -1.0, 1.0, 3.0]).double(), torch.tensor([0.0, 0.0, 1.0, 1.0]).double()
    assert best_temperature(z, y, torch.ones(4).double()) == 1
    assert best_temperature(z, 1 - y, torch.ones(4).double()) == pytest.approx(1e3, rel=1e-3), "wrong in every row"


def test_a_diverged_run_shows_nan_as_its_loss_and_chooses_no_temperature() -> None:
    """`StopOnNaN` then ends it with a sentence."""
    mean = MeanLoss()
    for loss in (1.0, math.nan, 1.0):
        mean.update(torch.tensor(loss), torch.ones(3, 1))
    assert mean.compute().isnan()
    assert best_temperature(torch.full((2,), math.nan).double(), torch.tensor([0.0, 1.0]), torch.ones(2)) == 1


def test_the_mean_loss_over_uneven_batches_is_that_of_numpy() -> None:
    random = np.random.default_rng(0)
    losses, weights = random.random(10), random.random(10)
    mean = MeanLoss()
    for part in (slice(0, 4), slice(4, 8), slice(8, 10)):
        batch = torch.from_numpy(losses[part] * weights[part]).mean()
        mean.update(batch, torch.from_numpy(weights[part]))
    assert float(mean.compute()) == pytest.approx(np.average(losses, weights=weights), rel=1e-6)


def weighted(tmp_path: Path, **options: Any) -> Any:
    rows = lines(lambda row: f"{row % 4},{row % 23 + 0.5},{good(row)}", "w,z,x,c,y", 400)
    rows = [
        f"{line.rsplit(',', 1)[0]},{int(row % 23 + row % 7 > 19)}" if row else line for row, line in enumerate(rows)
    ]
    return read(write(tmp_path / "t.csv", text(rows)), weight_column="w", **options)


def test_chosen_values_are_in_the_checkpoint_and_used_for_predictions(tmp_path: Path) -> None:
    data = weighted(tmp_path)
    model = BinaryClassifier(
        data.num_features, schema=data.plain_schema, pos_weight="auto", threshold="f1", calibrate=True, lr=0.05
    )
    run = trainer(tmp_path, max_epochs=2)
    run.fit(model, data)
    run.save_checkpoint(tmp_path / "last.ckpt")
    train = data.rows["train"]
    w, y = data.table.weight[train], data.table.target[train]
    assert model.pos_weight is not None
    assert float(model.pos_weight) == pytest.approx(float((w * (1 - y)).sum() / (w * y).sum()), rel=1e-6)
    assert float(model.temperature) != 1
    assert model.threshold != 0.5
    loaded = BinaryClassifier.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).cpu().eval()
    for name in ("pos_weight", "temperature", "chosen_threshold"):
        assert torch.equal(getattr(loaded, name), getattr(model, name)), name
    features = data.table.features
    assert loaded.pos_weight is not None
    with torch.no_grad():
        z = torch.logit(loaded.network(loaded.preprocess(features)).double()) - loaded.pos_weight.double().log()
        expected = torch.sigmoid(z / loaded.temperature.double())
        torch.testing.assert_close(loaded(features).double(), expected, rtol=1e-4, atol=1e-6)
        batch = Batch(row=torch.arange(len(data.table)), features=features, target=data.table.target)
        label = loaded.predict_step(batch, 0)["label"]
    assert label.tolist() == (expected.flatten() >= model.threshold).int().tolist()


def test_the_weighted_validation_loss_is_that_of_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchnn.data.module.EVALUATION_BATCH_SIZE", 17)
    data = weighted(tmp_path)
    model = BinaryClassifier(data.num_features, schema=data.plain_schema, pos_weight=3.0)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, data)
    rows = data.rows["val"]
    assert len(rows) % 17
    with torch.no_grad():
        p = model.cpu().eval()(data.table.features[rows]).flatten().double().numpy()
    y, w = data.table.target[rows].numpy(), data.table.weight[rows].numpy()
    loss = -(3 * y * np.log(p) + (1 - y) * np.log1p(-p))
    assert float(run.callback_metrics["val_loss"]) == pytest.approx(np.average(loss, weights=w), rel=1e-5)
    plain = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    assert float(run.callback_metrics["val_log_loss"]) == pytest.approx(np.average(plain, weights=w), rel=1e-5)


def test_a_row_of_weight_2_counts_as_two_rows_in_the_loss() -> None:
    torch.manual_seed(0)
    model = BinaryClassifier(3, hidden_sizes=[4]).double()
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    x, y, w = torch.randn(9, 3).double(), (torch.arange(9) % 2).double(), torch.tensor([1, 2, 0] * 3).double()
    repeats = w.long()
    row = torch.arange(9)
    loss = model.training_step(Batch(row=row, features=x, target=y, weight=w), 0)
    repeated = Batch(row=row, features=x.repeat_interleave(repeats, 0), target=y.repeat_interleave(repeats))
    twice = model.training_step(repeated, 0)
    torch.testing.assert_close(loss, twice)
    gradients = [torch.autograd.grad(value, list(model.network.parameters())) for value in (loss, twice)]
    torch.testing.assert_close(*gradients)
