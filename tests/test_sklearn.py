"""The estimator under scikit-learn's own checks, and in its pipelines, searches and calibration."""

import inspect
import pickle
from collections import ChainMap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, make_moons
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.data.tables import mixed_columns
from torchnn.cli import main
from torchnn.model.defaults import MAX_EPOCHS, PATIENCE
from torchnn.runs.callbacks import TrainingDivergedError
from torchnn.sklearn import TorchnnClassifier

QUICK: dict[str, Any] = {"hidden_sizes": [16], "lr": 0.1, "max_epochs": 5, "random_state": 0, "accelerator": "cpu"}
# A row of weight 2 falls into one batch, two equal rows may fall into two.
EXPECTED = {"check_sample_weight_equivalence_on_dense_data": "mini-batches: a weight of 2 is not two rows"}


@pytest.mark.slow
@parametrize_with_checks(  # type: ignore[untyped-decorator]  # scikit-learn has no types
    [TorchnnClassifier(max_epochs=30)], expected_failed_checks=lambda estimator: EXPECTED
)
def test_it_passes_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def mixed_frame() -> pd.DataFrame:
    return pd.DataFrame({name: values.to_pandas() for name, values in mixed_columns().items()})


def test_a_dataframe_with_words_gaps_and_times_needs_no_preparation() -> None:
    frame = mixed_frame()
    y = frame.pop("late")
    classifier = TorchnnClassifier(**QUICK).fit(frame[:300], y[:300])
    assert classifier.classes_.tolist() == ["no", "yes"]
    assert (classifier.predict(frame[300:]) == y[300:]).mean() > 0.8
    assert classifier.feature_names_in_.tolist() == list(frame)
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(frame[["job", "hours", "member", "since"]])


def test_pipelines_searches_and_calibration_work() -> None:
    X, y = make_moons(300, noise=0.2, random_state=0)
    pipeline = make_pipeline(StandardScaler(), TorchnnClassifier(**QUICK))
    search = GridSearchCV(pipeline, {"torchnnclassifier__hidden_sizes": [[], [16]]}, cv=2, refit=False).fit(X, y)
    assert search.best_params_ == {"torchnnclassifier__hidden_sizes": [16]}, "moons are not linear"
    assert search.best_score_ > 0.8
    calibrated = CalibratedClassifierCV(pipeline, cv=2).fit(X, y)
    assert calibrated.score(X, y) > 0.8


def test_the_same_seed_gives_the_same_model() -> None:
    X, y = make_moons(100, noise=0.2, random_state=0)
    first, second = (TorchnnClassifier(**QUICK).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = TorchnnClassifier(**{**QUICK, "random_state": 1}).fit(X, y).predict_proba(X)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("mode", ["default", "warn"])
def test_fitting_leaves_the_global_settings_of_torch_alone(mode: str) -> None:
    X, y = make_moons(40, random_state=0)
    before = torch.get_deterministic_debug_mode()
    try:
        torch.set_deterministic_debug_mode(mode)
        own = torch.get_deterministic_debug_mode()
        torch.manual_seed(5)
        expected = torch.rand(1)
        torch.manual_seed(5)
        TorchnnClassifier(**{**QUICK, "max_epochs": 1}).fit(X, y)
        assert torch.equal(torch.rand(1), expected)
        assert torch.get_deterministic_debug_mode() == own
    finally:
        torch.set_deterministic_debug_mode(before)


def test_a_pickled_estimator_predicts_the_same() -> None:
    X, y = make_moons(100, noise=0.2, random_state=0)
    classifier = TorchnnClassifier(**{**QUICK, "max_epochs": 1}).fit(X, y)
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))


def test_rows_of_weight_zero_do_not_train() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    weight = np.ones(len(y))
    weight[:100] = 0
    wrong = y.copy()
    wrong[:100] = 1 - y[:100]
    options = {**QUICK, "batch_size": 128}
    without = TorchnnClassifier(**options).fit(X, wrong, sample_weight=weight).score(X, y)
    with_wrong = TorchnnClassifier(**options).fit(X, wrong).score(X, y)
    assert without > 0.95 > with_wrong


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((10, 2)), np.zeros(10), "y holds one class"),
        (np.zeros((9, 2)), np.arange(9) % 3, "Only binary classification is supported"),
        (np.zeros((10, 2)), np.arange(8) % 2, "y has shape"),
    ],
)
def test_labels_that_are_not_two_classes_raise_an_error(X: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TorchnnClassifier().fit(X, y)


def test_a_loss_that_becomes_nan_raises_an_error() -> None:
    X, y = make_moons(40, random_state=0)
    with pytest.raises(TrainingDivergedError, match=r"learning rate 1e\+30 is probably too high"):
        TorchnnClassifier(**{**QUICK, "lr": 1e30}).fit(X, y)


def test_every_default_is_that_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    of_command = ChainMap(*(config[group] for group in ("model", "data", "trainer", "early_stopping")))
    parameters = inspect.signature(TorchnnClassifier).parameters
    of_estimator = {name: parameter.default for name, parameter in parameters.items()}
    del of_estimator["random_state"]  # None in scikit-learn; the command has the seeds 0
    of_estimator["hidden_sizes"] = list(of_estimator["hidden_sizes"])
    assert of_estimator == {name: of_command[name] for name in of_estimator}


def test_the_same_rows_and_seed_give_the_weights_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All defaults, from the first weights to early stopping, bit for bit."""
    monkeypatch.chdir(tmp_path)
    frame = mixed_frame()[:80]
    frame["late"] = np.random.default_rng(0).choice(["no", "yes"], len(frame))  # nothing to learn, so it stops soon
    features = frame.drop(columns="late")
    classifier = TorchnnClassifier(accelerator="cpu", random_state=7).fit(features, frame["late"])
    train, val = classifier._split((frame["late"] == "yes").to_numpy().astype(int), seed=7)
    words = ["--data.target", "late", "--data.keep", str(list(features)), "--trainer.accelerator", "cpu"]
    for flag, rows in (("path", train), ("val_path", val), ("test_path", val)):
        frame.iloc[rows].to_parquet(f"{flag}.parquet", index=False)
        words += [f"--data.{flag}", f"{flag}.parquet"]
    main(["fit", *words, "--seed_everything", "7", "--data.seed", "7"])
    last, best = (torch.load(next(tmp_path.rglob(f"{name}*.ckpt")), weights_only=True) for name in ("last", "best"))
    assert last["epoch"] + 1 == classifier.n_iter_
    assert PATIENCE < classifier.n_iter_ < MAX_EPOCHS
    ours = classifier.model_.state_dict()
    assert ours.keys() == best["state_dict"].keys()
    for name, value in ours.items():
        assert torch.equal(value, best["state_dict"][name]), name
    options = [dict(hparams) for hparams in (classifier.model_.hparams, best["hyper_parameters"])]
    schemas = [option.pop("schema") for option in options]
    assert options[0] == options[1]
    assert schemas[0]["columns"] == schemas[1]["columns"]
