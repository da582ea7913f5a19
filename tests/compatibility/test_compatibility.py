"""The cells of the compatibility table in docs/modules.md, and skorch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from torch import nn

import torchnn
from tests.compatibility.models import CASES
from tests.compatibility.settings import ABSOLUTE, RELATIVE, SETTINGS, gradients_of_mean, model_and_converted, table

PAGE = (Path(torchnn.__file__).parent.parent / "docs/modules.md").read_text()
ignored = pytest.mark.filterwarnings("ignore")  # transformers' and torch.onnx's own


@ignored
@pytest.mark.parametrize("model", CASES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_converted_model_behaves_as_before(setting: str, model: str) -> None:
    SETTINGS[setting](CASES[model])


def test_the_documentation_shows_the_cells_that_are_tested() -> None:
    """Update it with `.venv/bin/python -m tests.compatibility`."""
    assert table(lambda setting, model: True, list(CASES)) in PAGE


@ignored
def test_a_conversion_that_changes_something_would_be_noticed() -> None:
    """Planted error: one weight is off by a millionth."""
    case = CASES["nn.Sequential"]
    model, converted = model_and_converted(case)
    with torch.no_grad():
        next(converted.parameters())[0, 0] += 1e-6
    x = case.inputs()
    pairs = zip(gradients_of_mean(converted, x), gradients_of_mean(model, x), strict=True)
    assert not all(torch.allclose(a, b, rtol=RELATIVE, atol=ABSOLUTE) for a, b in pairs)


def classifier(module: nn.Module, criterion: Any) -> Any:
    from skorch import NeuralNetBinaryClassifier

    return NeuralNetBinaryClassifier(
        module, criterion=criterion, max_epochs=8, lr=0.5, batch_size=32, iterator_train__shuffle=False, verbose=0
    )


@ignored
def test_a_network_of_ours_in_skorch_trains_as_torchs_does() -> None:
    features, labels = load_breast_cancer(return_X_y=True)
    x, y = StandardScaler().fit_transform(features).astype(np.float32), labels.astype(np.float32)
    torch.manual_seed(0)
    ours = torchnn.MLP([30, 8, 1], output_activation="identity")  # skorch wants logits
    theirs = nn.Sequential(nn.Linear(30, 8), nn.Sigmoid(), nn.Linear(8, 1))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    ours_fitted = classifier(ours, torchnn.BCEWithLogitsLoss).fit(x, y)
    theirs_fitted = classifier(theirs, nn.BCEWithLogitsLoss).fit(x, y)
    np.testing.assert_allclose(ours_fitted.predict_proba(x), theirs_fitted.predict_proba(x), atol=1e-5)
    assert ours_fitted.score(x, y) > 0.9
    assert ours_fitted.history[:, "train_loss"] == pytest.approx(theirs_fitted.history[:, "train_loss"], abs=1e-5)
