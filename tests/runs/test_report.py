"""The report of a test: scikit-learn gives the same numbers, and the pictures are not empty."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from sklearn.inspection import permutation_importance as of_scikit_learn
from sklearn.metrics import confusion_matrix, roc_auc_score

from tests.data.tables import mixed_data, mixed_model
from torchnn.runs.importance import permutation_importance, slots_by_column
from torchnn.runs.report import TestReport

PICTURES = ("roc", "precision_recall", "reliability", "threshold", "confusion", "importance")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("run")
    model = mixed_model(folder, threshold="recall", min_recall=0.8)
    logger = CSVLogger(folder, name="logs")
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    pl.Trainer(logger=logger, callbacks=[TestReport()], **quiet).test(model, mixed_data(), verbose=False)
    return model.cpu().eval(), Path(logger.log_dir)


def held_out(model: Any) -> tuple[np.ndarray, np.ndarray]:
    data = mixed_data()
    rows = data.rows["test"]
    with torch.no_grad():
        probability = model(data.table.features[rows]).flatten().numpy()
    return probability, data.table.target[rows].numpy()


def test_the_numbers_are_those_of_scikit_learn(run: tuple[Any, Path]) -> None:
    model, folder = run
    report = json.loads((folder / "test.json").read_text())
    probability, target = held_out(model)
    assert report["rows"] == len(target)
    assert report["metrics"]["auroc"] == pytest.approx(roc_auc_score(target, probability), abs=1e-6)
    expected = confusion_matrix(target, probability >= model.threshold)
    assert next(iter(report["confusion"].values())) == expected.tolist()
    assert report["threshold"] == pytest.approx(model.threshold)
    assert report["classes"] == ["no", "yes"]


def test_no_picture_is_empty(run: tuple[Any, Path]) -> None:
    _, folder = run
    for name in PICTURES:
        picture = Image.open(folder / f"{name}.png").convert("RGB")
        assert picture.width == 750
        colours = picture.getcolors(maxcolors=1 << 20)
        assert colours is not None
        assert len(colours) > 50, f"{name} is an empty picture"


def test_importance_is_that_of_scikit_learn(run: tuple[Any, Path]) -> None:
    """The shuffles differ, so the results agree within their spread; a time is one column with several slots."""
    model, _ = run
    data = mixed_data()
    features, label = data.table.features, data.table.target.int()
    ours = {one.column: one for one in permutation_importance(model, features, label)}
    assert list(ours) == sorted(ours, key=lambda name: -ours[name].mean)
    assert set(ours) == {"hours", "job", "member", "since"}
    assert len(slots_by_column(model, features.shape[1])["since"]) > 1

    class Estimator:
        classes_ = np.array([0, 1])

        def fit(self, X: Any, y: Any) -> None: ...

        def predict_proba(self, X: Any) -> np.ndarray:
            positive = model(torch.from_numpy(np.asarray(X))).detach().double().flatten().numpy()
            return np.stack([1 - positive, positive], axis=1)

    def score(estimator: Estimator, X: Any, y: Any) -> float:
        return float(roc_auc_score(y, estimator.predict_proba(X)[:, 1]))

    theirs = of_scikit_learn(Estimator(), features.numpy(), label.numpy(), scoring=score, n_repeats=5, random_state=0)
    for slot, name in enumerate(data.table.columns):
        if name in ours:
            assert ours[name].mean == pytest.approx(theirs.importances_mean[slot], abs=0.03)
    assert ours["hours"].mean > 0.1 > abs(ours["member"].mean)
